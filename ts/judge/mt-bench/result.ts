/** A {@link JudgeResult} out of judgments: joined by question, never by position. */
import { JudgeError } from "../../errors";
import { packageVersion } from "../../native/load";
import { biasOf } from "../bias";
import { flaggedAnswers, sectionMarkers } from "../canaries";
import { figureOf, missingWarning, requireComplete, type Scored } from "../figures";
import {
  type Completeness,
  type Figure,
  type JudgedModel,
  type JudgedRow,
  type JudgedTurn,
  type JudgeFailure,
  type JudgeResult,
  judgeResultFormat,
  type Verdict,
} from "../result";
import { byKey, groupBy, type Placed } from "../rows";
import { turnsOf } from "./answers";
import type { MtBench, Question } from "./bench";
import { isPair, type Judgment } from "./judgments";
import { type Contestant, matchesOf, referenceCategories } from "./match";
import { readingOf } from "./reading";

/** What a result is made of. */
export interface MtBenchResultInput {
  bench: MtBench;
  mode: "strict" | "compat";
  model: JudgedModel;
  opponent: JudgedModel | null;
  /** Judgments of the model (against the opponent), in any order; others are ignored. */
  rows: readonly Placed<Judgment>[];
  /** The answers, where they are known. */
  answers?: Contestant["answers"] | undefined;
  opponentAnswers?: Contestant["answers"] | undefined;
  /** Times that everything was to be judged. @default as many as the rows have */
  repeats?: number | undefined;
  /** Completeness under which no score is given; `compat` gives one always. */
  floor: number;
  judge: JudgeResult["judge"];
  cost: JudgeResult["cost"];
  canaries: JudgeResult["canaries"];
  answersHash: string | null;
}

/**
 * The figures of a run.
 *
 * @throws JudgeError `ZA_JUDGE_DUPLICATE` for a turn that is judged twice, `ZA_JUDGE_JOIN` for a judgment of another answer,
 * `ZA_JUDGE_INCOMPLETE` under the floor; none in `compat` mode, which averages whatever is there.
 */
export function mtBenchResult(input: MtBenchResultInput): JudgeResult {
  const { bench, mode, model, opponent } = input;
  const rows = input.rows.filter(({ value }) => isAbout(value, model.name, opponent?.name ?? null));
  if (mode === "strict") {
    refuseDuplicates(rows);
    refuseOtherAnswers(input, rows);
  }
  const byQuestion = groupBy(rows, ({ value }) => value.question_id);
  const repeats = input.repeats ?? Math.max(1, ...rows.map(({ value }) => (value.repeat ?? 0) + 1));

  const scored: Scored[] = [];
  const failures: JudgeFailure[] = [];
  const judgedRows = bench.questions.map((question): JudgedRow => {
    const { question_id: id, category } = question;
    const turns = question.turns.map((prompt, index): JudgedTurn => {
      const turn = (index + 1) as 1 | 2;
      const mine = (byQuestion.get(id) ?? []).map(({ value }) => value).filter((row) => row.turn === turn);
      const read = mine.map((row) => ({ row, ...seenBy(model.name, row, mode) }));
      for (let repeat = 0; repeat < repeats; repeat++) {
        const here = read.filter(({ row }) => (row.repeat ?? 0) === repeat);
        // A failure that a later row repairs is none.
        const usable = here.filter(({ score }) => score !== null);
        for (const { score } of usable) scored.push({ question: id, category, turn, repeat, score: score! });
        if (usable.length > 0) continue;
        failures.push({ id, turn, repeat, first: null, problem: here.at(-1)?.problem ?? "it is not judged" });
      }
      const scores = read.flatMap(({ score }) => (score === null ? [] : [score]));
      return {
        turn,
        prompt,
        reference: referenceOf(bench, question, index),
        answer: input.answers ? (turnsOf(input.answers, question, model.name)[index] ?? null) : null,
        opponentAnswer:
          input.opponentAnswers && opponent
            ? (turnsOf(input.opponentAnswers, question, opponent.name)[index] ?? null)
            : null,
        score: scores.length > 0 ? scores.reduce((a, b) => a + b, 0) / scores.length : null,
        verdicts: read.flatMap(({ row, games, score, problem }) => verdictsOf(row, model.name, games, score, problem)),
      };
    });
    return { id, category, turns };
  });

  const expected = repeats * bench.questions.reduce((count, { turns }) => count + turns.length, 0);
  const completeness: Completeness = { expected, judged: expected - failures.length, floor: input.floor };
  if (mode === "strict") requireComplete(completeness, failures);
  const markers = [...bench.prompts.values()].flatMap(({ prompt_template }) => sectionMarkers(prompt_template));
  return {
    format: judgeResultFormat,
    protocol: opponent ? "mt-bench-pair" : "mt-bench",
    mode,
    createdAt: new Date().toISOString(),
    model,
    opponent,
    judge: input.judge,
    scale: opponent ? "win" : "rating",
    figures: figuresOf(scored, bench.questions, opponent !== null),
    counts: opponent ? countsOf(scored) : null,
    rows: judgedRows,
    completeness,
    bias: biasOf(judgedRows),
    canaries: input.canaries,
    flaggedAnswers: flaggedAnswers(judgedRows, markers),
    failures,
    hashes: { ...bench.hashes, answers: input.answersHash },
    cost: input.cost,
    warnings: warningsOf(input, failures, completeness, rows),
    versions: { "zephyr-align": packageVersion(), node: process.versions.node },
  };
}

function isAbout(row: Judgment, model: string, opponent: string | null): boolean {
  if (!isPair(row)) return opponent === null && row.model === model;
  return opponent !== null && [row.model_1, row.model_2].sort().join("\n") === [model, opponent].sort().join("\n");
}

/** Two usable judgments of one turn are two answers or two judges: no mean is taken over them. */
function refuseDuplicates(rows: readonly Placed<Judgment>[]): void {
  const usable = rows.filter(({ value }) => readingOf(value, "strict").problem === null);
  byKey(usable, turnJudged, (key) => {
    const [models, question, turn] = JSON.parse(key);
    return `the judgment of ${models} on question ${question}, turn ${turn},`;
  });
}

/** What is judged once in a run, whoever is named first and whatever the judge and its prompt are called. */
function turnJudged(row: Judgment): string {
  const models = isPair(row) ? [row.model_1, row.model_2].sort().join(" and ") : row.model;
  return JSON.stringify([models, row.question_id, row.turn, row.repeat ?? 0]);
}

/** Where the answers are known, every judgment must be one of them, word by word. */
function refuseOtherAnswers(
  { bench, model, opponent, answers, opponentAnswers }: MtBenchResultInput,
  rows: readonly Placed<Judgment>[],
): void {
  if (!answers || (opponent && !opponentAnswers)) return;
  const other = opponent && opponentAnswers ? { name: opponent.name, answers: opponentAnswers } : null;
  const matches = groupBy(
    matchesOf(bench, { name: model.name, answers }, other),
    ({ question }) => question.question_id,
  );
  for (const { value: row, place } of rows) {
    const match = matches.get(row.question_id)?.find(({ turn }) => turn === row.turn);
    const shown = isPair(row) ? [row.g1_user_prompt, row.g2_user_prompt] : [row.user_prompt];
    if (!match || match.games.every(({ userPrompt }) => shown.includes(userPrompt))) continue;
    throw new JudgeError(
      "ZA_JUDGE_JOIN",
      `the judgment of question ${row.question_id}, turn ${row.turn} is about another answer, reference or prompt`,
      { place, remedy: "Give the answers that were judged, or judge these." },
    );
  }
}

/** A reading from the model's view: rows of pairs may name it second. */
function seenBy(model: string, row: Judgment, mode: "strict" | "compat") {
  const reading = readingOf(row, mode);
  if (!isPair(row) || row.model_1 === model) return reading;
  const turned = (score: number | null) => (score === null ? null : 1 - score);
  return { ...reading, score: turned(reading.score), games: reading.games.map(turned) };
}

function verdictsOf(
  row: Judgment,
  model: string,
  games: (number | null)[],
  score: number | null,
  problem: string | null,
): Verdict[] {
  const about = { repeat: row.repeat ?? 0, prompt: row.judge[1], tries: row.tries ?? 1 };
  if (!isPair(row)) return [{ ...about, first: null, text: row.judgment, score, problem }];
  const firstIsModel = row.model_1 === model;
  return [row.g1_judgment, row.g2_judgment].map((text, index) => {
    const first = (index === 0) === firstIsModel ? "model" : "opponent";
    const game = games[index] ?? null;
    return { ...about, first, text, score: game, problem: game === null ? "there is no single verdict" : null };
  });
}

function referenceOf(bench: MtBench, { question_id, category }: Question, index: number): string | null {
  if (!referenceCategories.includes(category)) return null;
  return bench.references.get(question_id)?.choices[0]?.turns[index] ?? null;
}

/** Headline, turns, categories; a pair's score counts a tie half (FastChat's `win_rate_adjusted`). */
function figuresOf(scored: readonly Scored[], questions: readonly Question[], pair: boolean): Figure[] {
  const unit = pair ? "percent" : "points";
  const overall = pair ? { name: "win_rate", label: "Win rate" } : { name: "score", label: "Score" };
  const categories = [...new Set(questions.map(({ category }) => category))];
  return [
    figureOf({ ...overall, group: "overall", unit }, scored),
    ...([1, 2] as const).map((turn) =>
      figureOf(
        { name: `turn_${turn}`, label: `Turn ${turn}`, group: "turn", unit },
        scored.filter((each) => each.turn === turn),
      ),
    ),
    ...categories.map((category) =>
      figureOf(
        { name: `category/${category}`, label: titled(category), group: "category", unit },
        scored.filter((each) => each.category === category),
      ),
    ),
  ];
}

function titled(category: string): string {
  return category === "stem" ? "STEM" : category.charAt(0).toUpperCase() + category.slice(1);
}

function countsOf(scored: readonly Scored[]) {
  const count = (score: number) => scored.filter((each) => each.score === score).length;
  return { wins: count(1), losses: count(0), ties: count(0.5) };
}

function warningsOf(
  { bench, mode, canaries, model, judge }: MtBenchResultInput,
  failures: readonly JudgeFailure[],
  completeness: Completeness,
  rows: readonly Placed<Judgment>[],
): string[] {
  const twice = rows.length - new Set(rows.map(({ value }) => turnJudged(value))).size;
  const alarms = canaries.filter(({ flagged }) => flagged).map(({ name }) => name);
  const ids = judge.returned.map(({ id }) => id);
  return [
    ...(alarms.length > 0
      ? [`The judge likes answers that say nothing (${alarms.join(", ")}): its scores mean little.`]
      : []),
    ...(mode === "compat" && twice > 0
      ? [`${twice} turns are judged more than once, and all judgments are averaged, as FastChat does.`]
      : []),
    ...missingWarning(failures, completeness),
    ...(ids.length > 1 ? [`Answers came from ${ids.length} models (${ids.join(", ")}).`] : []),
    ...(bench.referenceModel !== null && bench.referenceModel === model.name
      ? [`The reference answers are ${model.name}'s own.`]
      : []),
    ...(model.name === judge.asked ? ["The judge judges itself."] : []),
  ];
}
