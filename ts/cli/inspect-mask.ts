/** `zephyr-align inspect mask`: what training would see of each row, token by token. */
import { statSync } from "node:fs";
import { type Command, Option } from "commander";
import { type Message, type PairRow, pairDataset, type SftRow, sftDataset } from "../data";
import { DataError, type Place, placeText } from "../errors";
import { Mistral } from "../model/mistral";
import type { EncodedRow, Tokenizer } from "../model/tokenizer";
import { folderTokenizer } from "../model/tokenizer";
import { whole } from "../report/format";
import { type ExampleOptions, fittedOrRefusal, pairExample, sftExample } from "../train/examples";
import { wholeNumber } from "./arguments";
import { templateOf, usageProblem } from "./config-options";
import { dataPurpose } from "./data-purpose";
import { writeJsonFile } from "./json-file";
import { maskText, type TokenClass } from "./mask-text";
import { openRows, rowsInputHelp } from "./rows-input";
import { styleOf } from "./style";
import { tokenPieces } from "./token-text";

interface MaskFlags {
  model?: string;
  tokenizer?: string;
  template: string;
  split?: string;
  rows: number;
  maxLength?: number;
  truncation: "keep-answer" | "keep-start";
  lossOn: "assistant" | "all";
  answerEnd: "eos" | "turn";
  specialsInContent: "text" | "parse";
  json?: string;
}

/** One sequence as training would see it: a conversation, or one side of a pair. */
interface Sequence extends EncodedRow {
  /** `chosen` or `rejected` of a pair. */
  side?: "chosen" | "rejected";
  /** Index of the message that each token belongs to, −1 for the template; none for plain text. */
  owners?: Int32Array;
}

interface Inspected {
  place: Place;
  sequences: Sequence[];
  straddling: number;
  cut: number;
}

/** Adds `inspect` and what can be inspected. */
export function addInspect(program: Command): void {
  const inspect = program.command("inspect").helpGroup("Look inside:").description("See what training would see.");
  inspect
    .command("mask")
    .description("Rows as tokens: supervised ones green, the template dim.")
    .argument("<source>", `Conversations or pairs: ${rowsInputHelp}.`)
    .option("--tokenizer <folder>", "Folder with tokenizer.json.")
    .option("--split <name>", "The split to show, where there are several.")
    .option("--model <path>", "Model whose tokenizer is taken: a folder or a GGUF file.")
    .option("--rows <n>", "Rows to show; 0 shows all.", wholeNumber(0), 5)
    .option("--template <name|file>", "Chat template: model, zephyr, or a Jinja file.", "model")
    .option("--max-length <n>", "Cut as training would. (default: nothing is cut)", wholeNumber(2))
    .addOption(choices("--truncation <name>", "How long rows are cut.", ["keep-answer", "keep-start"]))
    .addOption(choices("--loss-on <name>", "Tokens that are learnt.", ["assistant", "all"]))
    .addOption(choices("--answer-end <name>", "Where an answer ends.", ["eos", "turn"]))
    .addOption(choices("--specials-in-content <name>", "Content that spells a special token.", ["text", "parse"]))
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

function choices(flag: string, text: string, names: string[]): Option {
  return new Option(flag, text).choices(names).default(names[0]);
}

async function inspectMask(file: string, flags: MaskFlags): Promise<void> {
  const tokenizer = (await tokenizerOf(flags)).withTemplate(templateOf(flags.template));
  const { bold, dim, yellow } = styleOf(process.stdout);
  const rows: Inspected[] = [];
  const bad: { place: Place; code: string; problem: string }[] = [];
  for await (const row of inspected(file, tokenizer, flags)) {
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
  await writeJsonFile(flags.json, { file, totals, bad, rows: rows.map(rowJson) });
  process.stdout.write(`${dim(legend(styleOf(process.stdout).coloured))}\n`);
  const unusable = bad.length > 0 ? `, ${whole(bad.length)} cannot be used` : "";
  process.stdout.write(`${bold(`${whole(totals.rows)} rows`)}${unusable}: ${counts(totals)}\n`);
}

async function tokenizerOf({ tokenizer, model }: MaskFlags): Promise<Tokenizer> {
  if (tokenizer !== undefined) return folderTokenizer(tokenizer);
  if (model === undefined) throw usageProblem("--tokenizer", "it is missing", "Give its folder, or --model PATH.");
  // A folder's tokenizer needs no weights; that of a GGUF file lies among them.
  if (statSync(model, { throwIfNoEntry: false })?.isDirectory()) return folderTokenizer(model);
  return (await Mistral.fromPretrained(model)).tokenizer;
}

/** The rows one by one; those that cannot be used as their error. */
async function* inspected(file: string, tokenizer: Tokenizer, flags: MaskFlags): AsyncGenerator<Inspected | DataError> {
  const options: ExampleOptions = { ...flags, maxLength: flags.maxLength ?? Number.MAX_SAFE_INTEGER, onBadRow: "skip" };
  // A few rows of the Hub need no download.
  const data = openRows(file, { split: flags.split, stream: true });
  const purpose = await dataPurpose(data);
  const rows = purpose === "sft" ? sftDataset(data).rows() : pairDataset(data).rows();
  for await (const row of rows) {
    if (row.error) {
      // A fault of the whole file, not of a row: nothing follows.
      if (!(row.error instanceof DataError) || ["ZA_DATA_FORMAT", "ZA_DATA_FILE"].includes(row.error.code))
        throw row.error;
      yield row.error;
      continue;
    }
    yield purpose === "sft"
      ? inspectConversation(row.value as SftRow, row.place, tokenizer, { ...options, lossOn: flags.lossOn })
      : inspectPair(row.value as PairRow, row.place, tokenizer, options);
  }
}

function inspectConversation(
  row: SftRow,
  place: Place,
  tokenizer: Tokenizer,
  options: ExampleOptions & { lossOn: "assistant" | "all" },
): Inspected | DataError {
  const count = { straddling: 0 };
  const fitted = fittedOrRefusal(place, options, () => sftExample(row, tokenizer, options, count));
  if (fitted instanceof DataError) return fitted;
  const owners = row.kind === "chat" ? ownersOf(fitted.row.ids, row.messages, tokenizer, options) : undefined;
  return { place, sequences: [withOwners(fitted.row, owners)], straddling: count.straddling, cut: fitted.cut };
}

function inspectPair(row: PairRow, place: Place, tokenizer: Tokenizer, options: ExampleOptions): Inspected | DataError {
  const fitted = fittedOrRefusal(place, options, () =>
    pairExample(row, tokenizer, { ...options, maxPromptLength: null }),
  );
  if (fitted instanceof DataError) return fitted;
  const sides = ["chosen", "rejected"] as const;
  let straddling = 0;
  const sequences = sides.map((side) => {
    const { ids, supervised } = fitted.row[side];
    if (row.kind !== "chat") return { ids, supervised, side };
    const messages = [...row.prompt, ...row[side]];
    straddling += tokenizer.encodeChat(messages, options).straddling;
    return { ...withOwners({ ids, supervised }, ownersOf(ids, messages, tokenizer, options)), side };
  });
  return { place, sequences, straddling, cut: fitted.cut };
}

function withOwners({ ids, supervised }: EncodedRow, owners: Int32Array | undefined): Sequence {
  return owners ? { ids, supervised, owners } : { ids, supervised };
}

/** Whose each kept token is: kept tokens are those of the whole conversation in order, with some left out. */
function ownersOf(
  kept: Uint32Array,
  messages: readonly Message[],
  tokenizer: Tokenizer,
  options: ExampleOptions,
): Int32Array | undefined {
  const whole = tokenizer.encodeChat(messages, options);
  const owners = new Int32Array(kept.length);
  // From the end, because what is left out of a sequence that keeps its answer stands before it.
  let from = whole.ids.length - 1;
  for (let position = kept.length - 1; position >= 0; position--) {
    while (from >= 0 && whole.ids[from] !== kept[position]) from--;
    if (from < 0) return undefined;
    owners[position] = whole.owners[from--] as number;
  }
  return owners;
}

function classOf(sequence: Sequence, position: number, ends: ReadonlySet<number>): TokenClass {
  const learnt = sequence.supervised[position] === 1;
  if (learnt) return ends.has(sequence.ids[position] as number) && template(sequence, position) ? "end" : "learnt";
  return template(sequence, position) && sequence.owners ? "template" : "content";
}

function template(sequence: Sequence, position: number): boolean {
  return sequence.owners ? sequence.owners[position] === -1 : true;
}

function rowText(row: Inspected, tokenizer: Tokenizer): string {
  const style = styleOf(process.stdout);
  const ends = new Set(tokenizer.eosTokenId === undefined ? [] : [tokenizer.eosTokenId]);
  const blocks = row.sequences.map((sequence) => {
    const pieces = tokenPieces(tokenizer, sequence.ids).map(({ start, text }) => ({
      text,
      class: classOf(sequence, start, ends),
    }));
    const numbers = { tokens: sequence.ids.length, supervised: sum(sequence.supervised) };
    const name = sequence.side ? ` ${sequence.side}` : "";
    const head = `${style.bold(`${placeText(row.place)}${name}`)}  ${style.dim(counts(numbers))}`;
    return `${head}\n${maskText(pieces, style)}\n`;
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
