import {
  type ConvertCounts,
  type Dataset,
  describeFormat,
  type FormatName,
  type Message,
  type PairRow,
  type Purpose,
  type Row,
  type SftRow,
  toPair,
  toSft,
  toUnpaired,
  type UnpairedRow,
} from "../../data";
import { recogniseFormat } from "../../data/formats";
import { purposeOfColumns } from "../../data/purpose";
import { DataError, fromNative, type Place, type ZephyrError } from "../../errors";
import { ratedAnswers } from "./rated-answers";

/** What a row says, as a trainer of its kind reads it. */
export type RowContent = SftRow | PairRow | UnpairedRow;

/** A row to look at. */
export interface BrowsedRow {
  /** 0-based, what `Dataset.at` takes. */
  index: number;
  place: Place;
  /** The row as it is written; undefined when it cannot even be parsed. */
  raw: unknown;
  /** undefined when training would refuse the row. */
  content: RowContent | undefined;
  /** Why it would. */
  error: ZephyrError | undefined;
  /** Of a pair: the same answer twice. */
  equal: boolean;
  /** Scores of the answers of a pair, null where the row has none. */
  scores: { chosen: number | null; rejected: number | null };
}

const converters = { sft: toSft, pair: toPair, unpaired: toUnpaired } as const;

/** Rows of any data set, each with what training reads in it or why it cannot. Nothing is held. */
export class BrowsedData {
  private constructor(
    readonly data: Dataset<unknown>,
    readonly length: number,
    /** One sentence: how the rows are read, or that their columns are not known. */
    readonly description: string,
    readonly purpose: Purpose,
    readonly format: FormatName | undefined,
  ) {}

  /** Counts the rows and recognises their format by the first row that has columns, as the trainers do. */
  static async open(data: Dataset<unknown>): Promise<BrowsedData> {
    const length = await data.length();
    const columns = await firstColumns(data);
    const purpose = purposeOfColumns(columns);
    try {
      const format = recogniseFormat(columns, purpose);
      return new BrowsedData(data, length, describeFormat(columns, purpose, format), purpose, format);
    } catch (error) {
      if (!(error instanceof DataError)) throw error;
      const description = `The rows are shown as they are: ${error.problem}. ${error.remedy ?? ""}`;
      return new BrowsedData(data, length, description, purpose, undefined);
    }
  }

  get source(): string {
    return this.data.source;
  }

  /** @throws ZA_DATA_INDEX outside the data set */
  async row(index: number): Promise<BrowsedRow> {
    return this.read(await this.data.row(index));
  }

  /** What is in a row of the data set. */
  read(row: Row<unknown>): BrowsedRow {
    const { index, place } = row;
    const counts: ConvertCounts = { droppedLeadingAssistant: 0, equalPairs: 0 };
    const unscored = { chosen: null, rejected: null };
    try {
      if (row.error) throw row.error;
      const options = { counts, ...(this.format ? { format: this.format } : {}) };
      const content = converters[this.purpose](row.value, place, options);
      const scores = "chosen" in content ? scoresOf(row.value, content) : unscored;
      return { index, place, raw: row.value, content, error: undefined, equal: counts.equalPairs > 0, scores };
    } catch (error) {
      return {
        index,
        place,
        raw: row.value,
        content: undefined,
        error: fromNative(error, place),
        equal: false,
        scores: unscored,
      };
    }
  }
}

async function firstColumns(data: Dataset<unknown>): Promise<string[]> {
  for await (const { value } of data.rows()) {
    const columns = columnsOf(value);
    if (columns.length > 0) return columns;
  }
  return [];
}

function columnsOf(value: unknown): string[] {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? Object.keys(value) : [];
}

/** Columns of scores, as data sets of pairs name them. */
const scoreColumns = {
  chosen: ["score_chosen", "chosen_score", "chosen_rating", "chosen-rating", "rating_chosen"],
  rejected: ["score_rejected", "rejected_score", "rejected_rating", "rejected-rating", "rating_rejected"],
} as const;

function scoresOf(raw: unknown, pair: PairRow): BrowsedRow["scores"] {
  const rated = ratedAnswers(raw);
  if (rated.length > 0) {
    // A pair of rated answers is made of their means.
    const mean = (answer: PairRow["chosen"]) =>
      rated.find(({ text }) => text === (typeof answer === "string" ? answer : answer.at(-1)?.content))?.mean ?? null;
    return { chosen: mean(pair.chosen), rejected: mean(pair.rejected) };
  }
  const row = (typeof raw === "object" && raw !== null ? raw : {}) as Record<string, unknown>;
  const find = (names: readonly string[]) => {
    const value = names.map((name) => row[name]).find((each) => typeof each === "number" && Number.isFinite(each));
    return (value as number | undefined) ?? null;
  };
  return { chosen: find(scoreColumns.chosen), rejected: find(scoreColumns.rejected) };
}

/** Score of the chosen answer over the rejected one; null when a score is missing. */
export function marginOf({ scores }: BrowsedRow): number | null {
  return scores.chosen === null || scores.rejected === null ? null : scores.chosen - scores.rejected;
}

/** A text of a row under the name of who says it or what it is. */
export interface Said {
  by: Message["role"] | "text" | "prompt" | "completion";
  text: string;
}

/** A row by its parts: what comes first, and the answers beside each other. */
export interface RowParts {
  shared: Said[];
  /** One for a labelled answer, two for a pair, none for a conversation. */
  answers: { name: "chosen" | "rejected" | "wanted" | "unwanted"; said: Said[] }[];
}

/** The parts of a row in the order of reading. */
export function partsOf(content: RowContent): RowParts {
  const messages = (list: readonly Message[]): Said[] => list.map(({ role, content: text }) => ({ by: role, text }));
  const said = (value: string | readonly Message[], by: Said["by"]): Said[] =>
    typeof value === "string" ? [{ by, text: value }] : messages(value);
  if ("chosen" in content) {
    return {
      shared: said(content.prompt, "prompt"),
      answers: [
        { name: "chosen", said: said(content.chosen, "completion") },
        { name: "rejected", said: said(content.rejected, "completion") },
      ],
    };
  }
  if ("label" in content) {
    const name = content.label ? "wanted" : "unwanted";
    return {
      shared: said(content.prompt, "prompt"),
      answers: [{ name, said: said(content.completion, "completion") }],
    };
  }
  if (content.kind === "chat") return { shared: messages(content.messages), answers: [] };
  if (content.kind === "text") return { shared: said(content.text, "text"), answers: [] };
  return { shared: [...said(content.prompt, "prompt"), ...said(content.completion, "completion")], answers: [] };
}

/** Everything that is said in a row, in order. */
export function allSaid(content: RowContent): Said[] {
  const { shared, answers } = partsOf(content);
  return [...shared, ...answers.flatMap(({ said }) => said)];
}

/**
 * What the row asks, system messages left out: of a conversation what comes before its first answer, of plain text its
 * beginning. Rows that ask alike are duplicates of a kind that training notices.
 */
export function promptOf(content: RowContent): string {
  const { shared, answers } = partsOf(content);
  const asked = answers.length > 0 ? shared : untilAnswer(shared);
  const texts = asked.filter(({ by }) => by !== "system").map(({ text }) => text);
  return texts.join("\n").slice(0, longestPrompt);
}

/** Characters of a prompt that are compared. */
const longestPrompt = 20_000;

function untilAnswer(said: readonly Said[]): readonly Said[] {
  const answer = said.findIndex(({ by }) => by === "assistant" || by === "completion");
  return answer < 0 ? said : said.slice(0, answer);
}

/** The text of a row that a search looks at: all that is said, or the row as written when it cannot be read. */
export function searchedText(row: BrowsedRow): string {
  if (row.content) {
    return allSaid(row.content)
      .map(({ text }) => text)
      .join("\n");
  }
  return row.raw === undefined ? (row.error?.problem ?? "") : rawText(row.raw);
}

/** A value of a row as JSON; what JSON cannot say (Parquet's large integers and bytes) is written for people. */
export function rawText(value: unknown, indent?: number): string {
  const readable = (_: string, each: unknown) => {
    if (typeof each === "bigint") return String(each);
    return each instanceof Uint8Array ? `(${each.length} bytes)` : each;
  };
  return JSON.stringify(value, readable, indent) ?? "";
}
