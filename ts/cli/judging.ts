/** What the judged benchmarks do alike: their flags, and what they print and write. */
import { writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import type { Command } from "commander";
import type { ChatModel } from "../client";
import { isOfflineName } from "../distill/offline";
import { fromNative } from "../errors";
import type { JudgeResult } from "../judge/result";
import { renderEvaluationMarkdown } from "../report/evaluation/evaluation-text";
import { numberBetween, wholeNumber } from "./arguments";
import { addPaidFlags, isLocal, openChatModels, type PaidFlags } from "./chat-model-flags";
import { templateOf, usageProblem } from "./config-options";
import { writeJsonFile } from "./json-file";
import { judgeText } from "./judge-text";

/** Flags of every judged benchmark. */
export interface JudgingFlags extends PaidFlags {
  /** Models to judge: files, names of files, or models. */
  model?: string[];
  judge?: string[];
  template?: string;
  repeats?: number;
  minComplete?: number;
  compat?: boolean;
  canaries?: boolean;
  limit?: number;
  json?: string;
  markdown?: string;
  quiet?: boolean;
}

/** Adds them, all but those of the models. */
export function addJudgingOptions(command: Command, scripts: string): Command {
  command
    .optionsGroup("Judging:")
    .option("--repeats <n>", "Judge everything so many times; the spread is printed. (default: 1)", wholeNumber(1))
    .option("--min-complete <share>", "Judgments that must be usable for a score. (default: 0.98)", numberBetween(0, 1))
    .option("--compat", `Parse and average exactly as ${scripts}, with its faults; no floor.`)
    .option("--no-canaries", "Do not judge the answers that deserve nothing.")
    .option("--limit <n>", "First questions only.", wholeNumber(1));
  return addPaidFlags(command)
    .optionsGroup("Output:")
    .option("--json <file>", "Write the results: questions, answers, the judge's words, figures.")
    .option("--markdown <file>", "Write the figures as tables, with published rows beside them.")
    .option("--quiet", "No progress, no table.");
}

/** The models that a run asks, opened together: one journal and one purse. */
export interface AskedModels {
  /** By what its flag says. */
  models: ReadonlyMap<string, ChatModel>;
  judge: ChatModel;
  concurrency: number;
  /** False in a dry run: nothing is written. */
  keep: boolean;
  summary(): Promise<string>;
  close(): Promise<void>;
}

/**
 * Opens the judge, and those of the models that have no answers yet.
 *
 * @param answering what their flags say
 * @param out folder of the run, where the journal is
 */
export async function openAsked(
  flags: JudgingFlags & object,
  answering: readonly string[],
  out: string,
  signal: AbortSignal,
): Promise<AskedModels> {
  const { judge = [], template, quiet } = flags;
  if (judge.length > 1) throw usageProblem("--judge", "there are several", "Name one; judge again with the other.");
  const server = answering.find((name) => !isLocal(name) && !isOfflineName(name));
  if (template !== undefined && server !== undefined) {
    const remedy = "Leave --template out: the server renders with the template that it was started with.";
    throw usageProblem("template", `${server} is a server's model`, remedy);
  }
  const opened = await openChatModels({ ...flags, model: answering }, ["model", "judge"], {
    journal: join(out, "calls.sqlite"),
    signal,
    ...given({ quiet }),
    ...(template === undefined ? {} : { templates: { model: templateOf(template) } }),
  });
  const { models, concurrency, dryRun } = opened;
  return {
    models: new Map(answering.map((name, i) => [name, models.model[i]!])),
    judge: models.judge[0]!,
    concurrency,
    keep: !dryRun,
    summary: opened.summary,
    close: opened.close,
  };
}

/** The chat template of a model, for its answers' file: that of a local model is known by its hash. */
export function templateLabel({ endpoint = "" }: ChatModel, flag: string | undefined): string | undefined {
  const hash = / template ([0-9a-f]+)$/.exec(endpoint)?.[1];
  const parts = [...(flag === undefined ? [] : [flag]), ...(hash === undefined ? [] : [`sha256:${hash}`])];
  return parts.length > 0 ? parts.join(" ") : undefined;
}

/** Writes and prints results. */
export async function writeResults(flags: JudgingFlags, results: readonly JudgeResult[]): Promise<void> {
  await writeJsonFile(flags.json, results.length === 1 ? results[0] : results);
  if (flags.markdown !== undefined) {
    await writeFile(flags.markdown, renderEvaluationMarkdown(results)).catch((error) => {
      throw fromNative(error, { file: flags.markdown! });
    });
  }
  if (!flags.quiet) process.stdout.write(judgeText(results));
}

/** `runs/dpo/model` is `dpo`; a file loses its ending. */
export function nameOf(path: string): string {
  const last = basename(path).replace(/\.gguf$/, "");
  return last === "model" || last === "adapter" ? basename(dirname(path)) : last;
}

/** The given ones of some options: one that is not there is left out, and its default holds. */
export function given<T extends object>(options: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as never;
}
