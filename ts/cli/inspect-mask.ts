/** `zephyr-align inspect mask`: what training would see of each row, token by token. */
import type { Command } from "commander";
import { type Dataset, pairDataset, sftDataset, unpairedDataset } from "../data";
import { dataPurpose } from "../data/purpose";
import { DataError, type Place, placeText } from "../errors";
import type { Tokenizer } from "../model/tokenizer";
import { whole } from "../report/format";
import { classedPieces, keptPart, type SeenOptions, type SeenRow, seenRow } from "../train/seen-row";
import { wholeNumber } from "./arguments";
import { usageProblem } from "./config-options";
import { writeJsonFile } from "./json-file";
import { addMaskFlags, type MaskFlags, seenOptions, tokenizerOf } from "./mask-flags";
import { maskText } from "./mask-text";
import { openRows, rowsInputHelp } from "./rows-input";
import { styleOf } from "./style";

interface InspectFlags extends MaskFlags {
  split?: string;
  rows: number;
  json?: string;
}

/** A row without what is cut of it. */
interface Inspected extends SeenRow {
  place: Place;
}

/** Adds `inspect` and what can be inspected. */
export function addInspect(program: Command): void {
  const inspect = program.command("inspect").helpGroup("Look inside:").description("See what training would see.");
  const mask = inspect
    .command("mask")
    .description("Rows as tokens: supervised ones green, the template dim.")
    .argument("<source>", `Conversations, pairs, or answers with a label: ${rowsInputHelp}.`);
  addMaskFlags(mask)
    .option("--split <name>", "The split to show, where there are several.")
    .option("--rows <n>", "Rows to show; 0 shows all.", wholeNumber(0), 5)
    .option("--json <file>", "Write ids and masks of the rows shown.")
    .addHelpText(
      "after",
      `
Examples:
  $ zephyr-align inspect mask conversations.jsonl --model ./mistral
  $ zephyr-align inspect mask pairs.jsonl --tokenizer ./tokenizer --rows 1 --max-length 512`,
    )
    .action(inspectMask);
}

async function inspectMask(source: string, flags: InspectFlags): Promise<void> {
  const tokenizer = await tokenizerOf(flags);
  if (!tokenizer) throw usageProblem("--tokenizer", "it is missing", "Give its folder, or --model PATH.");
  const { bold, dim, yellow } = styleOf(process.stdout);
  const rows: Inspected[] = [];
  const bad: { place: Place; code: string; problem: string }[] = [];
  // A few rows of the Hub need no download.
  const data = openRows(source, { split: flags.split, stream: true });
  for await (const row of inspected(data, tokenizer, seenOptions(flags))) {
    if (row instanceof DataError) {
      bad.push({ place: row.place ?? {}, code: row.code, problem: row.problem });
      process.stdout.write(`${bold(placeText(row.place))}  ${yellow(`cannot be used: ${row.problem}`)}\n\n`);
    } else {
      rows.push(row);
      process.stdout.write(rowText(row, tokenizer));
    }
    if (flags.rows > 0 && rows.length + bad.length >= flags.rows) break;
  }
  const sequences = rows.flatMap((row) => row.sequences);
  const totals = {
    rows: rows.length,
    unusable: bad.length,
    tokens: sum(sequences.map(({ ids }) => ids.length)),
    supervised: sum(sequences.map(({ supervised }) => sum(supervised))),
    straddling: sum(rows.map(({ straddling }) => straddling)),
    cut: sum(rows.map(({ cut }) => cut)),
  };
  await writeJsonFile(flags.json, { file: source, totals, bad, rows: rows.map(rowJson) });
  process.stdout.write(`${dim(legend(styleOf(process.stdout).coloured))}\n`);
  const unusable = bad.length > 0 ? `, ${whole(bad.length)} cannot be used` : "";
  process.stdout.write(`${bold(`${whole(totals.rows)} rows`)}${unusable}: ${counts(totals)}\n`);
}

const datasets = { sft: sftDataset, pair: pairDataset, unpaired: unpairedDataset };

/** The rows one by one; those that cannot be used as their error. */
async function* inspected(
  data: Dataset<unknown>,
  tokenizer: Tokenizer,
  options: SeenOptions,
): AsyncGenerator<Inspected | DataError> {
  for await (const { value, error, place } of datasets[await dataPurpose(data)](data).rows()) {
    if (error) {
      // A fault of the whole file, not of a row: nothing follows.
      if (!(error instanceof DataError) || ["ZA_DATA_FORMAT", "ZA_DATA_FILE"].includes(error.code)) throw error;
      yield error;
      continue;
    }
    const seen = seenRow(value, place, tokenizer, options);
    yield seen instanceof DataError ? seen : { ...seen, sequences: seen.sequences.map(keptPart), place };
  }
}

function rowText(row: Inspected, tokenizer: Tokenizer): string {
  const style = styleOf(process.stdout);
  const blocks = row.sequences.map((sequence) => {
    const numbers = { tokens: sequence.ids.length, supervised: sum(sequence.supervised) };
    const name = sequence.side ? ` ${sequence.side}` : "";
    const head = `${style.bold(`${placeText(row.place)}${name}`)}  ${style.dim(counts(numbers))}`;
    return `${head}\n${maskText(classedPieces(sequence, tokenizer), style)}\n`;
  });
  const extra = counts({ straddling: row.straddling, cut: row.cut });
  return `${blocks.join("\n")}${extra === "" ? "" : `${style.yellow(extra)}\n`}\n`;
}

function legend(coloured: boolean): string {
  return coloured
    ? "green: learnt; on green: the end token, learnt; dim: the template; plain: content that is given"
    : "«…»: learnt; ⟦…⟧: the end token, learnt; ‹…›: the template; plain: content that is given";
}

/** What is not zero, as text. */
function counts(of: { tokens?: number; supervised?: number; straddling?: number; cut?: number }): string {
  const parts: string[] = [];
  if (of.tokens !== undefined) parts.push(`${whole(of.tokens)} tokens`);
  if (of.supervised !== undefined) {
    const share = of.tokens ? ` (${((100 * of.supervised) / of.tokens).toFixed(1)} %)` : "";
    parts.push(`${whole(of.supervised)} supervised${share}`);
  }
  if (of.straddling) parts.push(`${whole(of.straddling)} straddling template and content`);
  if (of.cut) parts.push(`${whole(of.cut)} cut`);
  return parts.join(", ");
}

function rowJson(row: Inspected) {
  return {
    place: row.place,
    straddling: row.straddling,
    cut: row.cut,
    sequences: row.sequences.map(({ side, ids, supervised, owners }) => ({
      ...(side ? { side } : {}),
      tokens: ids.length,
      ids: Array.from(ids),
      supervised: Array.from(supervised),
      ...(owners ? { owners: Array.from(owners) } : {}),
    })),
  };
}

function sum(values: ArrayLike<number>): number {
  let total = 0;
  for (let i = 0; i < values.length; i++) total += values[i] as number;
  return total;
}
