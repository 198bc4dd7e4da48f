/** Figures out of scores, with all that a figure must say of itself. */
import { JudgeError } from "../errors";
import type { Completeness, Figure, JudgeFailure } from "./result";
import { groupBy } from "./rows";
import { bootstrapMean, standardError, sum } from "./statistics";

/** One usable judgment. */
export interface Scored {
  question: number | string;
  category: string | null;
  turn: 1 | 2;
  /** Counted from 0. */
  repeat: number;
  score: number;
}

/** What a figure is called, and how its scores are shown. */
export type FigureName = Pick<Figure, "name" | "label" | "group" | "unit">;

/** The mean of scores as a {@link Figure}; a `percent` is 100 times the mean. */
export function figureOf(
  about: FigureName,
  scored: readonly Scored[],
  options: { withStandardError?: boolean; seed?: number } = {},
): Figure {
  const factor = about.unit === "percent" ? 100 : 1;
  const scores = scored.map(({ score }) => score);
  const byQuestion = [...groupBy(scored, ({ question }) => question).values()];
  const { low, high } = bootstrapMean(
    byQuestion.map((each) => each.map(({ score }) => score)),
    options.seed,
  );
  const byRepeat = [...groupBy(scored, ({ repeat }) => repeat)]
    .sort(([a], [b]) => a - b)
    .map(([, each]) => factor * mean(each.map(({ score }) => score)));
  const sure = byQuestion.length > 1;
  return {
    ...about,
    value: scores.length > 0 ? factor * mean(scores) : null,
    low: sure ? factor * low : null,
    high: sure ? factor * high : null,
    standardError:
      options.withStandardError && sure
        ? factor * standardError(byQuestion.map((each) => mean(each.map(({ score }) => score)))).error
        : null,
    n: scores.length,
    questions: byQuestion.length,
    repeats: byRepeat.length,
    byRepeat,
    spread: byRepeat.length > 1 ? Math.max(...byRepeat) - Math.min(...byRepeat) : null,
  };
}

/** Mean; NaN of nothing. */
export function mean(values: readonly number[]): number {
  return sum(values) / values.length;
}

/** Share of judgments that must be usable for a figure to be given. */
export const defaultFloor = 0.98;

/**
 * Refuses a score under the completeness floor.
 *
 * @throws JudgeError `ZA_JUDGE_INCOMPLETE` that names the first failures.
 */
export function requireComplete({ expected, judged, floor }: Completeness, failures: readonly JudgeFailure[]): void {
  if (expected > 0 && judged >= floor * expected) return;
  const named = failures.slice(0, 3).map(({ id, turn, problem }) => `${id}, turn ${turn}: ${problem}`);
  const list = named.length > 0 ? ` (${named.join("; ")}${failures.length > 3 ? "; …" : ""})` : "";
  throw new JudgeError(
    "ZA_JUDGE_INCOMPLETE",
    `${judged} of ${expected} judgments can be used, ${Math.ceil(floor * expected)} are needed for a score${list}`,
    {
      remedy:
        "Run again: what is judged is kept, only what is missing is asked. A lower floor (minComplete) gives a score of fewer.",
    },
  );
}

/** The warning of what is missing in the figures, by its first places. */
export function missingWarning(failures: readonly JudgeFailure[], { expected }: Completeness): string[] {
  if (failures.length === 0) return [];
  const places = failures.slice(0, 5).map(({ id, turn }) => `${id}/${turn}`);
  const more = failures.length > places.length ? ", …" : "";
  return [`${failures.length} of ${expected} judgments are missing in the figures (${places.join(", ")}${more}).`];
}
