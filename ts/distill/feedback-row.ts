/** The layout of raw UltraFeedback: what the rater writes and the binariser reads. */
import type { Message } from "../data/messages";
import { DataError, type Place } from "../errors";
import { type Aspect, aspectNames } from "./prompts/rating";

/** One aspect of one answer. `Rating` is `1` to `5` as text, or `N/A`. */
export interface FeedbackAnnotation {
  Rating: string;
  Rationale: string;
}

/** One answer with its feedback. */
export interface FeedbackCompletion {
  annotations: Partial<Record<Aspect, FeedbackAnnotation>>;
  custom_system_prompt: string;
  model: string;
  principle: string;
  response: string;
  critique: string;
  /** 1 to 10, from the critique; null when none was asked for. */
  overall_score: number | null;
  /** 1 to 5, the mean of the aspects' ratings; null when there are none. Not the same scale as `overall_score`. */
  "fine-grained_score": number | null;
}

/** A prompt with its answers and their feedback. */
export interface FeedbackRow {
  source: string;
  instruction: string;
  models: string[];
  completions: FeedbackCompletion[];
  correct_answers: string[];
  incorrect_answers: string[];
  /** The conversation before the instruction. Not in UltraFeedback; only in rows that have one. */
  history?: Message[];
}

/** Range of the ratings of aspects, and of their mean. */
export const aspectRange = { low: 1, high: 5 } as const;

/** Range of the overall score. */
export const overallRange = { low: 1, high: 10 } as const;

/** Mean of the ratings that are numbers, or null. */
export function fineGrainedScore(annotations: Readonly<FeedbackCompletion["annotations"]>): number | null {
  const ratings = aspectNames
    .map((name) => Number.parseFloat(annotations[name]?.Rating ?? ""))
    .filter((rating) => Number.isFinite(rating));
  return ratings.length === 0 ? null : ratings.reduce((sum, rating) => sum + rating, 0) / ratings.length;
}

/**
 * Reads a row of raw UltraFeedback's columns. Scores must lie in their own ranges: 1 to 5 and 1 to 10.
 *
 * @throws DataError `ZA_DATA_FORMAT` for other columns, `ZA_DATA_ROW` with the field for a bad value
 */
export function feedbackRow(value: unknown, place: Place): FeedbackRow {
  const row = value as Record<string, unknown>;
  const columns = typeof value === "object" && value !== null && !Array.isArray(value) ? Object.keys(value) : [];
  if (!columns.includes("instruction") || !columns.includes("completions")) {
    throw new DataError(
      "ZA_DATA_FORMAT",
      `the columns ${columns.length > 0 ? columns.join(", ") : "(none)"} are not those of rated answers`,
      {
        place,
        remedy: columns.includes("chosen")
          ? "These rows are pairs already: train on them. Rated answers have {instruction, completions} (raw UltraFeedback)."
          : "Give rows of raw UltraFeedback {instruction, completions}, for example raw.jsonl of zephyr-align rate.",
      },
    );
  }
  const list = row.completions;
  if (!Array.isArray(list)) throw fieldError(place, "completions", "expected a list");
  const completions = list.map((each, index) => completion(each, { ...place, field: `completions[${index}]` }));
  return {
    source: typeof row.source === "string" ? row.source : "",
    instruction: text(row.instruction, place, "instruction"),
    models: completions.map(({ model }) => model),
    completions,
    correct_answers: texts(row.correct_answers),
    incorrect_answers: texts(row.incorrect_answers),
    ...(Array.isArray(row.history) && row.history.length > 0 ? { history: row.history as Message[] } : {}),
  };
}

function completion(value: unknown, place: Place): FeedbackCompletion {
  if (typeof value !== "object" || value === null) throw fieldError(place, "", "expected an answer with its feedback");
  const row = value as Record<string, unknown>;
  const annotations: FeedbackCompletion["annotations"] = {};
  for (const name of aspectNames) {
    const given = (row.annotations as Record<string, { Rating?: unknown; Rationale?: unknown }> | undefined)?.[name];
    if (typeof given !== "object" || given === null) continue;
    const Rating = String(given.Rating ?? "N/A").trim();
    const number = Number(Rating);
    if (Rating !== "N/A" && !(number >= aspectRange.low && number <= aspectRange.high)) {
      throw fieldError(place, `annotations.${name}.Rating`, `${Rating} is no rating from 1 to 5`);
    }
    annotations[name] = { Rating, Rationale: typeof given.Rationale === "string" ? given.Rationale : "" };
  }
  return {
    annotations,
    custom_system_prompt: typeof row.custom_system_prompt === "string" ? row.custom_system_prompt : "",
    model: typeof row.model === "string" ? row.model : "",
    principle: typeof row.principle === "string" ? row.principle : "",
    response: text(row.response, place, "response"),
    critique: typeof row.critique === "string" ? row.critique : "",
    overall_score: score(row.overall_score, overallRange, place, "overall_score"),
    "fine-grained_score":
      score(row["fine-grained_score"], aspectRange, place, "fine-grained_score") ?? fineGrainedScore(annotations),
  };
}

function score(value: unknown, range: { low: number; high: number }, place: Place, field: string): number | null {
  if (value === null || value === undefined || value === "") return null;
  const number = typeof value === "string" ? Number(value) : value;
  if (typeof number === "number" && number >= range.low && number <= range.high) return number;
  throw fieldError(place, field, `${JSON.stringify(value)} is no score from ${range.low} to ${range.high}`);
}

function text(value: unknown, place: Place, field: string): string {
  if (typeof value === "string") return value;
  throw fieldError(place, field, value === undefined ? "the field is missing" : "expected a string");
}

function texts(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((each) => typeof each === "string") : [];
}

function fieldError(place: Place, field: string, problem: string): DataError {
  const path = [place.field, field].filter(Boolean).join(".");
  return new DataError("ZA_DATA_ROW", problem, {
    place: { ...place, field: path },
    remedy: 'Repair or remove the row, or leave such rows out and have them listed (onBadRow: "skip").',
  });
}
