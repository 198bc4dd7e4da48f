import { close as closeDescriptor, fstat, openSync, read as readCallback, type Stats } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { resolve } from "node:path";
import { promisify } from "node:util";
import { DataError } from "../errors";
import { argumentError } from "./messages";

/** Bytes read at once. Large enough for the disk, small against the memory budget. */
export const chunkSize = 1 << 20;

/** Longest row that a reader accepts, in bytes (64 MiB). */
export const maximumRowBytes = 64 << 20;

/** Opens a file for reading; a failure is a {@link DataError} that names the file. */
async function openHandle(path: string, name: string): Promise<FileHandle> {
  let handle: FileHandle | undefined;
  try {
    handle = await open(path, "r");
    if ((await handle.stat()).isDirectory()) throw Object.assign(new Error("it is a folder"), { code: "EISDIR" });
    return handle;
  } catch (cause) {
    await handle?.close();
    throw cannotRead(name, cause);
  }
}

function cannotRead(path: string, cause: unknown): DataError {
  const code = (cause as NodeJS.ErrnoException).code;
  if (code === "ENOENT") {
    return new DataError("ZA_DATA_FILE", "the file does not exist", {
      place: { file: path },
      remedy: "Check the path.",
      cause,
    });
  }
  return new DataError("ZA_DATA_FILE", `the file cannot be read (${code ?? String(cause)})`, {
    place: { file: path },
    remedy: code === "EISDIR" ? "Give the path of a file." : "Check the permissions of the file.",
    cause,
  });
}

/** A part of a file. `bytes` is valid only until the next part is asked for: the buffer is used again. */
export interface Chunk {
  bytes: Buffer;
  /** Offset of the first byte in the file. */
  start: number;
}

/** A local file's bytes in order, through one reused buffer. */
async function* chunksOf(path: string, name: string): AsyncGenerator<Chunk> {
  const handle = await openHandle(path, name);
  try {
    const buffer = Buffer.allocUnsafeSlow(chunkSize);
    for (let start = 0; ; ) {
      const { bytesRead } = await handle.read(buffer, 0, chunkSize, start).catch((cause) => {
        throw cannotRead(name, cause);
      });
      if (bytesRead === 0) return;
      yield { bytes: buffer.subarray(0, bytesRead), start };
      start += bytesRead;
    }
  } finally {
    await handle.close();
  }
}

/** Bytes that can be read in order and anywhere: a local file, a file behind HTTP, or what a compressed file holds. */
export interface ByteSource {
  /** Path or address, used in places. */
  readonly name: string;
  /** Bytes that are worth reading at once: more where every read has a delay. */
  readonly pieceSize: number;
  /** Says which content it is: another text when the file was changed. */
  identity(): Promise<string>;
  /** All bytes in order. */
  chunks(): AsyncGenerator<Chunk>;
  /** Makes ready for `size` and `read`: a compressed file is unpacked once. */
  ready(): Promise<void>;
  /** Length in bytes. */
  size(): Promise<number>;
  /** The bytes `[start, end)`; shorter when the file ends before. */
  read(start: number, end: number): Promise<Buffer>;
  /** Lets go of the file; reading again opens it again. */
  close(): Promise<void>;
}

/** The bytes of a path, or those that were given. @throws ConfigError `ZA_ARGUMENT` for what is neither */
export function bytesOf(input: string | ByteSource): ByteSource {
  if (typeof input === "string") return new FileBytes(input);
  if (typeof input === "object" && input !== null && "chunks" in input) return input;
  throw argumentError(
    "input",
    "the path of a file",
    input,
    "Give a path; rows in memory are for fromArray or dataset.",
  );
}

/** Descriptors of data sets that were let go of without `close()`. */
const forgotten = new FinalizationRegistry<number>((descriptor) => closeDescriptor(descriptor, () => {}));

/**
 * Random access to a file that is opened at the first read and again after `close()`. Forgetting to close is allowed:
 * a plain descriptor is used because Node warns about a `FileHandle` that is collected.
 */
export class FileBytes implements ByteSource {
  readonly pieceSize = chunkSize;
  #descriptor: number | undefined;

  /** @param name what places call it; its path when left out */
  constructor(
    readonly path: string,
    readonly name: string = path,
  ) {}

  chunks(): AsyncGenerator<Chunk> {
    return chunksOf(this.path, this.name);
  }

  async ready(): Promise<void> {}

  async identity(): Promise<string> {
    const { size, mtimeMs, ino, dev } = await this.#stat();
    return JSON.stringify([resolve(this.path), size, mtimeMs, ino, dev]);
  }

  async size(): Promise<number> {
    return (await this.#stat()).size;
  }

  async read(start: number, end: number): Promise<Buffer> {
    const descriptor = this.#open();
    const buffer = Buffer.allocUnsafe(end - start);
    let filled = 0;
    while (filled < buffer.length) {
      const wanted = buffer.length - filled;
      const { bytesRead } = await readDescriptor(descriptor, buffer, filled, wanted, start + filled).catch((cause) => {
        throw cannotRead(this.name, cause);
      });
      if (bytesRead === 0) break;
      filled += bytesRead;
    }
    return buffer.subarray(0, filled);
  }

  async close(): Promise<void> {
    if (this.#descriptor === undefined) return;
    forgotten.unregister(this);
    const descriptor = this.#descriptor;
    this.#descriptor = undefined;
    await promisify(closeDescriptor)(descriptor);
  }

  async #stat(): Promise<Stats> {
    const stat = await promisify(fstat)(this.#open());
    if (stat.isDirectory()) throw cannotRead(this.name, Object.assign(new Error("it is a folder"), { code: "EISDIR" }));
    return stat;
  }

  #open(): number {
    if (this.#descriptor === undefined) {
      try {
        this.#descriptor = openSync(this.path, "r");
      } catch (cause) {
        throw cannotRead(this.name, cause);
      }
      forgotten.register(this, this.#descriptor, this);
    }
    return this.#descriptor;
  }
}

const readDescriptor = promisify(readCallback);

/** A growing table of file offsets, 8 bytes each (files may be larger than 4 GiB). */
export class Offsets {
  #values = new Float64Array(1024);
  length = 0;

  push(value: number): void {
    if (this.length === this.#values.length) {
      const larger = new Float64Array(this.#values.length * 2);
      larger.set(this.#values);
      this.#values = larger;
    }
    this.#values[this.length++] = value;
  }

  at(index: number): number {
    return index < this.length ? (this.#values[index] as number) : Number.NaN;
  }
}

/**
 * Whether it is a fault of what is written from some place on, and what stands before can be used. Not so where a file
 * cannot be opened or fetched, nor where a compressed one is damaged: what came out of it before may be wrong already.
 */
export function isFaultOfContent(error: unknown): error is DataError {
  return error instanceof DataError && !["ZA_DATA_FILE", "ZA_DATA_CHANGED", "ZA_DATA_COMPRESSED"].includes(error.code);
}

/** `ZA_DATA_INDEX` unless `index` is a row of the data set. */
export function checkIndex(index: number, length: number, source: string): void {
  if (!Number.isInteger(index) || index < 0 || index >= length) {
    throw new DataError("ZA_DATA_INDEX", `there is no row ${index}: the data set has ${length} rows, counted from 0`, {
      place: { file: source },
      remedy: "Ask length() first.",
    });
  }
}
