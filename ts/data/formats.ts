/**
 * The data formats, recognised by the columns of a row. One entry of `formats` per format; the first whose columns are
 * all there is taken, and what was recognised is shown to the user (`describeFormat`).
 */
import { DataError, type Place } from "../errors";
import { type PairRow, pairFromColumns, pairFromConversation } from "./preference";
import { type SftRow, sftFromMessages, sftFromPromptCompletion, sftFromText, sftFromTurns } from "./supervised";
import { pairFromRatedAnswers } from "./ultrafeedback";
import { type UnpairedRow, unpairedFromColumns } from "./unpaired";

export type { Message, Role } from "./messages";
export type { PairRow } from "./preference";
export type { SftRow } from "./supervised";
export type { UnpairedRow } from "./unpaired";

/** What rows are wanted for: supervised fine-tuning, preference pairs, or single answers that are wanted or not. */
export type Purpose = "sft" | "pair" | "unpaired";

/** Purposes whose formats a purpose takes, its own first: a pair is two answers with a label. */
const taken: Record<Purpose, readonly Purpose[]> = { sft: ["sft"], pair: ["pair"], unpaired: ["unpaired", "pair"] };

/** Options of the converters. */
export interface ConvertOptions {
  /** Take this format instead of recognising it by the columns. */
  format?: FormatName;
  /**
   * Cut assistant turns that stand before the first user turn instead of refusing the row. Cut turns are counted in
   * {@link ConvertCounts.droppedLeadingAssistant}.
   * @default false
   */
  dropLeadingAssistant?: boolean;
  /**
   * Pairs whose chosen and rejected are the same have a margin that is always 0: `"count"` keeps and counts them,
   * `"error"` refuses them with `ZA_DATA_EQUAL_PAIR`.
   * @default "count"
   */
  onEqualPair?: "count" | "error";
  /** Counters to add to. */
  counts?: ConvertCounts;
}

/** What a conversion changed or noticed. */
export interface ConvertCounts {
  /** Assistant turns cut from the start of conversations. */
  droppedLeadingAssistant: number;
  /** Pairs whose chosen and rejected are the same. */
  equalPairs: number;
}

type RawRow = Record<string, unknown>;

interface Format {
  purpose: Purpose;
  columns: readonly string[];
  /** Finishes the sentence "Each row is …". */
  title: string;
  sft?: (row: RawRow, place: Place, options: ConvertOptions) => SftRow;
  pair?: (row: RawRow, place: Place, options: ConvertOptions) => PairRow;
  unpaired?: (row: RawRow, place: Place, options: ConvertOptions) => UnpairedRow;
}

const formats = {
  messages: {
    purpose: "sft",
    columns: ["messages"],
    title: "a conversation {messages: [{role, content}]} (TRL conversational; ultrachat_200k)",
    sft: (row, place, options) => sftFromMessages(row.messages, place, "messages", options),
  },
  sharegpt: {
    purpose: "sft",
    columns: ["conversations"],
    title: "a conversation {conversations: [{from, value}]} (ShareGPT)",
    sft: (row, place, options) => sftFromMessages(row.conversations, place, "conversations", options),
  },
  unpaired: {
    purpose: "unpaired",
    columns: ["prompt", "completion", "label"],
    title: "an answer with its label {prompt, completion, label} (TRL unpaired preference); true is wanted",
    unpaired: (row, place, options) => unpairedFromColumns(row, place, options),
  },
  "prompt-completion": {
    purpose: "sft",
    columns: ["prompt", "completion"],
    title: "a prompt with its completion {prompt, completion}; only the completion is learnt",
    sft: (row, place, options) => sftFromPromptCompletion(row, place, options),
  },
  text: {
    purpose: "sft",
    columns: ["text"],
    title: "plain text {text}; every token is learnt",
    sft: (row, place) => sftFromText(row.text, place),
  },
  ultrachat: {
    purpose: "sft",
    columns: ["id", "data"],
    title: "a conversation {id, data: [user, assistant, …]} (UltraChat's own files)",
    sft: (row, place, options) => sftFromTurns(row.data, place, "data", options),
  },
  "sharegpt-preference": {
    purpose: "pair",
    columns: ["conversations", "chosen", "rejected"],
    title: "a preference {conversations, chosen, rejected} (from/value)",
    pair: (row, place, options) => pairFromConversation(row, place, options),
  },
  preference: {
    purpose: "pair",
    columns: ["prompt", "chosen", "rejected"],
    title: "a preference {prompt, chosen, rejected} (TRL explicit prompt; ultrafeedback_binarized)",
    pair: (row, place, options) => pairFromColumns(row, place, options),
  },
  "implicit-prompt": {
    purpose: "pair",
    columns: ["chosen", "rejected"],
    title: "a preference {chosen, rejected}; the prompt is what both begin with (TRL implicit prompt)",
    pair: (row, place, options) => pairFromColumns(row, place, options),
  },
  ultrafeedback: {
    purpose: "pair",
    columns: ["instruction", "completions"],
    title:
      "a prompt with rated answers {instruction, completions: [{response, annotations}]} (raw UltraFeedback); chosen is the " +
      "answer with the highest mean of its aspects' ratings, rejected that with the lowest",
    pair: (row, place) => pairFromRatedAnswers(row, place),
  },
} as const satisfies Record<string, Format>;

/** Name of a data format. */
export type FormatName = keyof typeof formats;

const formatEntries = Object.entries(formats) as [FormatName, Format][];

/** Finds the format that fits the columns; throws `ZA_DATA_FORMAT` or `ZA_DATA_UNPAIRED` with what was found. */
export function recogniseFormat(columns: readonly string[], purpose: Purpose, place: Place = {}): FormatName {
  const has = (column: string) => columns.includes(column);
  if (purpose !== "unpaired" && has("prompt") && has("completion") && has("label")) {
    throw new DataError("ZA_DATA_UNPAIRED", "the rows are unpaired preferences {prompt, completion, label}", {
      place,
      remedy:
        purpose === "pair"
          ? "This trainer needs chosen and rejected answers to the same prompt; KTO (KtoTrainer, zephyr-align kto) takes single answers with a label."
          : "For supervised training keep the rows you want to imitate and remove the column label.",
    });
  }
  for (const [name, format] of formatEntries) {
    if (taken[purpose].includes(format.purpose) && format.columns.every(has)) return name;
  }
  const accepted = formatEntries.filter(([, format]) => taken[purpose].includes(format.purpose));
  const elsewhere = formatEntries.find(([, { columns: set }]) => set.every(has));
  throw new DataError(
    "ZA_DATA_FORMAT",
    `the columns ${columns.length > 0 ? columns.join(", ") : "(none)"} fit no ${purposeName(purpose)} format`,
    {
      place,
      remedy:
        (elsewhere
          ? `These are rows of ${purposeName(elsewhere[1].purpose)} data: use the ${trainerOf[elsewhere[1].purpose]} trainer, or `
          : "") +
        `${elsewhere ? "give" : "Give"} one of ${accepted.map(([, { columns: set }]) => `{${set.join(", ")}}`).join(" | ")}.`,
    },
  );
}

/** Refuses a mix of pairs and single answers: their losses are different things. */
export function checkSamePurpose(first: FormatName, second: FormatName, place: Place): void {
  const [one, other] = [formats[first].purpose, formats[second].purpose];
  if (one === other) return;
  throw new DataError(
    "ZA_DATA_FORMAT",
    `its rows are ${purposeName(other)} data, those before are ${purposeName(one)}`,
    {
      place,
      remedy: "Mix data of one kind only: pairs, or single answers.",
    },
  );
}

const trainerOf: Record<Purpose, string> = { sft: "SFT", pair: "DPO", unpaired: "KTO" };

function purposeName(purpose: Purpose): string {
  return { sft: "supervised", pair: "preference", unpaired: "preference (paired or not)" }[purpose];
}

/** How a pair is read where single answers are wanted. */
const asAnswers = "It is read as two single answers: chosen is wanted, rejected is not.";

/**
 * Tells the user how rows with these columns are read, and which columns are not used.
 * Throws as {@link recogniseFormat}.
 */
export function describeFormat(columns: readonly string[], purpose: Purpose, format?: FormatName): string {
  const { purpose: own, title, columns: used } = formats[format ?? recogniseFormat(columns, purpose)] as Format;
  const unused = columns.filter((column) => !used.includes(column));
  const apart = purpose === "unpaired" && own === "pair" ? ` ${asAnswers}` : "";
  return `Each row is ${title}.${apart}${unused.length > 0 ? ` Not used: ${unused.join(", ")}.` : ""}`;
}

/**
 * Converts a raw row for supervised training. Throws a {@link DataError} that names the field.
 *
 * @param place place of the row; the field is added to it
 */
export function toSft(row: unknown, place: Place, options: ConvertOptions = {}): SftRow {
  const raw = rowObject(row, place);
  const format = formats[options.format ?? recogniseFormat(Object.keys(raw), "sft", place)] as Format;
  if (!format.sft) throw wrongFormat(options.format, "sft", place);
  return format.sft(raw, place, options);
}

/** Converts a raw row into a preference pair. Throws a {@link DataError} that names the field. */
export function toPair(row: unknown, place: Place, options: ConvertOptions = {}): PairRow {
  const raw = rowObject(row, place);
  const format = formats[options.format ?? recogniseFormat(Object.keys(raw), "pair", place)] as Format;
  if (!format.pair) throw wrongFormat(options.format, "pair", place);
  return format.pair(raw, place, options);
}

/** Converts a raw row into an answer with its label, or a pair. Throws a {@link DataError} that names the field. */
export function toUnpaired(row: unknown, place: Place, options: ConvertOptions = {}): UnpairedRow | PairRow {
  const raw = rowObject(row, place);
  const format = formats[options.format ?? recogniseFormat(Object.keys(raw), "unpaired", place)] as Format;
  const convert = format.unpaired ?? format.pair;
  if (!convert) throw wrongFormat(options.format, "unpaired", place);
  return convert(raw, place, options);
}

function wrongFormat(format: string | undefined, purpose: Purpose, place: Place): DataError {
  const accepted = formatEntries.filter(([, entry]) => taken[purpose].includes(entry.purpose)).map(([name]) => name);
  return new DataError("ZA_DATA_FORMAT", `the format "${format}" does not hold ${purposeName(purpose)} rows`, {
    place,
    remedy: `Choose one of ${accepted.join(", ")}.`,
  });
}

function rowObject(row: unknown, place: Place): RawRow {
  if (typeof row === "object" && row !== null && !Array.isArray(row)) return row as RawRow;
  throw new DataError("ZA_DATA_ROW", "a row must be an object with named columns", {
    place,
    remedy: "Write one JSON object per row.",
  });
}
