import { type Command, Option } from "commander";
import { dataPurpose } from "../data/purpose";
import {
  evaluateConversations,
  evaluatePairs,
  type Measured,
  type PairEvaluation,
  type SftEvaluation,
} from "../judge/logprob";
import { Mistral } from "../model/mistral";
import { packageVersion } from "../native/load";
import { figure, percent, whole } from "../report/format";
import { numberBetween, wholeNumber } from "./arguments";
import { templateOf, usageProblem } from "./config-options";
import { rowProgress } from "./count-progress";
import { interruptible } from "./interrupt";
import { peakMemory, writeJsonFile } from "./json-file";
import { addDeviceOption, addLoadingOptions, type LoadingFlags, loadingToUse } from "./loading";
import { openRows, rowsInputHelp } from "./rows-input";
import { styleOf } from "./style";
import { table } from "./train";

interface EvalFlags extends LoadingFlags {
  model: string;
  data: string;
  ref?: string;
  template?: string;
  beta?: number;
  maxLength?: number;
  maxPromptLength?: number;
  split?: string;
  onBadRow?: "error" | "skip";
  limit?: number;
  threads?: number;
  quiet?: boolean;
  json?: string;
}

/** `zephyr-align eval logprob`, which `eval` alone is too: log-probabilities of held-out rows. */
export function addEvalLogprob(group: Command): void {
  const command = group
    .command("logprob", { isDefault: true })
    .description("Loss and accuracy on held-out conversations, or rewards on held-out pairs.")
    .requiredOption("--model <path>", "Model: a folder in Hugging Face's layout, or a GGUF file.")
    .requiredOption(
      "--data <source>",
      `Conversations (loss, perplexity, token accuracy) or pairs (rewards): ${rowsInputHelp}.`,
    )
    .option("--split <name>", "The split of --data, where it has several.")
    .option("--ref <path>", "For pairs: the reference model of the rewards.")
    .option("--beta <n>", "For pairs: factor of the rewards. (default: 0.1)", numberBetween(0, 1e6));
  addDeviceOption(addLoadingOptions(command))
    .option("--template <name|file>", "Chat template: model, zephyr, or a Jinja file. (default: model)")
    .option("--max-length <n>", "Longest sequence in tokens. (default: 1024)", wholeNumber(2))
    .option("--max-prompt-length <n>", "For pairs: prompt tokens kept when a pair is too long.", wholeNumber(1))
    .addOption(
      new Option("--on-bad-row <error|skip>", "Rows that cannot be used. (default: error)").choices(["error", "skip"]),
    )
    .option("--limit <n>", "Evaluate the first rows only.", wholeNumber(1))
    .option("--threads <n>", "Threads of the core. (default: all cores)", wholeNumber(1))
    .option("--json <file>", "Write every figure.")
    .option("--quiet", "No progress, no table.")
    .addHelpText(
      "after",
      `
Examples:
  $ zephyr-align eval --model runs/sft/model --data held-out.jsonl
  $ zephyr-align eval --model runs/dpo/model --ref runs/sft/model --data pairs.jsonl --json eval.json`,
    )
    .action((flags: EvalFlags) => interruptible((signal) => evaluate(flags, signal)));
}

async function evaluate(flags: EvalFlags, signal: AbortSignal): Promise<void> {
  const { maxLength, maxPromptLength, onBadRow, limit, threads, beta } = flags;
  const started = performance.now();
  const rows = openRows(flags.data, { split: flags.split, limit, signal, quiet: flags.quiet });
  const purpose = await dataPurpose(rows);
  if (purpose !== "pair" && (flags.ref !== undefined || beta !== undefined)) {
    const remedy = "Leave it out, or give pairs {prompt, chosen, rejected}.";
    throw usageProblem(flags.ref === undefined ? "beta" : "--ref", "the rows are conversations, not pairs", remedy);
  }
  const loading = loadingToUse(flags);
  const model = await Mistral.fromPretrained(flags.model, loading);
  const ref = flags.ref === undefined ? undefined : await Mistral.fromPretrained(flags.ref, loading);
  const template = flags.template === undefined ? undefined : templateOf(flags.template);
  const options = {
    maxLength,
    onBadRow,
    threads,
    template,
    signal,
    onRow: rowProgress("eval", flags.quiet),
  };
  const found =
    purpose !== "pair"
      ? await evaluateConversations(model, rows, options)
      : await evaluatePairs(model, rows, { ...options, ref, beta, maxPromptLength });
  const seconds = (performance.now() - started) / 1000;
  await writeJsonFile(flags.json, {
    model: flags.model,
    ref: flags.ref ?? null,
    data: flags.data,
    ...found,
    ...(ref ? { beta: beta ?? 0.1 } : {}),
    seconds,
    peak_rss_mib: peakMemory(),
    versions: { "zephyr-align": packageVersion(), node: process.versions.node },
  });
  if (!flags.quiet) process.stdout.write(evaluationText(flags, found));
}

function evaluationText(flags: EvalFlags, found: SftEvaluation | PairEvaluation): string {
  const { bold, dim } = styleOf(process.stdout);
  const shown = ({ value, error }: Measured, show = figure) =>
    `${bold(show(value))}${Number.isFinite(error) ? dim(` ± ${show(error)}`) : ""}`;
  const share = (name: string) => (name.includes("accuracies") ? percent : figure);
  const rows: [string, string][] =
    found.kind === "sft"
      ? [
          ["loss", shown(found.loss)],
          ["perplexity", shown(found.perplexity)],
          ["token accuracy", shown(found.tokenAccuracy, percent)],
        ]
      : Object.entries(found.metrics).map(([name, measured]) => [name, shown(measured, share(name))]);
  const { skipped, cutRows } = found.report;
  const notes = [
    ...(skipped > 0 ? [`${whole(skipped)} left out`] : []),
    ...(cutRows > 0 ? [`${whole(cutRows)} cut to the maximal length`] : []),
  ];
  const what = found.kind === "sft" ? "rows" : "pairs";
  const note = notes.length > 0 ? `; ${notes.join(", ")}` : "";
  const title = `${flags.model} on ${flags.data}`;
  const counts = `n = ${whole(found.n)} ${what}, ${whole(found.tokens)} tokens${note}; ± is the standard error`;
  return `${bold(title)}\n${table(rows, dim)}  ${dim(counts)}\n`;
}
