/** `zephyr-align eval mt-bench`: answers, judgments and figures in FastChat's files. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { type Command, Option } from "commander";
import { answerQuestions } from "../judge/mt-bench/answers";
import { type MtBench, openMtBench } from "../judge/mt-bench/bench";
import { readJudgments } from "../judge/mt-bench/judge";
import { judgmentFileName } from "../judge/mt-bench/judgments";
import type { Contestant } from "../judge/mt-bench/match";
import { contestantFrom, judgeMtBench, modelsOf, scoreMtBench } from "../judge/mt-bench/run";
import { benchmarkFolder } from "../judge/pull";
import type { JudgeResult } from "../judge/result";
import { numberBetween, wholeNumber } from "./arguments";
import { usageProblem } from "./config-options";
import { rowProgress } from "./count-progress";
import { interruptible } from "./interrupt";
import { judgeModel } from "./judge-models";
import { addJudgingOptions, given, type JudgingFlags, nameOf, writeResults } from "./judging";

const modes = ["single", "pairwise-baseline", "pairwise-all"] as const;

interface MtBenchFlags extends JudgingFlags {
  bench: string;
  model?: string[];
  name?: string;
  judge?: string;
  mode: (typeof modes)[number];
  baseline: string;
  judgments?: string;
  references?: string;
  out: string;
  maxTokens?: number;
  temperature?: number;
  choices?: number;
  template?: string;
}

export function addEvalMtBench(group: Command): void {
  const command = group
    .command("mt-bench")
    .description("MT-Bench: two-turn questions in eight categories, graded or compared by a judge.")
    .option("--bench <folder>", "FastChat's checkout or data folder.", benchmarkFolder("mt-bench"))
    .option(
      "--model <model...>",
      "Models to judge: answer files, names of answers in --out or --bench, or models that answer now.",
    )
    .option("--judge <model>", "The judge. Without it the judgments of --judgments are counted.")
    .addOption(
      new Option("--mode <mode>", "Grade alone, against a baseline, or all pairs; as FastChat's.")
        .choices(modes)
        .default("single"),
    )
    .option("--baseline <name>", "Opponent in pairwise-baseline.", "gpt-3.5-turbo")
    .option("--out <folder>", "Answers and judgments, in FastChat's layout; what is there is kept.", "runs/mt-bench")
    .option("--judgments <file>", "Judgment file. (default: <out>/model_judgment/<judge>_single.jsonl, …_pair.jsonl)")
    .option("--references <file>", "Reference answers. (default: the judge's own, else gpt-4's)")
    .optionsGroup("Answers:")
    .option("--name <name>", "Name of the answers of one model. (default: from its path)")
    .option("--template <name>", "Chat template of the model, written beside its answers.")
    .option("--max-tokens <n>", "Tokens of an answer. (default: 1024)", wholeNumber(1))
    .option("--temperature <x>", "One for all categories. (default: by category, as FastChat)", numberBetween(0, 2))
    .option("--choices <n>", "Answers to each question; the first is judged. (default: 1)", wholeNumber(1));
  addJudgingOptions(command, "FastChat")
    .addHelpText(
      "after",
      `
Examples:
  $ zephyr-align pull mt-bench
  $ zephyr-align eval mt-bench --model runs/dpo/model --judge gpt-4-0613 --json mt-bench.json
  $ zephyr-align eval mt-bench --model runs/dpo/model --mode pairwise-baseline --baseline zephyr-7b-beta --judge gpt-4-0613
  $ zephyr-align eval mt-bench --judgments gpt-4_single.jsonl --compat      counts what was judged elsewhere`,
    )
    .action((flags: MtBenchFlags) => interruptible((signal) => run(flags, signal)));
}

async function run(flags: MtBenchFlags, signal: AbortSignal): Promise<void> {
  const { judge, limit, references } = flags;
  const bench = await openMtBench(flags.bench, given({ judge, limit, references }));
  const results = judge === undefined ? await count(flags, bench) : await judgeAll(flags, bench, judge, signal);
  await writeResults(flags, results);
}

async function judgeAll(
  flags: MtBenchFlags,
  bench: MtBench,
  judgeName: string,
  signal: AbortSignal,
): Promise<JudgeResult[]> {
  const { mode, out, model = [], concurrency, repeats, minComplete } = flags;
  if (model.length === 0) throw usageProblem("--model", "it is missing", "Name what is to be judged.");
  const judge = await judgeModel("--judge", judgeName);
  const contestants: Contestant[] = [];
  for (const name of model) contestants.push(await contestant(flags, bench, name, signal));
  const pairs =
    mode === "single" ? contestants.map((each) => [each] as const) : await opponents(flags, bench, contestants, signal);
  const file =
    flags.judgments ?? join(out, "model_judgment", judgmentFileName(judge.name, mode === "single" ? "single" : "pair"));
  const results: JudgeResult[] = [];
  for (const [one, two] of pairs) {
    results.push(
      await judgeMtBench({
        bench,
        model: one,
        ...(two ? { opponent: two } : {}),
        judge,
        file,
        mode: flags.compat ? "compat" : "strict",
        canaries: flags.canaries ?? true,
        ...given({ concurrency, repeats, minComplete }),
        signal,
        onJudgment: rowProgress(`judge ${one.name}`, flags.quiet),
      }),
    );
  }
  return results;
}

async function opponents(flags: MtBenchFlags, bench: MtBench, contestants: readonly Contestant[], signal: AbortSignal) {
  if (flags.mode === "pairwise-all") {
    if (contestants.length < 2) throw usageProblem("--model", "one model makes no pair", "Name at least two models.");
    return contestants.flatMap((one, i) => contestants.slice(i + 1).map((two) => [one, two] as const));
  }
  const baseline = await contestant(flags, bench, flags.baseline, signal);
  return contestants.filter(({ name }) => name !== baseline.name).map((one) => [one, baseline] as const);
}

/** Answers from a file, by name, or of a model that answers now. */
async function contestant(
  flags: MtBenchFlags,
  bench: MtBench,
  named: string,
  signal: AbortSignal,
): Promise<Contestant> {
  if (named.endsWith(".jsonl") && existsSync(named)) return await contestantFrom(named, flags.name);
  const known = [flags.out, bench.folder]
    .map((folder) => join(folder, "model_answer", `${named}.jsonl`))
    .find(existsSync);
  if (known !== undefined) return await contestantFrom(known, named);
  const model = await judgeModel("--model", named);
  const name = flags.name ?? nameOf(named);
  const file = join(flags.out, "model_answer", `${name}.jsonl`);
  const { maxTokens, temperature, choices, template, concurrency } = flags;
  const answers = await answerQuestions(model, bench.questions, {
    name,
    file,
    ...given({ maxTokens, temperature, choices, template, concurrency }),
    signal,
    onAnswer: rowProgress(`answer ${name}`, flags.quiet),
  });
  return { name, answers, file, generated: true };
}

/** Counts judgments that are there. */
async function count(flags: MtBenchFlags, bench: MtBench): Promise<JudgeResult[]> {
  const { judgments: file, mode, minComplete } = flags;
  if (file === undefined) {
    throw usageProblem("--judge", "it is missing", "Name the judge, or give --judgments with what was judged.");
  }
  const pairwise = mode !== "single";
  const rows = await readJudgments(file, pairwise);
  const names = flags.model ?? modelsOf(rows);
  const pairs = pairwise
    ? rows
        .map(({ value }) => ("model" in value ? [value.model, ""] : [value.model_1, value.model_2]) as [string, string])
        .filter(([one, two], i, all) => all.findIndex(([a, b]) => a === one && b === two) === i)
        .filter((pair) => pair.some((name) => names.includes(name)))
    : names.map((name) => [name, undefined] as const);
  const results: JudgeResult[] = [];
  for (const [one, two] of pairs) {
    results.push(
      await scoreMtBench({
        bench,
        file,
        model: await known(flags, bench, one),
        ...(two === undefined ? {} : { opponent: await known(flags, bench, two) }),
        mode: flags.compat ? "compat" : "strict",
        ...given({ minComplete }),
      }),
    );
  }
  return results;
}

/** The answers of a name, where they are; compat does not look at them. */
async function known(flags: MtBenchFlags, bench: MtBench, name: string): Promise<Contestant | string> {
  const file = [flags.out, bench.folder]
    .map((folder) => join(folder, "model_answer", `${name}.jsonl`))
    .find(existsSync);
  return file === undefined || flags.compat ? name : await contestantFrom(file, name);
}
