/** Texts that must not be in training data, and prompts that overlap with them. */
import { readFile } from "node:fs/promises";
import { basename } from "node:path";
import { dataset } from "../../data";
import { wordsOf } from "../../data/word-runs";
import { fromNative } from "../../errors";
import { columnFile, columnValue, noColumn } from "../text-column";

/** How a prompt overlaps with a text. */
export interface Overlap {
  /** Whose text it is. */
  name: string;
  kind: "exact" | "n-gram";
}

/** Texts shorter than this are only looked for as a whole prompt: five words are said by chance. */
const shortestContained = 6;

/**
 * Finds prompts that overlap with given texts. *Exact*: the same words; case, marks and spaces do not count. *N-gram*: a
 * run of `n` words in common; a text of fewer words (but at least six) must be contained as a whole.
 */
export class OverlapFilter {
  readonly #exact = new Map<string, string>();
  /** Runs by their length. */
  readonly #runs = new Map<number, Map<string, string>>();

  /** @param n words of a run; 0 finds exact overlaps only */
  constructor(readonly n = 10) {}

  /** Number of different texts. */
  get size(): number {
    return this.#exact.size;
  }

  /** Adds a text under the name of its source. */
  add(name: string, text: string): void {
    const words = wordsOf(text);
    if (words.length === 0) return;
    this.#exact.set(words.join(" "), name);
    if (this.n === 0) return;
    const length = Math.min(this.n, words.length);
    if (length < Math.min(this.n, shortestContained)) return;
    const runs = this.#runs.get(length) ?? new Map<string, string>();
    this.#runs.set(length, runs);
    for (let at = 0; at + length <= words.length; at++) runs.set(words.slice(at, at + length).join(" "), name);
  }

  /** The overlap of a prompt, or undefined. */
  find(prompt: string): Overlap | undefined {
    const words = wordsOf(prompt);
    const exact = this.#exact.get(words.join(" "));
    if (exact !== undefined) return { name: exact, kind: "exact" };
    for (const [length, runs] of this.#runs) {
      for (let at = 0; at + length <= words.length; at++) {
        const name = runs.get(words.slice(at, at + length).join(" "));
        if (name !== undefined) return { name, kind: "n-gram" };
      }
    }
    return undefined;
  }
}

/** Columns in which benchmarks have their questions; messages and turns are read too. */
const questionColumns = ["question", "prompt", "instruction", "problem", "text", "query", "goal", "ctx"];

/**
 * The texts of a file: rows (JSONL, JSON) or a CSV file with a head, by the first known column (question, prompt,
 * instruction, …), or by the one named behind `#`; a `.txt` file holds a text on each line. None of them is shipped with
 * the package: the user names the file.
 *
 * @throws DataError `ZA_DATA_FILE`, `ZA_DATA_FORMAT` when there is no such column
 */
export async function overlapTexts(fileAndColumn: string): Promise<{ name: string; texts: string[] }> {
  const { file, column } = columnFile(fileAndColumn);
  const name = basename(file);
  if (/\.txt$/i.test(file))
    return { name, texts: (await textOf(file)).split("\n").filter((line) => line.trim() !== "") };
  const texts: string[] = [];
  for await (const row of rowsOf(file)) texts.push(...textsOf(row, column, file));
  return { name, texts };
}

async function* rowsOf(file: string): AsyncGenerator<Record<string, unknown>> {
  if (/\.csv$/i.test(file)) {
    const [head = [], ...rows] = parseCsv(await textOf(file));
    for (const row of rows) yield Object.fromEntries(head.map((name, index) => [name, row[index] ?? ""]));
    return;
  }
  for await (const value of dataset(file))
    yield typeof value === "string" ? { text: value } : (value as Record<string, unknown>);
}

function textsOf(row: Record<string, unknown>, column: string | undefined, file: string): string[] {
  const value = columnValue(row, column, [...questionColumns, "turns", "messages", "conversations"]);
  if (typeof value === "string") return [value];
  if (Array.isArray(value)) return value.flatMap(userText);
  throw noColumn(row, file, "questions");
}

function userText(turn: unknown): string[] {
  if (typeof turn === "string") return [turn];
  const { role, from, content, value } = (turn ?? {}) as Record<string, unknown>;
  const text = content ?? value;
  return ["user", "human"].includes(String(role ?? from)) && typeof text === "string" ? [text] : [];
}

async function textOf(file: string): Promise<string> {
  try {
    return (await readFile(file, "utf8")).replace(/^\uFEFF/, "");
  } catch (error) {
    throw fromNative(error, { file });
  }
}

/** Cells of RFC 4180: quotes around cells, doubled inside. */
function parseCsv(text: string): string[][] {
  const rows: string[][] = [];
  let row: string[] = [];
  const cell = /(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r?\n|$)/gy;
  for (let match = cell.exec(text); match && match[0] !== ""; match = cell.exec(text)) {
    row.push(match[1]?.replaceAll('""', '"') ?? match[2] ?? "");
    if (match[3] === ",") continue;
    if (row.length > 1 || row[0] !== "") rows.push(row);
    row = [];
  }
  return rows;
}
