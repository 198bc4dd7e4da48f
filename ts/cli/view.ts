/** `zephyr-align view`: a page on this machine to look at the rows of a data set. */
import type { Command } from "commander";
import { aborted } from "../errors";
import { packageVersion } from "../native/load";
import { percent, whole } from "../report/format";
import type { Overview } from "../report/view/overview-html";
import { type DatasetView, viewDataset, viewPort } from "../report/view/view-dataset";
import { wholeNumber } from "./arguments";
import { interruptible } from "./interrupt";
import { peakMemory, writeJsonFile } from "./json-file";
import { addMaskFlags, type MaskFlags, seenOptions, tokenizerOf } from "./mask-flags";
import { openRows, rowsInputHelp } from "./rows-input";
import { styleOf } from "./style";

interface ViewFlags extends MaskFlags {
  split?: string;
  limit?: number;
  port: number;
  row?: number;
  serve: boolean;
  json?: string;
}

/** Adds `view`. */
export function addView(program: Command): void {
  const view = program
    .command("view")
    .helpGroup("Look inside:")
    .description("Browse conversations and pairs on a page: search, filters, duplicates, token masks.")
    .argument("<data>", `Conversations, pairs, or answers with a label: ${rowsInputHelp}.`)
    .option("--split <name>", "The split to show, where there are several.")
    .option("--limit <n>", "The first rows only.", wholeNumber(1))
    .option("--port <n>", "Port on this machine; 0 takes a free one.", wholeNumber(0, 65_535), viewPort)
    .option("--row <n>", "Begin at this row, counted from 0.", wholeNumber(0))
    .option("--json <file>", "Write counts and groups of duplicates when they are known.")
    .option("--no-serve", "Only count and compare, then end.");
  addMaskFlags(view)
    .addHelpText(
      "after",
      `
Examples:
  $ zephyr-align view pairs.jsonl
  $ zephyr-align view conversations.jsonl --model ./mistral --max-length 2048   what is learnt, and what is cut
  $ zephyr-align view pairs.jsonl --no-serve --json counts.json`,
    )
    .action((data: string, flags: ViewFlags) => interruptible((signal) => browse(data, flags, signal)));
}

async function browse(source: string, flags: ViewFlags, signal: AbortSignal): Promise<void> {
  const { split, limit, port, row, json } = flags;
  const tokenizer = await tokenizerOf(flags);
  const rows = openRows(source, { split, limit, signal });
  const { bold, dim, yellow } = styleOf(process.stderr);
  const view = await viewDataset(rows, {
    port: flags.serve ? port : 0,
    encoding: seenOptions(flags),
    onWarning: (text) => process.stderr.write(`${yellow(text)}\n`),
    ...(tokenizer ? { tokenizer } : {}),
  });
  const stopped = new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
  try {
    if (flags.serve) {
      process.stderr.write(
        `${bold(`${view.url}/${row === undefined ? "" : `#row=${row}`}`)}  ${dim("Ctrl-C ends it")}\n`,
      );
    }
    const found = await Promise.race([view.overview, stopped]);
    if (!found) {
      if (flags.serve) return;
      throw aborted(signal.reason);
    }
    process.stderr.write(`${summary(found)}\n`);
    await writeJsonFile(json, await figures(source, found, view));
    if (flags.serve) await stopped;
  } finally {
    await view.close();
  }
}

async function figures(source: string, found: Overview, view: DatasetView) {
  return {
    data: source,
    ...found,
    groups: await view.duplicates,
    peak_rss_mib: peakMemory(),
    versions: { "zephyr-align": packageVersion(), node: process.versions.node },
  };
}

function summary({ rows, usable, bad, equalPairs, exactDuplicates, nearDuplicates }: Overview): string {
  const parts = [
    `${whole(rows)} rows, ${whole(usable)} can be used`,
    ...bad.map(({ code, rows: count }) => `${whole(count)} × ${code}`),
    ...(equalPairs > 0 ? [`${whole(equalPairs)} with chosen equal to rejected`] : []),
    `${whole(exactDuplicates?.rows ?? 0)} the same as another`,
    `${whole(nearDuplicates?.rows ?? 0)} with prompts alike (${percent(nearDuplicates?.similarity ?? 0)} or more of their runs of three words)`,
  ];
  return parts.join("; ");
}
