/** `zephyr-align eval alpaca-eval`: outputs, annotations and win rates. */
import { existsSync } from "node:fs";
import { basename, join } from "node:path";
import { type Command, Option } from "commander";
import type { Generator } from "../judge/alpaca-eval/comparison";
import { readDifficulty, readGamed, readOutputs, readWeights } from "../judge/alpaca-eval/files";
import { generateOutputs } from "../judge/alpaca-eval/outputs";
import { type AlpacaEvalVersion, alpacaEvalProtocols } from "../judge/alpaca-eval/protocol";
import type { LengthControlInput } from "../judge/alpaca-eval/result";
import { judgeAlpacaEval, scoreAlpacaEval } from "../judge/alpaca-eval/run";
import { benchmarkFolder } from "../judge/pull";
import { numberBetween, wholeNumber } from "./arguments";
import { usageProblem } from "./config-options";
import { rowProgress } from "./count-progress";
import { interruptible } from "./interrupt";
import { judgeModel } from "./judge-models";
import { addJudgingOptions, given, type JudgingFlags, nameOf, writeResults } from "./judging";

interface AlpacaEvalFlags extends JudgingFlags {
  protocol: AlpacaEvalVersion;
  prompts: string;
  model: string;
  baseline: string;
  judge?: string;
  annotations?: string;
  out: string;
  name?: string;
  template?: string;
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
    .requiredOption("--model <model>", "Outputs (model_outputs.json or JSON lines), or a model that answers now.")
    .requiredOption("--baseline <file>", "Outputs of the baseline; their instructions are the benchmark.")
    .option("--judge <model>", "The judge. Without it the annotations of --annotations are counted.")
    .option("--out <folder>", "Outputs and annotations; what is there is kept.", "runs/alpaca-eval")
    .option(
      "--annotations <file>",
      "Annotations: JSON lines, or annotations.json to count. (default: <out>/<name>.annotations.jsonl)",
    )
    .optionsGroup("Outputs:")
    .option("--name <name>", "Name of the outputs. (default: from their path)")
    .option("--template <name>", "Chat template of the model, written beside its outputs.")
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
  const { protocol: version, limit, minComplete, judge: judgeName } = flags;
  const baseline: Generator = {
    name: alpacaEvalProtocols[version].baseline,
    outputs: await readOutputs(flags.baseline),
    file: flags.baseline,
  };
  const named = baseline.outputs.find(({ generator }) => generator !== undefined)?.generator;
  if (named !== undefined) baseline.name = named;
  const model = await generator(flags, baseline, signal);
  const lengthControl = await lengthControlOf(flags, model.name);
  const options = {
    version,
    model,
    baseline,
    mode: flags.compat ? ("compat" as const) : ("strict" as const),
    ...given({ limit, minComplete, lengthControl }),
  };
  const file = flags.annotations ?? join(flags.out, `${model.name}.annotations.jsonl`);
  if (judgeName === undefined) {
    if (!existsSync(file)) {
      throw usageProblem("--judge", "it is missing", "Name the judge, or give --annotations with what was judged.");
    }
    await writeResults(flags, [await scoreAlpacaEval({ ...options, file })]);
    return;
  }
  const { repeats, concurrency } = flags;
  const result = await judgeAlpacaEval({
    ...options,
    prompts: flags.prompts,
    judge: await judgeModel("--judge", judgeName),
    canaries: flags.canaries ?? true,
    file,
    ...given({ repeats, concurrency }),
    signal,
    onJudgment: rowProgress(`judge ${model.name}`, flags.quiet),
  });
  await writeResults(flags, [result]);
}

async function generator(flags: AlpacaEvalFlags, baseline: Generator, signal: AbortSignal): Promise<Generator> {
  const { model: named, out, maxTokens, temperature, template, concurrency, limit } = flags;
  if (/\.jsonl?$/.test(named) && existsSync(named)) {
    const outputs = await readOutputs(named);
    const own = outputs.find((each) => each.generator !== undefined)?.generator;
    return { name: flags.name ?? own ?? basename(named).replace(/\.jsonl?$/, ""), outputs, file: named };
  }
  const name = flags.name ?? nameOf(named);
  return await generateOutputs(await judgeModel("--model", named), baseline.outputs.slice(0, limit), {
    name,
    file: join(out, `${name}.outputs.jsonl`),
    ...given({ maxTokens, temperature, template, concurrency }),
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
