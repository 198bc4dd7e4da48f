import { statSync } from "node:fs";
import { join } from "node:path";
import { DataError } from "../errors";
import type { Dataset } from "./dataset-type";
import { FileBytes } from "./file-bytes";
import { fromArray } from "./in-memory";
import { openFile, type ReaderName } from "./open-file";
import { type HoldOut, heldOut, limited } from "./subset";

/** Options of {@link dataset}. */
export interface DatasetOptions {
  /** `jsonl`, `json` or `parquet`; recognised by the file's name, else by its first bytes. */
  reader?: ReaderName;
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
  return openFile(new FileBytes(file), options.reader);
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
