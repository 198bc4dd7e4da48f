/** Two judged runs beside each other: differences over the questions that both have. */
import type { Figure, JudgedRow, JudgeResult } from "../../judge/result";
import { bootstrapMean, winRate } from "../../judge/statistics";

/** A difference of means, the second run less the first. */
export interface Difference {
  /** Name and label of the figure that differs. */
  name: string;
  label: string;
  unit: Figure["unit"];
  value: number;
  /** 95 % interval by paired bootstrap over questions; null for fewer than two. */
  low: number | null;
  high: number | null;
  /** Turns that both runs have a score for, and their questions. */
  n: number;
  questions: number;
}

/** A question and how far the two runs are apart on it. */
export interface ChangedQuestion {
  id: number | string;
  category: string | null;
  prompt: string;
  /** Means over the turns that both have. */
  first: number;
  second: number;
}

/** What two runs of one protocol say about each other. */
export interface RunComparison {
  first: string;
  second: string;
  /** Headline, turns, categories. */
  differences: Difference[];
  /** Turns on which the second run scored higher, the same, lower. */
  turns: { higher: number; same: number; lower: number };
  /** Share of the turns on which the second scored higher, ties half, 0 to 1. */
  higherRate: { rate: number; low: number; high: number };
  /** The questions with the largest change, largest first. */
  changed: ChangedQuestion[];
  /** What makes the two less comparable, in whole sentences. */
  cautions: string[];
}

/** Questions that are named as changed. */
const namedQuestions = 10;

interface PairedQuestion {
  row: JudgedRow;
  /** Scores of each turn that both have: first, second. */
  turns: { turn: number; scores: readonly [number, number] }[];
}

/** Joins two runs by question and turn. */
export function compareRuns(
  first: { label: string; result: JudgeResult },
  second: { label: string; result: JudgeResult },
): RunComparison {
  const paired = pairedQuestions(first.result, second.result);
  const all = paired.flatMap(({ turns }) => turns.map(({ scores }) => scores));
  const count = (sign: number) => all.filter(([a, b]) => Math.sign(b - a) === sign).length;
  const { rate, low, high } = winRate(
    all.map(([, b]) => b),
    all.map(([a]) => a),
  );
  const differences = differencesOf(paired, first.result);
  return {
    first: first.label,
    second: second.label,
    differences,
    turns: { higher: count(1), same: count(0), lower: count(-1) },
    higherRate: { rate, low, high },
    changed: changedQuestions(paired),
    cautions: cautionsOf(first.result, second.result, paired.length),
  };
}

function pairedQuestions(first: JudgeResult, second: JudgeResult): PairedQuestion[] {
  const others = new Map(second.rows.map((row) => [String(row.id), row]));
  return first.rows.flatMap((row) => {
    const other = others.get(String(row.id));
    const turns = row.turns.flatMap(({ turn, score }) => {
      const there = other?.turns.find((each) => each.turn === turn)?.score ?? null;
      return score === null || there === null ? [] : [{ turn, scores: [score, there] as const }];
    });
    return turns.length > 0 ? [{ row, turns }] : [];
  });
}

function differencesOf(paired: readonly PairedQuestion[], { figures, scale }: JudgeResult): Difference[] {
  const factor = scale === "win" ? 100 : 1;
  const unit: Figure["unit"] = scale === "win" ? "percent" : "points";
  return figures.flatMap((figure): Difference[] => {
    const part = partOf(figure);
    if (!part) return [];
    const questions = paired
      .map(({ row, turns }) => turns.filter(({ turn }) => part(row.category, turn)).map(({ scores: [a, b] }) => b - a))
      .filter((each) => each.length > 0);
    if (questions.length === 0) return [];
    const { mean, low, high, n } = bootstrapMean(questions);
    const sure = questions.length > 1;
    const { name, label } = figure;
    return [
      {
        name,
        label,
        unit,
        value: factor * mean,
        low: sure ? factor * low : null,
        high: sure ? factor * high : null,
        n,
        questions: questions.length,
      },
    ];
  });
}

/** The turns that a figure is the mean of; undefined for figures that are no means of scores. */
function partOf({ name }: Figure): ((category: string | null, turn: number) => boolean) | undefined {
  if (name === "score" || name === "win_rate") return () => true;
  if (name === "turn_1" || name === "turn_2") return (_, turn) => name === `turn_${turn}`;
  return name.startsWith("category/") ? (category) => name === `category/${category}` : undefined;
}

function changedQuestions(paired: readonly PairedQuestion[]): ChangedQuestion[] {
  const mean = (values: readonly number[]) => values.reduce((sum, each) => sum + each, 0) / values.length;
  return paired
    .map(({ row, turns }) => ({
      id: row.id,
      category: row.category,
      prompt: row.turns[0]?.prompt ?? "",
      first: mean(turns.map(({ scores }) => scores[0])),
      second: mean(turns.map(({ scores }) => scores[1])),
    }))
    .filter(({ first, second }) => first !== second)
    .sort((a, b) => Math.abs(b.second - b.first) - Math.abs(a.second - a.first))
    .slice(0, namedQuestions);
}

function cautionsOf(first: JudgeResult, second: JudgeResult, shared: number): string[] {
  const ids = ({ judge }: JudgeResult) => judge.returned.map(({ id }) => id).join(", ") || judge.asked;
  const larger = Math.max(first.rows.length, second.rows.length);
  const differs = (what: string, a: unknown, b: unknown, sentence: string) =>
    JSON.stringify(a) === JSON.stringify(b) ? [] : [`${what}: ${sentence}`];
  return [
    ...(shared < larger ? [`Only ${shared} of ${larger} questions have a score in both.`] : []),
    ...differs(
      "Judges",
      ids(first),
      ids(second),
      `${ids(first)} and ${ids(second)}; scores of two judges are no measure of two models.`,
    ),
    ...differs(
      "Questions",
      first.hashes.questions,
      second.hashes.questions,
      "the files differ; joined are those of the same id.",
    ),
    ...differs("Prompts of the judge", first.hashes.prompts, second.hashes.prompts, "the files differ."),
    ...differs("Reference answers", first.hashes.references, second.hashes.references, "the files differ."),
    ...differs(
      "Opponents",
      first.opponent?.name ?? null,
      second.opponent?.name ?? null,
      `${first.opponent?.name ?? "none"} and ${second.opponent?.name ?? "none"}.`,
    ),
    ...differs(
      "Figures",
      first.mode,
      second.mode,
      "one is as the benchmark's own scripts compute it (compat), the other by our rules.",
    ),
    ...differs("Sampling of the judge", first.judge.sampling, second.judge.sampling, "it differs."),
  ];
}
