/** What `sft` and `dpo` do alike: files, progress, the summary. */

import { relative } from "node:path";
import { type Command, Option } from "commander";
import type { Dataset } from "../data";
import { AbortedError, throwIfAborted } from "../errors";
import { Mistral } from "../model/mistral";
import type { DeviceName } from "../native/devices";
import { packageVersion } from "../native/load";
import { figure, percent, whole } from "../report/format";
import type { CheckpointEvent, EndEvent, Metrics, TrainerEvent } from "../train/events";
import { methods } from "../train/methods";
import { duration, fitShowing, showProgress } from "../train/progress";
import { referenceTexts, type TrainResult } from "../train/trainer";
import { type Watch, watchPort } from "../train/watch/watch-run";
import { wholeNumber } from "./arguments";
import {
  addConfigOptions,
  checkConfig,
  collectConfig,
  type Inputs,
  type Method,
  recipeNames,
  usageProblem,
} from "./config-options";
import { inFlags } from "./flag-names";
import { interruptible } from "./interrupt";
import { peakMemory, writeJsonFile } from "./json-file";
import { addLoadingOptions, type LoadingFlags, loadingOf } from "./loading";
import { openRows, rowsInputHelp } from "./rows-input";
import { styleOf } from "./style";

/** Flags that are not fields of the trainer. */
interface TrainFlags extends Record<string, unknown>, Omit<LoadingFlags, "tokenizer" | "device"> {
  out?: string;
  overwrite?: boolean;
  quiet?: boolean;
  json?: string;
  watch?: true | number;
}

/** A trainer, as far as the command line needs it. */
interface Trainer extends AsyncIterable<TrainerEvent> {
  fit(): Promise<TrainResult>;
}

/** What is made into a trainer. */
export interface Prepared {
  model: Mistral;
  ref: Mistral | undefined;
  data: Dataset<unknown>;
  evalData: Dataset<unknown> | undefined;
  config: Record<string, unknown>;
  signal: AbortSignal;
  overwrite: boolean;
  watch: Watch;
}

/** What the rows of --data are. */
const rowsOf = {
  rows: "conversations",
  pairs: "preference pairs",
  answers: "answers with a label, or preference pairs",
} as const;

/** Adds the files, the trainer's fields and the output flags. */
export function addTrainOptions(command: Command, method: Method): Command {
  const rows = rowsOf[methods[method].rows];
  command
    .optionsGroup("Files:")
    .option(
      "--model <path>",
      "Model to train: a folder in Hugging Face's layout or of an adapter, a GGUF file, or the id of a model at the Hub.",
    )
    .option("--data <source>", `Rows to train on: ${rows}; ${rowsInputHelp}.`)
    .option("--split <name>", "The split of --data to train on, where it has several.")
    .option("--eval-data <source>", "Held-out rows, evaluated every --eval-steps and at the end.")
    .option("--eval-split <name>", "The split of the held-out rows; of --data when --eval-data is left out.");
  if (method === "dpo" || method === "kto")
    command.option("--ref <path>", "Frozen reference model. (default: the model as it starts)");
  addLoadingOptions(command, ", frozen under --lora")
    .option("--out <folder>", `Folder of the run. (default: runs/${method}-<time>)`)
    .option("--overwrite", "Replace an earlier run in --out.")
    .option("--config <file>", "JSON file of options (camelCase), for example the config.json of a run. Flags win.")
    .addOption(
      new Option("--recipe <name>", "Published recipe to start from; --config and flags win.").choices(recipeNames),
    )
    .option("--json <file>", "Write a summary of the run as JSON.")
    .option(
      "--watch [port]",
      `Serve a live page of the run on this machine. (default port: ${watchPort})`,
      wholeNumber(0),
    )
    .option("--quiet", "No progress, no summary.");
  addConfigOptions(command, method);
  return command;
}

/** Trains: everything from the flags to the summary. */
export async function train(method: Method, flags: TrainFlags, make: (prepared: Prepared) => Trainer): Promise<void> {
  const started = performance.now();
  const { config, inputs } = collectConfig(method, flags);
  const model = required(inputs, "model", "Give the folder or GGUF file of the model to train.");
  const source = required(inputs, "data", "Give the file of the rows, or a data set of the Hub.");
  const { evalData: heldSource = inputs.evalSplit === undefined ? undefined : source } = inputs;
  const outputDir = flags.out ?? `runs/${method}-${timestamp(new Date())}`;
  const { dtype, quantization } = flags;
  const device = config.device as DeviceName | undefined;
  const loading = loadingOf({ tokenizer: inputs.tokenizer, dtype, quantization, device });
  await interruptible(async (signal) => {
    const watch = typeof flags.watch === "number" ? { port: flags.watch } : flags.watch === true;
    // The configuration is checked before a model of gigabytes is read.
    const settings = { ...config, outputDir };
    checkConfig(method, settings, { evaluates: heldSource !== undefined });
    const opening = { signal, quiet: flags.quiet };
    const data = openRows(source, { ...opening, split: inputs.split });
    const evalData =
      heldSource === undefined ? undefined : openRows(heldSource, { ...opening, split: inputs.evalSplit });
    const prepared = { data, evalData, signal, overwrite: flags.overwrite ?? false, watch };
    const policy = await Mistral.fromPretrained(model, loading);
    throwIfAborted(signal);
    const apart = inputs.ref !== undefined && inputs.ref !== model;
    let ref = apart ? await Mistral.fromPretrained(inputs.ref!, loading) : undefined;
    if (!flags.quiet) process.stderr.write(`${model}: ${whole(policy.parameters)} parameters\n`);
    const trainer = make({ ...prepared, model: policy, ref, config: settings });
    const show = flags.quiet ? () => {} : showProgress();
    const seen: Seen = {};
    const showAndKeep = (event: TrainerEvent) => {
      show(event.type === "warning" ? { ...event, message: inFlags(event.message) } : event);
      if (event.type === "reference") {
        // Nobody else has it: without this it would stay in memory as long as the run.
        ref?.dispose();
        ref = undefined;
      }
      if (event.type === "checkpoint") seen.checkpoint = event;
      if (event.type === "end") seen.end = event;
    };
    const result = await fitShowing(trainer, showAndKeep).catch((error) => {
      if (error instanceof AbortedError) process.stderr.write(howToGoOn(outputDir, seen));
      throw error;
    });
    const { end } = seen;
    await writeJsonFile(flags.json, summaryOf(method, model, result, end, started));
    if (!flags.quiet) process.stdout.write(summaryText(method, result, end));
  });
}

function required(inputs: Inputs, key: "model" | "data", remedy: string): string {
  const value = inputs[key];
  if (value === undefined) throw usageProblem(`--${key}`, "it is missing", remedy);
  return value;
}

/** Events that are looked at again when the run is over. */
interface Seen {
  checkpoint?: CheckpointEvent;
  end?: EndEvent;
}

function howToGoOn(outputDir: string, { checkpoint }: Seen): string {
  return checkpoint
    ? `step ${checkpoint.step} is saved: the same command with --out ${outputDir} --resume goes on from there\n`
    : `no step was finished since the start: the same command with --out ${outputDir} --resume begins there again\n`;
}

/** `20261125-045012`, in local time. */
function timestamp(date: Date): string {
  const pad = (value: number) => String(value).padStart(2, "0");
  const day = `${date.getFullYear()}${pad(date.getMonth() + 1)}${pad(date.getDate())}`;
  return `${day}-${pad(date.getHours())}${pad(date.getMinutes())}${pad(date.getSeconds())}`;
}

function summaryOf(method: Method, model: string, result: TrainResult, end: EndEvent | undefined, started: number) {
  const { seconds = 0, tokens = 0 } = end ?? {};
  return {
    method,
    model,
    output_dir: result.outputDir,
    steps: result.steps,
    ...(result.reference ? { reference: result.reference } : {}),
    metrics: result.metrics,
    eval_metrics: evaluationOf(result),
    seconds,
    seconds_in_all: (performance.now() - started) / 1000,
    tokens,
    tokens_per_second: seconds > 0 ? tokens / seconds : null,
    peak_rss_mib: peakMemory(),
    report: result.report,
    versions: { "zephyr-align": packageVersion(), node: process.versions.node },
  };
}

function evaluationOf(result: TrainResult): Metrics | null {
  return result.history.findLast((line) => "eval_loss" in line) ?? null;
}

function summaryText(method: Method, result: TrainResult, end: EndEvent | undefined): string {
  const { bold, dim, cyan } = styleOf(process.stdout);
  const training = result.history.filter((line) => "loss" in line);
  const first = training[0];
  const held = evaluationOf(result);
  const rows: [string, string][] = [];
  if (result.reference) rows.push(["reference", referenceTexts[result.reference]]);
  const course = (label: string, key: string, show = figure) => {
    const from = first?.[key];
    const to = result.metrics[key];
    if (from !== undefined && to !== undefined) rows.push([label, `${show(from)} → ${bold(show(to))}`]);
  };
  course("loss", "loss");
  course("token accuracy", "mean_token_accuracy", percent);
  course("reward margin", "rewards/margins");
  course("reward accuracy", "rewards/accuracies", percent);
  if (held?.eval_loss !== undefined) rows.push(["held-out loss", bold(figure(held.eval_loss))]);
  const heldAccuracy = held?.["eval_rewards/accuracies"];
  if (heldAccuracy !== undefined) rows.push(["held-out reward accuracy", bold(percent(heldAccuracy))]);
  if (end) {
    const speed = end.seconds > 0 ? `, ${whole(end.tokens / end.seconds)} tokens/s` : "";
    rows.push(["time", `${duration(end.seconds)}${speed}, peak memory ${whole(peakMemory())} MiB`]);
  }
  if (result.outputDir !== undefined) {
    const folder = relative(process.cwd(), result.outputDir);
    const shown = folder.startsWith("..") || folder === "" ? result.outputDir : folder;
    const saved = result.model.adapter ? "adapter" : "model";
    rows.push([saved, cyan(`${shown}/${saved}`)], ["report", cyan(`${shown}/report.html`)]);
    rows.push(["try it", dim(`zephyr-align chat --model ${shown}/${saved}`)]);
  }
  const name = methods[method].title;
  return `\n${bold(`${name} done: ${whole(result.steps)} steps`)}\n${table(rows, dim)}`;
}

/** Labels and values in two columns. */
export function table(rows: readonly (readonly [string, string])[], label: (text: string) => string): string {
  const width = Math.max(...rows.map(([name]) => name.length));
  return rows.map(([name, value]) => `  ${label(name.padEnd(width))}  ${value}\n`).join("");
}
