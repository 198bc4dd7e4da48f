/** `zephyr-align eval alpaca-eval`: outputs, annotations and win rates. */
import { existsSync } from "node:fs";
import { basename, join } from "node:path";
import { type Command, Option } from "commander";
import type { Generator } from "../judge/alpaca-eval/comparison";
import { type Output, readDifficulty, readGamed, readOutputs, readWeights } from "../judge/alpaca-eval/files";
import { checkJudge } from "../judge/alpaca-eval/judge";
import { generateOutputs } from "../judge/alpaca-eval/outputs";
import { type AlpacaEvalVersion, alpacaEvalProtocols } from "../judge/alpaca-eval/protocol";
import type { LengthControlInput } from "../judge/alpaca-eval/result";
import { judgeAlpacaEval, scoreAlpacaEval } from "../judge/alpaca-eval/run";
import { benchmarkFolder } from "../judge/pull";
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

interface AlpacaEvalFlags extends JudgingFlags {
  protocol: AlpacaEvalVersion;
  prompts: string;
  baseline: string;
  annotations?: string;
  out: string;
  name?: string;
  maxTokens?: number;
  temperature?: number;
  difficulty?: string;
  gamed?: string;
  weights?: string;
  asPublished?: boolean;
}

export function addEvalAlpacaEval(group: Command): void {
  const command = group
    .command("alpaca-eval")
    .description("AlpacaEval: a judge compares each output with a baseline's.")
    .addOption(
      new Option("--protocol <version>", "1.0 ranks by text, 2.0 weighs the judge's first token.")
        .choices(Object.keys(alpacaEvalProtocols))
        .default("2.0"),
    )
    .option("--prompts <folder>", "alpaca_eval's checkout or installed package.", benchmarkFolder("alpaca-eval"))
    .requiredOption("--baseline <file>", "Outputs of the baseline; their instructions are the benchmark.");
  addChatModelFlags(command, "model", "To be judged: outputs (model_outputs.json or JSON lines), or who answers now");
  addChatModelFlags(command, "judge", "The judge; without it the annotations of --annotations are counted");
  command
    .option("--out <folder>", "Outputs and annotations; what is there is kept.", "runs/alpaca-eval")
    .option(
      "--annotations <file>",
      "Annotations: JSON lines, or annotations.json to count. (default: <out>/<name>.annotations.jsonl)",
    )
    .optionsGroup("Outputs:")
    .option("--name <name>", "Name of the outputs. (default: from their path)")
    .option(
      "--template <name|file>",
      "Chat template of a local model: model, zephyr, or a Jinja file. (default: model)",
    )
    .option("--max-tokens <n>", "Tokens of an output. (default: 2048)", wholeNumber(1))
    .option("--temperature <x>", "Sampling temperature of the outputs. (default: 0.7)", numberBetween(0, 2))
    .optionsGroup("Length control:")
    .option("--difficulty <file>", "instruction_difficulty.csv: turns the length-controlled rate on.")
    .option("--gamed <file>", "df_gamed.csv: rows of the gamed baselines, for our fit to be upstream's.")
    .option("--weights <file>", "Published weights, with a row of the model's name, instead of our fit.")
    .option("--as-published", "Join difficulties by position, with upstream's shift after a missing row.");
  addJudgingOptions(command, "alpaca_eval")
    .addHelpText(
      "after",
      `
Examples:
  $ zephyr-align pull alpaca-eval
  $ zephyr-align eval alpaca-eval --model runs/dpo/model --baseline alpaca_eval_gpt4_baseline.json --judge gpt-4-1106-preview
  $ zephyr-align eval alpaca-eval --model model_outputs.json --baseline baseline.json --annotations annotations.json --compat`,
    )
    .action((flags: AlpacaEvalFlags) => interruptible((signal) => run(flags, signal)));
}

async function run(flags: AlpacaEvalFlags, signal: AbortSignal): Promise<void> {
  const { model: [named, ...more] = [], judge: [judge] = [] } = flags;
  if (named === undefined || more.length > 0) {
    throw usageProblem("--model", named === undefined ? "it is missing" : "there are several", "Name one model.");
  }
  const baseline = await baselineOf(flags);
  const outputs = /\.jsonl?$/.test(named) && existsSync(named) ? named : undefined;
  if (judge === undefined) {
    if (outputs === undefined) throw usageProblem("--judge", "it is missing", "Name the judge of what the model says.");
    const model = await outputsOf(flags, outputs);
    const file = annotationsFile(flags, model);
    if (!existsSync(file)) {
      throw usageProblem("--judge", "it is missing", "Name the judge, or give --annotations with what was judged.");
    }
    await writeResults(flags, [await scoreAlpacaEval({ ...(await optionsOf(flags, model, baseline)), file })]);
    return;
  }
  const asked = await openAsked(flags, outputs === undefined ? [named] : [], flags.out, signal);
  const { concurrency, keep } = asked;
  try {
    // The judge is looked at before a model answers.
    checkJudge(asked.judge, alpacaEvalProtocols[flags.protocol]);
    const model =
      outputs === undefined ? await generated(flags, baseline, named, asked, signal) : await outputsOf(flags, outputs);
    const { repeats } = flags;
    const options = await optionsOf(flags, model, baseline);
    const result = await judgeAlpacaEval({
      ...options,
      prompts: flags.prompts,
      judge: asked.judge,
      canaries: flags.canaries ?? true,
      file: annotationsFile(flags, model),
      keep,
      concurrency,
      // What stands in for the judge in a dry run need not be readable.
      ...given({ repeats, minComplete: keep ? options.minComplete : 0 }),
      signal,
      onJudgment: rowProgress(`judge ${model.name}`, flags.quiet),
    });
    if (keep) await writeResults(flags, [result]);
    if (!flags.quiet) process.stdout.write(await asked.summary());
  } finally {
    await asked.close();
  }
}

async function baselineOf({ baseline: file, protocol }: AlpacaEvalFlags): Promise<Generator> {
  const outputs = await readOutputs(file);
  return { name: generatorIn(outputs) ?? alpacaEvalProtocols[protocol].baseline, outputs, file };
}

async function outputsOf({ name }: AlpacaEvalFlags, file: string): Promise<Generator> {
  const outputs = await readOutputs(file);
  return { name: name ?? generatorIn(outputs) ?? basename(file).replace(/\.jsonl?$/, ""), outputs, file };
}

function generatorIn(outputs: readonly Output[]): string | undefined {
  return outputs.find(({ generator }) => generator !== undefined)?.generator;
}

function annotationsFile({ annotations, out }: AlpacaEvalFlags, { name }: Generator): string {
  return annotations ?? join(out, `${name}.annotations.jsonl`);
}

async function optionsOf(flags: AlpacaEvalFlags, model: Generator, baseline: Generator) {
  const { protocol: version, limit, minComplete } = flags;
  const lengthControl = await lengthControlOf(flags, model.name);
  const mode = flags.compat ? ("compat" as const) : ("strict" as const);
  return { version, model, baseline, mode, ...given({ limit, minComplete, lengthControl }) };
}

async function generated(
  flags: AlpacaEvalFlags,
  baseline: Generator,
  named: string,
  { models, concurrency, keep }: AskedModels,
  signal: AbortSignal,
): Promise<Generator> {
  const { out, maxTokens, temperature, limit } = flags;
  const name = flags.name ?? nameOf(named);
  const model = models.get(named)!;
  return await generateOutputs(model, baseline.outputs.slice(0, limit), {
    name,
    file: join(out, `${name}.outputs.jsonl`),
    keep,
    concurrency,
    ...given({ maxTokens, temperature, template: templateLabel(model, flags.template) }),
    signal,
    onOutput: rowProgress(`answer ${name}`, flags.quiet),
  });
}

async function lengthControlOf(flags: AlpacaEvalFlags, model: string): Promise<LengthControlInput | undefined> {
  const { difficulty, gamed, weights, asPublished } = flags;
  if (difficulty === undefined) {
    const lone = gamed ? "--gamed" : weights ? "--weights" : asPublished ? "--as-published" : undefined;
    if (lone) throw usageProblem(lone, "it needs --difficulty", "Give instruction_difficulty.csv, or leave both out.");
    return undefined;
  }
  const row = weights === undefined ? undefined : (await readWeights(weights)).get(model);
  if (weights !== undefined && !row) {
    throw usageProblem(
      "--weights",
      `it has no row of ${model}`,
      "Leave it out to fit, or give --name as the row is called.",
    );
  }
  return {
    difficulty: await readDifficulty(difficulty),
    ...given({ gamed: gamed === undefined ? undefined : await readGamed(gamed), weights: row, asPublished }),
  };
}
