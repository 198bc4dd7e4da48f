/** Which reader reads a file: by the endings of its name, else by its first bytes. */
import { CompressedBytes, type Compression, compressions } from "./compressed-bytes";
import type { Dataset } from "./dataset-type";
import { deferred } from "./deferred";
import type { ByteSource } from "./file-bytes";
import { jsonArray } from "./json-array";
import { jsonl } from "./jsonl";
import { parquet } from "./parquet/index";

/** Readers of files. */
export type ReaderName = "jsonl" | "json" | "parquet";

const readers: Record<ReaderName, (bytes: ByteSource) => Dataset<unknown>> = { jsonl, json: jsonArray, parquet };

/** Endings of names that say what a file is; `.json` does not: Hugging Face writes JSONL under it too. */
const readersByEnding: Readonly<Record<string, ReaderName>> = {
  ".jsonl": "jsonl",
  ".ndjson": "jsonl",
  ".parquet": "parquet",
};

/** Endings of the files that are looked for in a folder or repository. */
export const dataEndings: readonly string[] = [".parquet", ".jsonl", ".ndjson", ".json"].flatMap((ending) => [
  ending,
  ...Object.keys(compressions).map((compressed) => ending + compressed),
]);

/** Opens a file of rows. Nothing is read before the first use. */
export function openFile(bytes: ByteSource, reader?: ReaderName): Dataset<unknown> {
  const [packed, compression] = Object.entries(compressions).find(([ending]) => bytes.name.endsWith(ending)) ?? [];
  if (compression) {
    const inner = new CompressedBytes(bytes, compression);
    return byName(inner, bytes.name.slice(0, -packed!.length), reader) ?? deferred(bytes.name, () => byContent(inner));
  }
  return byName(bytes, bytes.name, reader) ?? deferred(bytes.name, () => byContent(bytes));
}

function byName(bytes: ByteSource, name: string, reader?: ReaderName): Dataset<unknown> | undefined {
  const ending = /\.[^./\\]+$/.exec(name.replace(/[?#].*$/, ""))?.[0] ?? "";
  const chosen = reader ?? readersByEnding[ending.toLowerCase()];
  return chosen && readers[chosen](bytes);
}

/** `[` begins an array, anything else that is text is JSONL. */
async function byContent(bytes: ByteSource): Promise<Dataset<unknown>> {
  const start = await firstBytes(bytes);
  const compression = compressionOf(start);
  if (compression && !(bytes instanceof CompressedBytes)) return byContent(new CompressedBytes(bytes, compression));
  if (start.toString("latin1", 0, 4) === "PAR1") return parquet(bytes);
  const first = start
    .toString("utf8")
    .replace(/^\uFEFF/, "")
    .trimStart()[0];
  return first === "[" ? jsonArray(bytes) : jsonl(bytes);
}

function compressionOf(start: Buffer): Compression | undefined {
  if (start[0] === 0x1f && start[1] === 0x8b) return "gzip";
  return start.length >= 4 && start.readUInt32LE(0) === 0xfd2fb528 ? "zstd" : undefined;
}

/** What stands first; nothing of a file that is empty or damaged from its start, which its reader says better. */
async function firstBytes(bytes: ByteSource): Promise<Buffer> {
  try {
    for await (const chunk of bytes.chunks()) return Buffer.from(chunk.bytes.subarray(0, 4096));
  } catch {
    // A file that cannot be opened is reported by the reader, with its typed error.
  }
  return Buffer.alloc(0);
}
