/** What a file compressed with gzip or zstd holds: in order it is unpacked on the way, for random access once, into the cache. */
import { createHash, randomBytes } from "node:crypto";
import { mkdir, open, readFile, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import type { Transform } from "node:stream";
import * as zlib from "node:zlib";
import { DataError, fromNative } from "../errors";
import { cacheFolder } from "./cache-folder";
import { type ByteSource, type Chunk, chunkSize, FileBytes, isFaultOfContent } from "./file-bytes";
import { ZstdUnpacker } from "./zstd";

/** Compressions of whole files, by the ending of their names. */
export const compressions = { ".gz": "gzip", ".zst": "zstd" } as const;

export type Compression = (typeof compressions)[keyof typeof compressions];

/** Compressed bytes unpacked at once. */
const pieceSize = 64 << 10;
/** Most bytes that a piece may unpack to (zstd can make 128 KiB of four bytes). */
const maximumExpansion = 512 << 20;

/** The unpacked copy of a file in the cache. */
interface Copy {
  /** Identity of the compressed file. */
  of: string;
  bytes: number;
  sha256: string;
  /** Why it could be unpacked only up to here. */
  fault?: { code: string; problem: string; remedy?: string };
}

/**
 * The unpacked content of a compressed file.
 *
 * `chunks()` unpacks as it reads and writes nothing. `ready()` unpacks into `$ZEPHYR_CACHE/unpacked/<key>/`, once for a
 * content: the key is made of the file's identity (path, size, time), and the copy counts only with a manifest that names
 * the same identity and size. A file that breaks off is usable up to there; a damaged one is refused.
 */
export class CompressedBytes implements ByteSource {
  readonly pieceSize = chunkSize;
  /** The copy, once it is there. */
  #copy: Promise<{ bytes: FileBytes; fault: DataError | undefined }> | undefined;

  constructor(
    readonly packed: ByteSource,
    readonly compression: Compression,
  ) {}

  get name(): string {
    return this.packed.name;
  }

  identity(): Promise<string> {
    return this.packed.identity();
  }

  async *chunks(): AsyncGenerator<Chunk> {
    if (!this.#copy) {
      yield* unpacked(this.packed, this.compression);
      return;
    }
    const { bytes, fault } = await this.#copy;
    yield* bytes.chunks();
    if (fault) throw fault;
  }

  async ready(): Promise<void> {
    this.#copy ??= this.#unpack().catch((error) => {
      this.#copy = undefined;
      throw fromNative(error);
    });
    await this.#copy;
  }

  async size(): Promise<number> {
    return (await this.#unpackedCopy()).size();
  }

  async read(start: number, end: number): Promise<Buffer> {
    return (await this.#unpackedCopy()).read(start, end);
  }

  async close(): Promise<void> {
    const copy = this.#copy;
    this.#copy = undefined;
    await (await copy?.catch(() => undefined))?.bytes.close();
    await this.packed.close();
  }

  async #unpackedCopy(): Promise<FileBytes> {
    await this.ready();
    return (await this.#copy!).bytes;
  }

  async #unpack() {
    const identity = await this.identity();
    const key = createHash("sha256").update(identity).digest("hex").slice(0, 32);
    const folder = join(cacheFolder(), "unpacked", key);
    const copy = (await readCopy(folder, identity)) ?? (await this.#write(folder, identity));
    const { fault } = copy;
    return { bytes: new FileBytes(join(folder, textName)), fault: fault && this.#fault(fault, copy.bytes) };
  }

  /** Unpacks under a hidden name, and gives it its name when it is complete. */
  async #write(folder: string, identity: string): Promise<Copy> {
    const writing = join(folder, "..", `.${randomBytes(8).toString("hex")}.writing`);
    await mkdir(writing, { recursive: true });
    try {
      const copy: Copy = { of: identity, bytes: 0, sha256: "" };
      const hash = createHash("sha256");
      const file = await open(join(writing, textName), "w");
      try {
        for await (const { bytes } of unpacked(this.packed, this.compression)) {
          hash.update(bytes);
          await file.writeFile(bytes);
          copy.bytes += bytes.length;
        }
      } catch (error) {
        if (!isFaultOfContent(error)) throw error;
        const { code, problem, remedy } = error;
        copy.fault = { code, problem, ...(remedy ? { remedy } : {}) };
      } finally {
        await file.sync();
        await file.close();
      }
      copy.sha256 = hash.digest("hex");
      const manifest = await open(join(writing, manifestName), "w");
      await manifest.writeFile(JSON.stringify(copy));
      await manifest.sync();
      await manifest.close();
      // What lies there is incomplete, or another process was faster; either way ours is as good.
      await rm(folder, { recursive: true, force: true });
      await rename(writing, folder).catch(async (error) => {
        if (!(await readCopy(folder, identity))) throw error;
      });
      return copy;
    } finally {
      await rm(writing, { recursive: true, force: true });
    }
  }

  #fault({ code, problem, remedy }: NonNullable<Copy["fault"]>, byte: number): DataError {
    return new DataError(code, problem, { place: { file: this.name, byte }, ...(remedy ? { remedy } : {}) });
  }
}

const textName = "text";
const manifestName = "manifest.json";

async function readCopy(folder: string, identity: string): Promise<Copy | undefined> {
  try {
    const copy = JSON.parse(await readFile(join(folder, manifestName), "utf8")) as Copy;
    const { size } = await stat(join(folder, textName));
    return copy.of === identity && copy.bytes === size ? copy : undefined;
  } catch {
    return undefined;
  }
}

/** The unpacked bytes in order; what stands before a fault always comes first, in the same pieces. */
async function* unpacked(packed: ByteSource, compression: Compression): AsyncGenerator<Chunk> {
  let start = 0;
  const unpacker = compression === "zstd" ? zstd() : throughTransform(zlib.createGunzip({ chunkSize: 256 << 10 }));
  const pieces = piecesOf(packed);
  try {
    for (;;) {
      const piece = await pieces.next();
      const last = piece.done === true;
      const { parts, error } = await unpacker.push(last ? undefined : piece.value);
      for (const bytes of parts) {
        yield { bytes, start };
        start += bytes.length;
      }
      if (error) throw faultOf(error, compression, { file: packed.name, byte: start });
      if (last) return;
    }
  } finally {
    unpacker.close();
    await pieces.return(undefined);
  }
}

function faultOf(error: Error, compression: Compression, place: { file: string; byte: number }): DataError {
  if (/unexpected end|unexpected EOF/i.test(error.message)) {
    return new DataError("ZA_DATA_TRUNCATED", `the file breaks off inside its ${compression} stream`, {
      place,
      remedy: 'Download the file again, or pass onBadRow: "skip" to use the rows before the break.',
    });
  }
  return new DataError("ZA_DATA_COMPRESSED", `it is no ${compression} stream, or a damaged one (${error.message})`, {
    place,
    remedy: "Download the file again: rows before this place may be wrong too.",
  });
}

/** Pieces of a fixed size, so that the same file is always unpacked in the same steps. */
async function* piecesOf(packed: ByteSource): AsyncGenerator<Buffer, void> {
  for await (const { bytes } of packed.chunks()) {
    for (let at = 0; at < bytes.length; at += pieceSize) yield bytes.subarray(at, at + pieceSize);
  }
}

interface Unpacker {
  /** Unpacks a piece, or without one what is left. What came out before an error is there too. */
  push(piece: Buffer | undefined): Promise<{ parts: Buffer[]; error?: Error }>;
  close(): void;
}

/** zstd: by Node where it has it (22.15), else in JavaScript. */
function zstd(): Unpacker {
  const { createZstdDecompress } = zlib as { createZstdDecompress?: (options: object) => Transform };
  if (createZstdDecompress) return throughTransform(createZstdDecompress({ chunkSize: 256 << 10 }));
  let parts: Buffer[] = [];
  let size = 0;
  const stream = new ZstdUnpacker((part) => {
    size += part.length;
    if (size > maximumExpansion) throw new Error(`${pieceSize} bytes of it unpack to more than ${maximumExpansion}`);
    parts.push(Buffer.from(part.buffer, part.byteOffset, part.byteLength));
  });
  return {
    push: async (piece) => {
      parts = [];
      size = 0;
      try {
        // The pieces' buffer is used again, and the unpacker keeps what it cannot use yet.
        stream.push(new Uint8Array(piece ?? []), piece === undefined);
        return { parts };
      } catch (error) {
        return { parts, error: error as Error };
      }
    },
    close: () => {},
  };
}

/** A stream of Node's, one piece at a time: read as an iterable it would drop what it made just before an error. */
function throughTransform(stream: Transform): Unpacker {
  let parts: Buffer[] = [];
  let failed: Error | undefined;
  let settle = () => {};
  stream.on("data", (part: Buffer) => parts.push(part));
  stream.on("error", (error) => {
    failed = error;
    settle();
  });
  stream.on("end", () => settle());
  return {
    push: async (piece) => {
      parts = [];
      await new Promise<void>((resolve) => {
        settle = resolve;
        if (failed) resolve();
        else if (piece) stream.write(piece, () => resolve());
        else stream.end();
      });
      return { parts, ...(failed ? { error: failed } : {}) };
    },
    close: () => stream.destroy(),
  };
}
