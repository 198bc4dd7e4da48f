/** `zephyr-align report`: judged runs as a page, as Markdown, and as figures. */
import { mkdir, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import type { Command } from "commander";
import { fromNative } from "../errors";
import { readJudgeResults } from "../judge/result-file";
import { renderEvaluationReport } from "../report/evaluation/evaluation-report";
import { evaluationSummary, renderEvaluationMarkdown } from "../report/evaluation/evaluation-text";
import { writeJsonFile } from "./json-file";
import { styleOf } from "./style";

interface ReportFlags {
  out: string;
  markdown?: string;
  json?: string;
  title?: string;
}

/** Adds `report`. */
export function addReport(program: Command): void {
  program
    .command("report")
    .helpGroup("Use and judge:")
    .description("Judged runs side by side: one HTML file with figures, published rows, and every answer and verdict.")
    .argument(
      "<results...>",
      "Files that eval has written with --json. The first of a protocol is what others are compared with.",
    )
    .option("-o, --out <file>", "The page.", "report.html")
    .option("--markdown <file>", "Tables and warnings as Markdown.")
    .option("--json <file>", "Every figure, without the texts.")
    .option("--title <text>", "Title of the page. (default: Evaluation)")
    .addHelpText(
      "after",
      `
Examples:
  $ zephyr-align report mt-bench.json --out report.html
  $ zephyr-align report sft.json dpo.json dpo-alpaca.json --out report.html --markdown report.md`,
    )
    .action(report);
}

async function report(files: string[], { out, markdown, json, title }: ReportFlags): Promise<void> {
  const results = (await Promise.all(files.map(readJudgeResults))).flat();
  const options = { createdAt: new Date().toISOString(), ...(title === undefined ? {} : { title }) };
  await writeText(out, renderEvaluationReport(results, options));
  if (markdown !== undefined) await writeText(markdown, renderEvaluationMarkdown(results, options));
  await writeJsonFile(json, { ...evaluationSummary(results), createdAt: options.createdAt });
  process.stdout.write(`${styleOf(process.stdout).bold(out)}\n`);
}

async function writeText(file: string, text: string): Promise<void> {
  try {
    await mkdir(dirname(file), { recursive: true });
    await writeFile(file, text);
  } catch (error) {
    throw fromNative(error, { file });
  }
}
