/** MT-Bench from answers to a result. */
import { basename, dirname, join } from "node:path";
import type { ChatModel } from "../../client";
import { codePoints } from "../bias";
import { canaries, canaryQuestions, canaryResult, evenly } from "../canaries";
import { defaultFloor, mean } from "../figures";
import { Ledger } from "../ledger";
import type { CanaryResult, JudgedModel, JudgeIdentity, JudgeResult } from "../result";
import { type Placed, sha256 } from "../rows";
import { readAnswers, turnsOf } from "./answers";
import { type MtBench, type OpenMtBenchOptions, openMtBench, type Question } from "./bench";
import { judgeMatches, judgeSampling, readJudgments } from "./judge";
import type { Judgment } from "./judgments";
import { type Contestant, matchesOf, matchOf } from "./match";
import { readingOf } from "./reading";
import { mtBenchResult } from "./result";

/** Options that judging and scoring share. */
export interface MtBenchScoreOptions {
  /** The opened benchmark, or its folder. */
  bench: MtBench | string;
  /**
   * `strict` (ours) joins by id, refuses duplicates, asks again, and gives no score under the floor; `compat` parses and
   * averages exactly as FastChat. @default "strict"
   */
  mode?: "strict" | "compat";
  /** Share of judgments that must be usable for a score. @default 0.98 */
  minComplete?: number;
}

/** Options of {@link judgeMtBench}. */
export interface JudgeMtBenchOptions extends MtBenchScoreOptions {
  model: Contestant;
  /** Compare with this model's answers, in both orders, instead of grading alone. */
  opponent?: Contestant;
  judge: ChatModel;
  /** Judge everything so many times. @default 1 */
  repeats?: number;
  /** Judge the null-model answers too ({@link CanaryResult}). @default true */
  canaries?: boolean;
  /** FastChat's judgment file: what is judged there already is not asked again. */
  file?: string;
  /** Write what is new into the file; false only reads it, for a dry run. @default true */
  keep?: boolean;
  /** Judgments in work at once. @default 4 */
  concurrency?: number;
  signal?: AbortSignal;
  onJudgment?: (done: number, of: number) => void;
}

/** Reads the answers of a model from FastChat's file, `model_answer/<name>.jsonl`. */
export async function contestantFrom(file: string, name = basename(file, ".jsonl")): Promise<Contestant> {
  return { name, file, answers: await readAnswers(file) };
}

/**
 * Judges a model's answers to MT-Bench (Zheng et al. 2023, arXiv 2306.05685): alone, or against an opponent.
 *
 * @throws JudgeError `ZA_JUDGE_…`, and what the judge's client throws; what was judged until then is in the file.
 */
export async function judgeMtBench(options: JudgeMtBenchOptions): Promise<JudgeResult> {
  const { model, judge, mode = "strict", repeats = 1, file, keep, signal, concurrency } = options;
  const opponent = options.opponent ?? null;
  const bench = await opened(options.bench, { judge: judge.name });
  const matches = matchesOf(bench, model, opponent, repeats);
  const canaryMatches =
    options.canaries === false
      ? []
      : evenly(bench.questions, canaryQuestions).flatMap((question) =>
          canaries.map((canary) => matchOf(bench, question, 1, canaryContestant(canary, question), opponent)),
        );
  const ledger = new Ledger();
  const asking = { mode, keep, concurrency, signal };
  const total = matches.length + canaryMatches.length;
  const rows = await judgeMatches(matches, judge, ledger, {
    ...asking,
    file,
    onJudgment: (done) => options.onJudgment?.(done, total),
  });
  const canaryRows = await judgeMatches(canaryMatches, judge, ledger, {
    ...asking,
    // In a file of their own: FastChat's tables would list them as models.
    file: file === undefined ? undefined : join(dirname(file), "canaries", basename(file)),
    onJudgment: (done) => options.onJudgment?.(matches.length + done, total),
  });
  return mtBenchResult({
    bench,
    mode,
    model: judgedModel(model, bench.questions),
    opponent: opponent && judgedModel(opponent, bench.questions),
    rows: rows.map((value) => placed(value, file)),
    answers: model.answers,
    opponentAnswers: opponent?.answers,
    repeats,
    floor: options.minComplete ?? defaultFloor,
    judge: { asked: judge.name, returned: ledger.returned, sampling: sampling(judgeSampling) },
    cost: ledger.cost,
    canaries: canaryResults(canaryRows, opponent ? "win" : "rating", mode),
    answersHash: hashOfAnswers(model, bench.questions),
  });
}

/** Options of {@link scoreMtBench}. */
export interface ScoreMtBenchOptions extends MtBenchScoreOptions {
  /** FastChat's judgment file. */
  file: string;
  /** Name of the model in the file, or its answers. */
  model: string | Contestant;
  opponent?: string | Contestant;
}

/** The result of judgments that are there already; no judge is asked. */
export async function scoreMtBench(options: ScoreMtBenchOptions): Promise<JudgeResult> {
  const { file, model, opponent, mode = "strict" } = options;
  const bench = await opened(options.bench);
  const rows = await readJudgments(file, opponent !== undefined);
  const ledger = new Ledger();
  const name = nameOf(model);
  const mine = rows.filter(
    ({ value }) =>
      ("model" in value ? value.model : value.model_1) === name || ("model_2" in value && value.model_2 === name),
  );
  for (const { value } of mine) ledger.reuse(value.judge_returned ?? value.judge[0]);
  const about = (who: string | Contestant): JudgedModel =>
    typeof who === "string"
      ? { name: who, answers: "file", file: null, template: null, sampling: null, meanLength: null }
      : judgedModel(who, bench.questions);
  return mtBenchResult({
    bench,
    mode,
    model: about(model),
    opponent: opponent === undefined ? null : about(opponent),
    rows: mine,
    answers: typeof model === "string" ? undefined : model.answers,
    opponentAnswers: typeof opponent === "string" ? undefined : opponent?.answers,
    floor: options.minComplete ?? defaultFloor,
    judge: {
      asked: mine[0]?.value.judge[0] ?? "unknown",
      returned: ledger.returned,
      sampling: sampling(judgeSampling),
    },
    cost: ledger.cost,
    canaries: [],
    answersHash: typeof model === "string" ? null : hashOfAnswers(model, bench.questions),
  });
}

/** The models that a judgment file is about. */
export function modelsOf(rows: readonly Placed<Judgment>[]): string[] {
  return [...new Set(rows.flatMap(({ value }) => ("model" in value ? [value.model] : [value.model_1, value.model_2])))];
}

async function opened(bench: MtBench | string, options: OpenMtBenchOptions = {}): Promise<MtBench> {
  return typeof bench === "string" ? await openMtBench(bench, options) : bench;
}

function nameOf(who: string | Contestant): string {
  return typeof who === "string" ? who : who.name;
}

function placed(value: Judgment, file: string | undefined): Placed<Judgment> {
  return { value, place: file === undefined ? {} : { file } };
}

function sampling({ temperature, maxTokens }: typeof judgeSampling): JudgeIdentity["sampling"] {
  return { temperature, maxTokens, topLogprobs: null };
}

function canaryContestant({ name, answer }: (typeof canaries)[number], question: Question): Contestant {
  const { question_id } = question;
  const turns = question.turns.map(() => answer);
  return { name: `canary:${name}`, answers: new Map([[question_id, { question_id, choices: [{ index: 0, turns }] }]]) };
}

function canaryResults(rows: readonly Judgment[], scale: "rating" | "win", mode: "strict" | "compat"): CanaryResult[] {
  if (rows.length === 0) return [];
  return canaries.map((canary) => {
    const mine = rows.filter((row) => ("model" in row ? row.model : row.model_1) === `canary:${canary.name}`);
    return canaryResult(
      canary,
      scale,
      mine.map((row) => readingOf(row, mode).score),
    );
  });
}

/** What the answers say of how they were made. */
function judgedModel(contestant: Contestant, questions: readonly Question[]): JudgedModel {
  const generation = [...contestant.answers.values()][0]?.generation;
  const texts = questions.flatMap((question) =>
    turnsOf(contestant.answers, question, contestant.name).slice(0, question.turns.length),
  );
  return {
    name: contestant.name,
    answers: contestant.generated ? "generated" : "file",
    file: contestant.file ?? null,
    template: generation?.template ?? null,
    sampling: generation
      ? {
          maxTokens: generation.max_tokens,
          temperature: generation.temperature ?? "by category",
          choices: generation.choices,
          seed: 0,
        }
      : null,
    meanLength: texts.length > 0 ? mean(texts.map(codePoints)) : null,
  };
}

function hashOfAnswers({ name, answers }: Contestant, questions: readonly Question[]): string {
  return sha256(JSON.stringify(questions.map((question) => [question.question_id, turnsOf(answers, question, name)])));
}
