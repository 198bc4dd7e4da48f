import type { FeedbackRow } from "../feedback-row";
import { meanWith } from "../generate/report";

/** Something that a model was asked for and did not give. */
export interface RateFailure {
  prompt_id: string;
  instruction: string;
  stage: "answer" | "rating" | "critique";
  model: string;
  problem: string;
  /** What it answered, in order. */
  answers: string[];
  /** Whether the prompt has no row because of it; such a prompt is asked again by the next run. */
  unrated: boolean;
}

/** Means of a model's answers. */
export interface ModelScores {
  answers: number;
  /** Mean of `fine-grained_score`, 1 to 5. */
  fineGrained: number;
  /** Mean of `overall_score`, 1 to 10; 0 when there is none. */
  overall: number;
  overallScores: number;
}

/** What a rating made, and what it could not make. Grows while it goes on. */
export interface RateReport {
  prompts: number;
  rated: number;
  /** Rated by an earlier run. */
  before: number;
  /** Prompts that occurred earlier in the data. */
  duplicates: number;
  /** Prompts without a row. */
  failed: number;
  failures: Record<RateFailure["stage"], number>;
  models: Record<string, ModelScores>;
  /** Mean rating by the place at which an answer was shown to the rater, first to last: it should be level. */
  byPlace: { mean: number; ratings: number }[];
  calls: { made: number; journalled: number };
}

export function emptyRateReport(): RateReport {
  return {
    prompts: 0,
    rated: 0,
    before: 0,
    duplicates: 0,
    failed: 0,
    failures: { answer: 0, rating: 0, critique: 0 },
    models: {},
    byPlace: [],
    calls: { made: 0, journalled: 0 },
  };
}

/** Takes a row into the models' means. */
export function countRow(report: RateReport, row: FeedbackRow): void {
  for (const { model, overall_score: overall, "fine-grained_score": fine } of row.completions) {
    report.models[model] ??= { answers: 0, fineGrained: 0, overall: 0, overallScores: 0 };
    const scores = report.models[model];
    scores.answers++;
    if (fine !== null) scores.fineGrained = meanWith(scores.fineGrained, scores.answers, fine);
    if (overall !== null) scores.overall = meanWith(scores.overall, ++scores.overallScores, overall);
  }
}

export function countPlace(report: RateReport, place: number, rating: number): void {
  report.byPlace[place] ??= { mean: 0, ratings: 0 };
  const at = report.byPlace[place];
  at.mean = meanWith(at.mean, ++at.ratings, rating);
}
