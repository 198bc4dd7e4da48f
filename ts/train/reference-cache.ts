/**
 * Log-probabilities of the frozen reference, computed once and kept in a file: a run that is resumed, or another run over
 * the same rows and reference, reads them back instead of computing them again.
 *
 * The file is JSON lines: a head that says what the numbers belong to, then blocks of sums with a checksum each. Blocks
 * are appended as they are computed, so that a stopped run goes on where it was; a last line that broke off is cut away.
 */
import { createHash } from "node:crypto";
import { type FileHandle, mkdir, open, readFile, stat, truncate } from "node:fs/promises";
import { dirname } from "node:path";
import { ConfigError, fromNative } from "../errors";
import type { EncodedRow } from "../model/tokenizer";

/** What reference log-probs depend on. */
export interface ReferenceKey {
  /** Hash of the reference's weights. */
  reference: string;
  /** Hash of the token ids and masks of every sequence, in order: rows, template, lengths and loss window in one. */
  rows: string;
  /** Sequences in all. */
  sequences: number;
  /** Weight of the tokens behind the shorter answer's length (LD-DPO), which the reference's sums share; null: 1. */
  ldAlpha: number | null;
}

const format = "zephyr-align/reference-logps/1";

/** Hash of sequences as a loss sees them. */
export function hashRows(rows: Iterable<EncodedRow>): string {
  const hash = createHash("sha256");
  for (const { ids, supervised } of rows) {
    hash.update(Uint32Array.of(ids.length));
    hash.update(ids);
    hash.update(supervised);
  }
  return hash.digest("hex");
}

/** Sums in order, in a file that grows block by block. */
export class ReferenceCache {
  readonly path: string;
  /** `[sequences]`; filled up to {@link done}. */
  readonly sums: Float64Array;
  #done = 0;
  #file: FileHandle | undefined;

  private constructor(path: string, sequences: number) {
    this.path = path;
    this.sums = new Float64Array(sequences);
  }

  /** Sequences whose sums are there. */
  get done(): number {
    return this.#done;
  }

  /**
   * Opens the file, or makes it. What it holds is checked block by block and read.
   *
   * @throws ConfigError `ZA_REFERENCE_CACHE` when it belongs to another reference, other rows or another loss window, or
   * when a block in the middle is damaged
   */
  static async open(path: string, key: ReferenceKey): Promise<ReferenceCache> {
    const cache = new ReferenceCache(path, key.sequences);
    try {
      await mkdir(dirname(path), { recursive: true });
      const bytes = await cache.#read(key);
      if (bytes !== undefined && bytes < (await stat(path)).size) await truncate(path, bytes);
      cache.#file = await open(path, "a");
      if (bytes === undefined) await cache.#file.appendFile(`${JSON.stringify({ format, ...key })}\n`);
    } catch (error) {
      throw fromNative(error, { file: path });
    }
    return cache;
  }

  /** Adds the sums of the sequences that follow those that are there. */
  async append(sums: Float64Array): Promise<void> {
    const block = { start: this.#done, sums: Array.from(sums) };
    try {
      await this.#file?.appendFile(`${JSON.stringify({ ...block, check: checksum(block) })}\n`);
    } catch (error) {
      throw fromNative(error, { file: this.path });
    }
    this.sums.set(sums, this.#done);
    this.#done += sums.length;
  }

  /** Puts the file on the disk and closes it. */
  async close(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    try {
      await file?.sync();
    } finally {
      await file?.close();
    }
  }

  /** Reads what is there; returns the bytes that are whole, undefined when there is no head yet. */
  async #read(key: ReferenceKey): Promise<number | undefined> {
    const text = await readFile(this.path, "utf8").catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return "";
      throw error;
    });
    // The last piece is empty, or a line that broke off.
    const lines = text.split("\n").slice(0, -1);
    if (lines.length === 0) return text === "" ? undefined : this.#empty();
    this.#refuseOther(parse(lines[0]!), key);
    let bytes = Buffer.byteLength(lines[0]!) + 1;
    for (const [index, line] of lines.slice(1).entries()) {
      const block = parse(line) as { start?: unknown; sums?: unknown; check?: unknown } | undefined;
      const sums = Array.isArray(block?.sums) ? (block.sums as number[]) : [];
      const whole =
        block !== undefined &&
        block.start === this.#done &&
        this.#done + sums.length <= this.sums.length &&
        block.check === checksum({ start: this.#done, sums });
      if (!whole) throw this.#damaged(index + 2);
      this.sums.set(sums, this.#done);
      this.#done += sums.length;
      bytes += Buffer.byteLength(line) + 1;
    }
    return bytes;
  }

  /** A file in which not even the head was finished begins anew. */
  async #empty(): Promise<undefined> {
    await truncate(this.path, 0);
    return undefined;
  }

  #refuseOther(head: unknown, key: ReferenceKey): void {
    const found = (head ?? {}) as Record<string, unknown>;
    const wanted: Record<string, unknown> = { format, ...key };
    const differing = Object.keys(wanted).filter((name) => !Object.is(found[name], wanted[name]));
    if (differing.length === 0) return;
    const meaning: Record<string, string> = {
      format: "format",
      reference: "reference model",
      rows: "rows, template, maxLength or masks",
      sequences: "number of sequences",
      ldAlpha: "ldAlpha",
    };
    throw new ConfigError(
      "ZA_REFERENCE_CACHE",
      `the reference log-probs belong to another run: ${differing.map((name) => meaning[name]).join("; ")} differ`,
      {
        place: { file: this.path },
        remedy:
          "Give another referenceCache, remove this file, or train with the model and data that it was made from.",
      },
    );
  }

  #damaged(line: number): ConfigError {
    return new ConfigError("ZA_REFERENCE_CACHE", `line ${line} of the reference log-probs is damaged`, {
      place: { file: this.path, row: line },
      remedy: "Remove the file: it is computed again.",
    });
  }
}

function parse(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

function checksum(block: { start: number; sums: number[] }): string {
  return createHash("sha256")
    .update(`${block.start}:`)
    .update(Float64Array.from(block.sums))
    .digest("hex")
    .slice(0, 16);
}
