import { statSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { DataError } from "../errors";
import { type Dataset, type Row, rowValue, rowValues } from "./dataset-type";
import { fromArray } from "./in-memory";
import { jsonArray } from "./json-array";
import { jsonl } from "./jsonl";
import { type HoldOut, heldOut, limited } from "./subset";

/** Options of {@link dataset}. */
export interface DatasetOptions {
  /** `jsonl` or `json`; recognised by the extension, else by the first byte. */
  reader?: "jsonl" | "json";
  /** Take the first rows only. */
  limit?: number;
  /** For a folder: the file `<split>.jsonl` or `<split>.json` in it. */
  split?: string;
  /** Hold some rows out of training, or take those held out. Applied after `limit`. */
  holdOut?: HoldOut;
}

/**
 * Opens rows: a path to a JSONL or JSON-array file, a folder with splits, or an array of rows. Nothing is read before
 * the first use; memory does not depend on the size of the file.
 *
 * @example
 *   dataset("pairs.jsonl", { limit: 1000 })
 *   dataset("ultrachat", { split: "train_sft" })
 *   dataset([{ text: "one" }, { text: "two" }])
 */
export function dataset(input: string | readonly unknown[], options: DatasetOptions = {}): Dataset<unknown> {
  checkCount("limit", options.limit);
  checkCount("holdOut.rows", options.holdOut?.rows);
  let data: Dataset<unknown> = typeof input === "string" ? fromPath(input, options) : fromArray(input);
  if (options.limit !== undefined) data = limited(data, options.limit);
  if (options.holdOut) data = heldOut(data, options.holdOut);
  return data;
}

/** Whether a value is a data set already. */
export function isDataset(value: unknown): value is Dataset<unknown> {
  return typeof value === "object" && value !== null && "rows" in value && "source" in value && "at" in value;
}

function checkCount(name: string, value: number | undefined): void {
  if (value !== undefined && (!Number.isInteger(value) || value < 1)) {
    throw new DataError("ZA_DATA_INDEX", `${name} must be a whole number of at least 1, found ${value}`, {
      place: { field: name },
      remedy: "Leave it out to take all rows.",
    });
  }
}

function fromPath(path: string, options: DatasetOptions): Dataset<unknown> {
  const file = options.split === undefined ? path : splitFile(path, options.split);
  const reader = options.reader ?? (file.endsWith(".jsonl") || file.endsWith(".ndjson") ? "jsonl" : undefined);
  if (reader === "jsonl") return jsonl(file);
  if (reader === "json") return jsonArray(file);
  return byFirstByte(file);
}

function splitFile(folder: string, split: string): string {
  const candidates = [join(folder, `${split}.jsonl`), join(folder, `${split}.json`)];
  const found = candidates.find((candidate) => statSync(candidate, { throwIfNoEntry: false })?.isFile());
  if (found) return found;
  throw new DataError("ZA_DATA_FILE", `there is no split "${split}" in the folder`, {
    place: { file: folder },
    remedy: `Expected ${candidates.join(" or ")}.`,
  });
}

/** Chooses the reader when the file is first read: `[` begins an array, anything else is JSONL. */
function byFirstByte(path: string): Dataset<unknown> {
  let chosen: Promise<Dataset<unknown>> | undefined;
  const data = () => {
    chosen ??= firstByte(path).then((byte) => (byte === "[" ? jsonArray(path) : jsonl(path)));
    chosen.catch(() => {
      chosen = undefined;
    });
    return chosen;
  };
  async function* rows(): AsyncGenerator<Row<unknown>> {
    yield* (await data()).rows();
  }
  const row = async (index: number) => (await data()).row(index);
  return {
    source: path,
    [Symbol.asyncIterator]: () => rowValues(rows()),
    length: async () => (await data()).length(),
    rows,
    row,
    at: async (index) => rowValue(await row(index)),
    close: async () => (await chosen)?.close(),
  };
}

/** The first character of a file that is neither space nor a byte order mark. */
async function firstByte(path: string): Promise<string | undefined> {
  const handle = await open(path, "r").catch(() => undefined);
  // A file that cannot be opened is reported by the reader, with its typed error.
  if (!handle) return undefined;
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(4096), 0, 4096, 0);
    return buffer
      .subarray(0, bytesRead)
      .toString("utf8")
      .replace(/^\uFEFF/, "")
      .trimStart()[0];
  } catch {
    return undefined;
  } finally {
    await handle.close();
  }
}
