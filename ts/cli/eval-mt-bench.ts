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
import { addChatModelFlags } from "./chat-model-flags";
import { usageProblem } from "./config-options";
import { rowProgress } from "./count-progress";
import { interruptible } from "./interrupt";
import {
  type AskedModels,
  addJudgingOptions,
  given,
  type JudgingFlags,
  nameOf,
  openAsked,
  templateLabel,
  writeResults,
} from "./judging";

const modes = ["single", "pairwise-baseline", "pairwise-all"] as const;

interface MtBenchFlags extends JudgingFlags {
  bench: string;
  name?: string;
  mode: (typeof modes)[number];
  baseline: string;
  judgments?: string;
  references?: string;
  out: string;
  maxTokens?: number;
  temperature?: number;
  choices?: number;
}

export function addEvalMtBench(group: Command): void {
  const command = group
    .command("mt-bench")
    .description("MT-Bench: two-turn questions in eight categories, graded or compared by a judge.")
    .option("--bench <folder>", "FastChat's checkout or data folder.", benchmarkFolder("mt-bench"));
  addChatModelFlags(
    command,
    "model",
    "To be judged: answers (a file, or a name in --out or --bench), or who answers now",
  );
  addChatModelFlags(command, "judge", "The judge; without it the judgments of --judgments are counted");
  command
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
    .option(
      "--template <name|file>",
      "Chat template of a local model: model, zephyr, or a Jinja file. (default: model)",
    )
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
  const { judge: [judge] = [], limit, references } = flags;
  const bench = await openMtBench(flags.bench, given({ judge, limit, references }));
  if (judge === undefined) await writeResults(flags, await count(flags, bench));
  else await judgeAll(flags, bench, signal);
}

async function judgeAll(flags: MtBenchFlags, bench: MtBench, signal: AbortSignal): Promise<void> {
  const { mode, out, model = [], repeats, minComplete } = flags;
  if (model.length === 0) throw usageProblem("--model", "it is missing", "Name what is to be judged.");
  const named = mode === "pairwise-baseline" ? [...model, flags.baseline] : model;
  // A baseline that answers now would be asked, and perhaps paid, without having been named.
  if (mode === "pairwise-baseline" && answersFile(flags, bench, flags.baseline) === undefined) {
    const remedy = "Name one whose answers are in --out or --bench, or a file of answers.";
    throw usageProblem("--baseline", `there are no answers of ${flags.baseline}`, remedy);
  }
  const answering = [...new Set(named)].filter((name) => answersFile(flags, bench, name) === undefined);
  const asked = await openAsked(flags, answering, out, signal);
  const { judge, concurrency, keep } = asked;
  try {
    const contestants: Contestant[] = [];
    for (const name of named) contestants.push(await contestant(flags, bench, name, asked, signal));
    const file =
      flags.judgments ??
      join(out, "model_judgment", judgmentFileName(judge.name, mode === "single" ? "single" : "pair"));
    const results: JudgeResult[] = [];
    for (const [one, two] of pairsOf(mode, contestants)) {
      results.push(
        await judgeMtBench({
          bench,
          model: one,
          ...(two ? { opponent: two } : {}),
          judge,
          file,
          keep,
          concurrency,
          mode: flags.compat ? "compat" : "strict",
          canaries: flags.canaries ?? true,
          // What stands in for the judge in a dry run need not be readable.
          ...given({ repeats, minComplete: keep ? minComplete : 0 }),
          signal,
          onJudgment: rowProgress(`judge ${one.name}`, flags.quiet),
        }),
      );
    }
    if (keep) await writeResults(flags, results);
    if (!flags.quiet) process.stdout.write(await asked.summary());
  } finally {
    await asked.close();
  }
}

/** Who is judged against whom; the baseline is the last. */
function pairsOf(
  mode: MtBenchFlags["mode"],
  contestants: readonly Contestant[],
): (readonly [Contestant, Contestant?])[] {
  if (mode === "single") return contestants.map((one) => [one] as const);
  if (mode === "pairwise-all") {
    if (contestants.length < 2) throw usageProblem("--model", "one model makes no pair", "Name at least two models.");
    return contestants.flatMap((one, i) => contestants.slice(i + 1).map((two) => [one, two] as const));
  }
  const baseline = contestants.at(-1)!;
  return contestants.filter(({ name }) => name !== baseline.name).map((one) => [one, baseline] as const);
}

/** The file of a model's answers: named itself, or by its name in the folders of the run and of the benchmark. */
function answersFile({ out }: MtBenchFlags, { folder }: MtBench, named: string): string | undefined {
  if (named.endsWith(".jsonl") && existsSync(named)) return named;
  return [out, folder].map((each) => join(each, "model_answer", `${named}.jsonl`)).find(existsSync);
}

/** Answers from a file, or of a model that answers now. */
async function contestant(
  flags: MtBenchFlags,
  bench: MtBench,
  named: string,
  { models, concurrency, keep }: AskedModels,
  signal: AbortSignal,
): Promise<Contestant> {
  const known = answersFile(flags, bench, named);
  if (known !== undefined) return await contestantFrom(known, known === named ? flags.name : named);
  const model = models.get(named)!;
  const name = flags.name ?? nameOf(named);
  const file = join(flags.out, "model_answer", `${name}.jsonl`);
  const { maxTokens, temperature, choices } = flags;
  const answers = await answerQuestions(model, bench.questions, {
    name,
    file,
    keep,
    concurrency,
    ...given({ maxTokens, temperature, choices, template: templateLabel(model, flags.template) }),
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
  const file = answersFile(flags, bench, name);
  return file === undefined || flags.compat ? name : await contestantFrom(file, name);
}
