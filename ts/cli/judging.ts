/** What the judged benchmarks do alike: their flags, and what they print and write. */
import { writeFile } from "node:fs/promises";
import { basename, dirname } from "node:path";
import type { Command } from "commander";
import { fromNative } from "../errors";
import type { JudgeResult } from "../judge/result";
import { renderEvaluationMarkdown } from "../report/evaluation/evaluation-text";
import { numberBetween, wholeNumber } from "./arguments";
import { writeJsonFile } from "./json-file";
import { judgeText } from "./judge-text";

/** Flags of every judged benchmark. */
export interface JudgingFlags {
  repeats?: number;
  minComplete?: number;
  compat?: boolean;
  canaries?: boolean;
  concurrency?: number;
  limit?: number;
  json?: string;
  markdown?: string;
  quiet?: boolean;
}

/** Adds them. */
export function addJudgingOptions(command: Command, scripts: string): Command {
  return command
    .optionsGroup("Judging:")
    .option("--repeats <n>", "Judge everything so many times; the spread is printed. (default: 1)", wholeNumber(1))
    .option("--min-complete <share>", "Judgments that must be usable for a score. (default: 0.98)", numberBetween(0, 1))
    .option("--compat", `Parse and average exactly as ${scripts}, with its faults; no floor.`)
    .option("--no-canaries", "Do not judge the answers that deserve nothing.")
    .option("--concurrency <n>", "Calls at once. (default: 4)", wholeNumber(1))
    .option("--limit <n>", "First questions only.", wholeNumber(1))
    .optionsGroup("Output:")
    .option("--json <file>", "Write the results: questions, answers, the judge's words, figures.")
    .option("--markdown <file>", "Write the figures as tables, with published rows beside them.")
    .option("--quiet", "No progress, no table.");
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
