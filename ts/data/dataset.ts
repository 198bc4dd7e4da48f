import { readdirSync, readFileSync, statSync } from "node:fs";
import { join, sep } from "node:path";
import { DataError } from "../errors";
import type { HubOptions } from "../hub/settings";
import { ofFiles } from "./concatenated";
import type { Dataset } from "./dataset-type";
import { FileBytes } from "./file-bytes";
import { HttpBytes } from "./http-bytes";
import { hubAddress, hubDataset } from "./hub-dataset";
import { fromArray } from "./in-memory";
import { openFile, type ReaderName } from "./open-file";
import { checkShards, findSplit } from "./splits";
import { type HoldOut, heldOut, limited } from "./subset";

/** Options of {@link dataset}. */
export interface DatasetOptions {
  /** `jsonl`, `json` or `parquet`; recognised by the file's name, else by its first bytes. */
  reader?: ReaderName;
  /** Take the first rows only. */
  limit?: number;
  /**
   * Of a folder or of a data set of the Hub: the files of this name, as its README.md or the files' names say. May be left
   * out when there is one split only.
   */
  split?: string;
  /** Configuration, where the README.md names several. @default the one it calls default */
  config?: string;
  /** Of a data set of the Hub: branch, tag or commit. @default "main" */
  revision?: string;
  /**
   * Of a data set of the Hub: read what is asked for in ranges instead of downloading the files. For Parquet; text is read
   * from its start.
   * @default false
   */
  stream?: boolean;
  /** How the Hub is reached; the environment variables of huggingface_hub are honoured. */
  hub?: HubOptions;
  /** Hold some rows out of training, or take those held out. Applied after `limit`. */
  holdOut?: HoldOut;
}

/**
 * Opens rows: a JSONL, JSON or Parquet file (also `.gz`, `.zst`), a folder with splits, an http(s) address, the id of a data
 * set of the Hub, or an array of rows. Nothing is read before the first use; memory does not depend on the size of the file.
 *
 * @example
 *   dataset("pairs.jsonl", { limit: 1000 })
 *   dataset("ultrachat", { split: "train_sft" })
 *   dataset("HuggingFaceH4/ultrachat_200k", { split: "train_sft", revision: "main" })
 *   dataset("hf://datasets/org/name@main/data/train-*.parquet")
 *   dataset([{ text: "one" }, { text: "two" }])
 */
export function dataset(input: string | readonly unknown[], options: DatasetOptions = {}): Dataset<unknown> {
  checkCount("limit", options.limit);
  checkCount("holdOut.rows", options.holdOut?.rows);
  let data: Dataset<unknown> = typeof input === "string" ? fromText(input, options) : fromArray(input);
  if (options.limit !== undefined) data = limited(data, options.limit);
  if (options.holdOut) data = heldOut(data, options.holdOut);
  return data;
}

function checkCount(name: string, value: number | undefined): void {
  if (value !== undefined && (!Number.isInteger(value) || value < 1)) {
    throw new DataError("ZA_DATA_INDEX", `${name} must be a whole number of at least 1, found ${value}`, {
      place: { field: name },
      remedy: "Leave it out to take all rows.",
    });
  }
}

function fromText(text: string, options: DatasetOptions): Dataset<unknown> {
  const { reader, split, config, revision, stream, hub } = options;
  if (/^https?:\/\//i.test(text)) return openFile(new HttpBytes(text, { signal: hub?.signal }), reader);
  const there = statSync(text, { throwIfNoEntry: false });
  if (there?.isDirectory()) return fromFolder(text, options);
  // What is there wins: an id of the Hub may be the name of a file too.
  const address = there ? undefined : hubAddress(text);
  if (address) return hubDataset(address, { reader, split, config, revision, stream, hub });
  if (split !== undefined) {
    throw new DataError("ZA_DATA_SPLIT", `there is no split "${split}": it is ${there ? "one file" : "no folder"}`, {
      place: { file: text },
      remedy: "Splits are parts of a folder or of a data set of the Hub.",
    });
  }
  return openFile(new FileBytes(text), reader);
}

function fromFolder(folder: string, { reader, split, config }: DatasetOptions): Dataset<unknown> {
  const names = readdirSync(folder, { recursive: true, encoding: "utf8" }).map((name) => name.split(sep).join("/"));
  const card = names.includes("README.md") ? readFileSync(join(folder, "README.md"), "utf8") : undefined;
  const found = findSplit({ source: folder, paths: names, card, config, split, byFileName: true });
  checkShards(folder, found);
  return ofFiles(
    found.files.map((file) => new FileBytes(join(folder, file))),
    `${folder} (${found.split})`,
    reader,
  );
}
