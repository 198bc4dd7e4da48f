/**
 * The demo: the whole road of the package on the embedded world, in one linear function. base → dSFT on the teacher's
 * conversations → pairs judged from the dSFT model's samples → dDPO, each judged on held-out prompts.
 */
import { mkdir, writeFile } from "node:fs/promises";
import { cpus } from "node:os";
import { join } from "node:path";
import { standardError, winRate } from "../../ts/judge/statistics";
import { Mistral } from "../../ts/model/mistral";
import { packageRoot, packageVersion } from "../../ts/native/load";
import { type DemoReportInput, type JudgedConversation, type JudgedModel, renderDemoReport } from "../../ts/report";
import { DpoTrainer } from "../../ts/train/dpo-trainer";
import type { Metrics } from "../../ts/train/events";
import { duration, fitShowing } from "../../ts/train/progress";
import { SftTrainer } from "../../ts/train/sft-trainer";
import type { TrainResult } from "../../ts/train/trainer";
import { type BenchScores, type Judged, runBench, scoresOf, temperatures } from "./bench";
import { makePairs } from "./preferences";
import { type DemoSizes, dpo, preferences, quickSizes, sft, sizes } from "./settings";
import { categories, converse, makeTasks, type Task } from "./world";

/** How the demo is run. */
export interface DemoOptions {
  /** Runs with different seeds; the table then shows means and standard errors over them. */
  seeds: number;
  /** The first seed. */
  seed: number;
  /** Folder for report, models and numbers. */
  out: string;
  /** File for every number shown. */
  json?: string;
  /** A smoke test: the same road with a handful of rows. */
  quick?: boolean;
  signal?: AbortSignal;
}

const names = { base: "base", sft: "dSFT", dpo: "dSFT + dDPO", ablation: "dDPO without dSFT" } as const;
type ModelName = keyof typeof names;
const order: readonly ModelName[] = ["base", "ablation", "sft", "dpo"];

/** One training stage, for the report. */
interface Stage {
  title: string;
  history: readonly Metrics[];
  steps: number;
  seconds: number;
  tokens: number;
}

/** Everything that one seed gave. */
interface SeedResult {
  seed: number;
  judged: Record<ModelName, Judged[]>;
  scores: Record<ModelName, BenchScores>;
  stages: Stage[];
  pairs: number;
  seconds: Record<string, number>;
}

/** Runs the demo, prints the table, writes `report.html` and the models. */
export async function runDemo(options: DemoOptions): Promise<void> {
  const started = performance.now();
  const size = options.quick ? quickSizes : sizes;
  await mkdir(options.out, { recursive: true });
  const results: SeedResult[] = [];
  for (let index = 0; index < options.seeds; index++) {
    results.push(await runSeed(options.seed + index, size, options));
  }
  const seconds = (performance.now() - started) / 1000;
  const claims = claimsOf(results);
  console.log(`\n${table(results)}\n\n${claims.map(({ text, holds }) => `${holds ? "✓" : "✗"} ${text}`).join("\n")}`);
  const report = join(options.out, "report.html");
  await writeFile(report, renderDemoReport(reportInput(results, claims, size, seconds)));
  console.log(`\nreport   ${report}\nmodels   ${join(options.out, "models")}\ntime     ${duration(seconds)}`);
  if (options.json) {
    await writeFile(options.json, `${JSON.stringify(numbers(results, claims, size, seconds), null, 2)}\n`);
    console.log(`numbers  ${options.json}`);
  }
}

async function runSeed(seed: number, size: DemoSizes, options: DemoOptions): Promise<SeedResult> {
  const { signal } = options;
  const abortable = signal ? { signal } : {};
  const seconds: Record<string, number> = {};
  const timed = async <T>(what: string, work: () => Promise<T>): Promise<T> => {
    console.error(`\n── ${what}${options.seeds > 1 ? ` (seed ${seed})` : ""}`);
    const start = performance.now();
    const result = await work();
    seconds[what] = (performance.now() - start) / 1000;
    return result;
  };
  const stages: Stage[] = [];
  const note = (title: string, what: string, { history, steps, metrics }: TrainResult) =>
    stages.push({ title, history, steps, seconds: seconds[what]!, tokens: metrics.num_tokens ?? 0 });
  const load = () => Mistral.fromPretrained(join(packageRoot(), "recipes", "demo", "base"));

  const heldOut = makeTasks({ seed: 1, split: "heldout", perCategory: size.heldOutPerCategory });
  const bench = (model: Mistral) => runBench(model, heldOut, { seed, ...abortable });
  const base = await load();
  console.error(
    `base: ${(base.parameters / 1e6).toFixed(2)} M parameters, vocabulary ${base.tokenizer.vocabularySize}`,
  );

  // 1. The base model on the bench, before anything is done to it.
  const judgedBase = await timed("judging base", () => bench(base));

  // 2. dSFT on conversations that the teacher wrote.
  const conversations = makeTasks({ seed, split: "train", count: size.conversations });
  const rows = conversations.map((task) => ({ messages: converse(task) }));
  const tuned = await load();
  const sftTrainer = new SftTrainer({ model: tuned, dataset: rows, seed, ...sft, ...abortable });
  note(names.sft, "dSFT", await timed("dSFT", () => fitShowing(sftTrainer)));
  const judgedSft = await timed("judging dSFT", () => bench(tuned));

  // 3. AI feedback: samples of the dSFT model and the pool's answers, rated; best against worst.
  const pairs = await timed("rating samples", () =>
    makePairs(tuned, { seed, tasks: size.preferenceTasks, samples: size.samples, ...preferences, ...abortable }),
  );
  console.error(`${pairs.length} pairs`);

  // 4. dDPO with the frozen dSFT model as reference.
  await tuned.save(join(options.out, "models", `dsft-${seed}`));
  const reference = tuned.frozenCopy();
  const dpoTrainer = new DpoTrainer({ policy: tuned, ref: reference, dataset: pairs, seed, ...dpo, ...abortable });
  note(names.dpo, "dDPO", await timed("dDPO", () => fitShowing(dpoTrainer)));
  const judgedDpo = await timed("judging dDPO", () => bench(tuned));
  await tuned.save(join(options.out, "models", `ddpo-${seed}`));

  // 5. The paper's ablation: the same pairs, but the base model as start and reference.
  const skipped = await load();
  const ablation = new DpoTrainer({ policy: skipped, dataset: pairs, seed, ...dpo, ...abortable });
  note(names.ablation, "dDPO without dSFT", await timed("dDPO without dSFT", () => fitShowing(ablation)));
  const judgedAblation = await timed("judging the ablation", () => bench(skipped));

  const judged = { base: judgedBase, sft: judgedSft, dpo: judgedDpo, ablation: judgedAblation };
  const scores = Object.fromEntries(order.map((name) => [name, scoresOf(judged[name])]));
  return { seed, judged, scores: scores as SeedResult["scores"], stages, pairs: pairs.length, seconds };
}

/** What the demo is there to show, held against its own numbers. */
function claimsOf(results: readonly SeedResult[]): { text: string; holds: boolean }[] {
  const mean = (name: ModelName) => results.map(({ scores }) => scores[name].score.mean);
  const separate = results.every(({ scores }) => scores.base.score.high < scores.sft.score.low);
  const gains = results.map(({ scores }) => scores.dpo.score.mean - scores.sft.score.mean);
  const claims = [
    { text: "dSFT scores above the base; their 95 % intervals do not overlap", holds: separate },
    { text: "dDPO scores above dSFT", holds: gains.every((gain) => gain > 0) },
    {
      text: "dDPO without dSFT stays below dSFT (the paper's ablation)",
      holds: mean("ablation").every((score, index) => score < mean("sft")[index]!),
    },
  ];
  if (results.length > 1) {
    const { mean: gain, error } = standardError(gains);
    const text = `the gain of dDPO over dSFT, ${gain.toFixed(2)} ± ${error.toFixed(2)}, is above its standard error over ${results.length} seeds`;
    claims.splice(2, 0, { text, holds: gain > error });
  }
  return claims;
}

/** The scores as the terminal shows them. */
function table(results: readonly SeedResult[]): string {
  const first = results[0]!;
  const head = ["model", "score", "95 % interval", "turn 1", "turn 2", ...categories];
  const rows = order.map((name) => {
    const of = (pick: (scores: BenchScores) => number) =>
      results.reduce((sum, { scores }) => sum + pick(scores[name]), 0) / results.length;
    const { low, high } = first.scores[name].score;
    const spread =
      results.length > 1
        ? `± ${standardError(results.map(({ scores }) => scores[name].score.mean)).error.toFixed(2)} (${results.length} seeds)`
        : `${low.toFixed(2)} – ${high.toFixed(2)}`;
    return [
      names[name],
      of(({ score }) => score.mean).toFixed(2),
      spread,
      of(({ turn1 }) => turn1.mean).toFixed(2),
      of(({ turn2 }) => turn2.mean).toFixed(2),
      ...categories.map((category) => of((scores) => scores.categories[category].mean).toFixed(1)),
    ];
  });
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column]!.length)));
  const line = (cells: readonly string[]) =>
    cells.map((cell, column) => (column === 0 ? cell.padEnd(widths[0]!) : cell.padStart(widths[column]!))).join("  ");
  return [line(head), widths.map((width) => "─".repeat(width)).join("  "), ...rows.map(line)].join("\n");
}

function demoModel(name: ModelName, { scores }: SeedResult): JudgedModel {
  const notes: Record<ModelName, string> = {
    base: "has read plain text of the world only",
    ablation: "the base with the same pairs",
    sft: "the base with the teacher's conversations",
    dpo: "dSFT, then best-against-worst pairs",
  };
  return { name: names[name], note: notes[name], ...scores[name] };
}

function reportInput(
  results: readonly SeedResult[],
  claims: DemoReportInput["claims"],
  size: DemoSizes,
  seconds: number,
): DemoReportInput {
  const first = results[0]!;
  const flat = (name: ModelName) =>
    first.judged[name].flatMap(({ judgements }) => judgements.map(({ score }) => score));
  const against = (model: ModelName, other: ModelName) => ({
    model: names[model],
    against: names[other],
    ...winRate(flat(model), flat(other)),
  });
  return {
    title: "zephyr-align demo",
    introduction:
      `A bench of ${first.judged.base.length} held-out conversations of two turns in ${categories.length} categories, answered by ` +
      "each model and scored 1 to 10 by a judge that checks each answer by rules and does not see whose it is. " +
      "Held-out first prompts occur in no training data.",
    scale: [1, 10],
    models: order.map((name) => demoModel(name, first)),
    winRates: [against("sft", "base"), against("dpo", "sft"), against("sft", "ablation")],
    claims,
    examples: examples(first),
    training: first.stages.map(({ title, history, steps, seconds, tokens }) => ({
      title,
      metrics: history,
      steps,
      seconds,
      tokens,
    })),
    facts: [
      ["seeds", results.map(({ seed }) => seed).join(", ")],
      ["teacher conversations", String(size.conversations)],
      ["preference pairs", String(first.pairs)],
      ["time", duration(seconds)],
      ...Object.entries(first.seconds).map(([what, spent]): [string, string] => [what, duration(spent)]),
    ],
    versions: { "zephyr-align": packageVersion(), node: process.versions.node },
    createdAt: new Date().toISOString(),
  };
}

/** One conversation of every category, with the answers of all models. */
function examples(result: SeedResult): JudgedConversation[] {
  const tasks = result.judged.base.map(({ task }) => task);
  const chosen = categories.flatMap((category) =>
    tasks.flatMap((task, index) => (task.category === category ? [{ task, index }] : [])).slice(0, 1),
  );
  return chosen.map(({ task, index }) => ({ category: task.category, turns: turnsOf(result, task, index) }));
}

function turnsOf(result: SeedResult, task: Task, index: number): JudgedConversation["turns"] {
  return ([0, 1] as const).map((turn) => ({
    prompt: task.turns[turn].prompt,
    answers: order.map((name) => {
      const { answers, judgements } = result.judged[name][index]!;
      const { score, rationale } = judgements[turn];
      return { model: names[name], text: answers[turn], score, rationale };
    }),
  }));
}

/** Every number shown, for `--json`. */
function numbers(results: readonly SeedResult[], claims: DemoReportInput["claims"], size: DemoSizes, seconds: number) {
  return {
    version: packageVersion(),
    node: process.versions.node,
    cpu: cpus()[0]?.model ?? "unknown",
    date: new Date().toISOString(),
    settings: { size, sft, dpo, preferences, temperatures },
    claims,
    seconds,
    seeds: results.map(({ seed, scores, stages, pairs, seconds }) => ({
      seed,
      scores: Object.fromEntries(order.map((name) => [names[name], scores[name]])),
      pairs,
      seconds,
      training: stages.map(({ title, steps, tokens, seconds, history }) => ({
        title,
        steps,
        tokens,
        seconds,
        last: history.at(-1),
      })),
    })),
  };
}
