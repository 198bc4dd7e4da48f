/** Rated answers as rows of raw UltraFeedback, and the pairs that they give. */
import { fromArray } from "../ts/data";
import { type BinarisedPair, type BinariseReport, binarise } from "../ts/distill/binarise/binarise";
import type { BinariseOptions } from "../ts/distill/binarise/options";
import type { FeedbackRow } from "../ts/distill/feedback-row";

/** A row of raw UltraFeedback with these scores: overall from 1 to 10, and one rating for all aspects. */
export function rated(
  instruction: string,
  scores: readonly [overall: number | null, rating: number | null][],
  source = "flan",
): FeedbackRow {
  const completions = scores.map(([overall, rating], index) => ({
    annotations: rating === null ? {} : { helpfulness: { Rating: String(rating), Rationale: "so" } },
    custom_system_prompt: "",
    model: `model-${index}`,
    principle: "helpfulness",
    response: `answer ${index} to ${instruction}`,
    critique: "",
    overall_score: overall,
    "fine-grained_score": rating,
  }));
  return {
    source,
    instruction,
    models: completions.map(({ model }) => model),
    completions,
    correct_answers: [],
    incorrect_answers: [],
  };
}

export async function pairsOf(rows: readonly unknown[], options: BinariseOptions & { onBadRow?: "skip" } = {}) {
  const found = binarise(fromArray(rows), options);
  const pairs: BinarisedPair[] = [];
  for await (const each of found) pairs.push(each);
  return { pairs, report: found.report };
}

export const one = async (scores: Parameters<typeof rated>[1], options: BinariseOptions) => {
  const { pairs, report } = await pairsOf([rated("why?", scores)], options);
  return pairs[0] ? [pairs[0].row.score_chosen, pairs[0].row.score_rejected] : Object.keys(report.dropped)[0];
};

export const sumOf = (report: BinariseReport) =>
  Object.values(report.dropped).reduce((sum, { count }) => sum + count, 0);
