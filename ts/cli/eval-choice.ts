import type { Command } from "commander";
import { type ChoiceEvaluation, choiceFormats, evaluateChoices, readChoices } from "../judge/multiple-choice";
import { Mistral } from "../model/mistral";
import { packageVersion } from "../native/load";
import { percent, whole } from "../report/format";
import { wholeNumber } from "./arguments";
import { usageProblem } from "./config-options";
import { rowProgress } from "./count-progress";
import { interruptible } from "./interrupt";
import { peakMemory, writeJsonFile } from "./json-file";
import { given } from "./judging";
import { addDeviceOption, addLoadingOptions, type LoadingFlags, loadingToUse } from "./loading";
import { styleOf } from "./style";
import { table } from "./train";

interface ChoiceFlags extends LoadingFlags {
  model: string;
  data: string;
  shots?: number;
  shotsData?: string;
  maxLength?: number;
  limit?: number;
  threads?: number;
  quiet?: boolean;
  json?: string;
}

/** `zephyr-align eval choice`: multiple choice by log-probability. */
export function addEvalChoice(group: Command): void {
  const command = group
    .command("choice")
    .description("Multiple choice by log-probability: acc and acc_norm as lm-evaluation-harness computes them.")
    .requiredOption("--model <path>", "Model: a folder in Hugging Face's layout, or a GGUF file.")
    .requiredOption("--data <file>", "Questions with choices, of a known layout.");
  addDeviceOption(addLoadingOptions(command))
    .option("--shots <n>", "Solved questions in front of each; the first rows of --shots-data.", wholeNumber(1))
    .option("--shots-data <file>", "Where the solved questions come from, for example a training split.")
    .option("--max-length <n>", "Longest sequence in tokens. (default: the model's positions)", wholeNumber(2))
    .option("--limit <n>", "Evaluate the first rows only.", wholeNumber(1))
    .option("--threads <n>", "Threads of the core. (default: all cores)", wholeNumber(1))
    .option("--json <file>", "Write every figure and every question's log-probabilities.")
    .option("--quiet", "No progress, no table.")
    .addHelpText(
      "after",
      `
Layouts, recognised by their columns:
${Object.values(choiceFormats)
  .map((text) => `  ${text}`)
  .join("\n")}

Examples:
  $ zephyr-align eval choice --model runs/dpo/model --data arc-challenge.jsonl
  $ zephyr-align eval choice --model mistral --data hellaswag.jsonl --shots 10 --shots-data hellaswag-train.jsonl`,
    )
    .action((flags: ChoiceFlags) => interruptible((signal) => evaluate(flags, signal)));
}

async function evaluate(flags: ChoiceFlags, signal: AbortSignal): Promise<void> {
  const started = performance.now();
  const { maxLength, limit, threads, shots, shotsData } = flags;
  if ((shots === undefined) !== (shotsData === undefined)) {
    const missing = shots === undefined ? "--shots" : "--shots-data";
    throw usageProblem(missing, "it is missing", "Give --shots and --shots-data together, or neither.");
  }
  const solved = shotsData === undefined ? [] : (await readChoices(shotsData)).questions.slice(0, shots ?? 0);
  const model = await Mistral.fromPretrained(flags.model, loadingToUse(flags));
  const found = await evaluateChoices(model, flags.data, {
    ...given({ maxLength, limit, threads }),
    shots: solved,
    signal,
    onRow: rowProgress("eval", flags.quiet),
  });
  await writeJsonFile(flags.json, {
    model: flags.model,
    data: flags.data,
    shots: solved.length,
    ...found,
    seconds: (performance.now() - started) / 1000,
    peak_rss_mib: peakMemory(),
    versions: { "zephyr-align": packageVersion(), node: process.versions.node },
  });
  if (!flags.quiet) process.stdout.write(choiceText(flags, found, solved.length));
}

function choiceText(
  { model, data }: ChoiceFlags,
  { acc, accNorm, n, cut, format }: ChoiceEvaluation,
  shots: number,
): string {
  const { bold, dim } = styleOf(process.stdout);
  const shown = ({ value, error }: ChoiceEvaluation["acc"]) =>
    `${bold(percent(value))}${Number.isFinite(error) ? dim(` ± ${percent(error)}`) : ""}`;
  const rows: [string, string][] = [
    ["acc", shown(acc)],
    ["acc_norm", shown(accNorm)],
  ];
  const notes = cut > 0 ? `; ${whole(cut)} cut at the beginning to fit` : "";
  const counts = `n = ${whole(n)} questions (${format}), ${shots} solved in front${notes}; ± is the standard error`;
  return `${bold(`${model} on ${data}`)}\n${table(rows, dim)}  ${dim(counts)}\n`;
}
