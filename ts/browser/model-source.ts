/** Where a model comes from: addresses, files, bytes; and its bytes, piece by piece, with what is cached of them. */
import { fromNative, ModelError } from "../errors";
import { mostSmallBytes, tooLargeToBeSmall } from "../model/small-file";
import { type CacheWriter, cached, store } from "./model-cache";
import { nodeBuiltin, platform } from "./platform";

/** A file of a model: its address, itself, or its bytes. */
export type FileSource = string | URL | Blob | ArrayBuffer | Uint8Array;

/** The files of a folder in Hugging Face's layout. */
export interface ModelFiles {
  /** config.json */
  config: FileSource;
  /** model.safetensors, or all its shards: with their `index` addresses or `File`s, which have names. */
  weights: FileSource | readonly FileSource[];
  /** model.safetensors.index.json, which says which shard each tensor is taken from. */
  index?: FileSource;
  /** tokenizer.json */
  tokenizer: FileSource;
  /** tokenizer_config.json */
  tokenizerConfig?: FileSource;
  /** generation_config.json */
  generationConfig?: FileSource;
  /** chat_template.jinja */
  chatTemplate?: FileSource;
}

/**
 * A model: the address of a folder or of a `.gguf` file, such a file or its bytes, or the files of a folder one by one.
 * A `Blob` is read piece by piece; bytes are copied piece by piece.
 */
export type ModelSource = FileSource | ModelFiles;

/** How far a loading is. */
export interface LoadProgress {
  /** Name of the file. */
  file: string;
  /** Bytes of the file that are there, and all. */
  loaded: number;
  total: number;
  /** Whether it comes out of the cache. */
  cached: boolean;
}

/** An open file. */
export interface Opened {
  name: string;
  bytes: number;
  cached: boolean;
  pieces(): AsyncGenerator<Uint8Array, void>;
}

/** How files are opened. */
export interface Opening {
  cache: boolean;
  signal: AbortSignal | undefined;
}

/** The largest piece that is handed on. */
const piece = 1 << 20;

/** An address that holds wherever it is resolved; what is none stays as it is. */
export function absolute(source: FileSource): Exclude<FileSource, URL> {
  if (typeof source !== "string" && !(source instanceof URL)) return source;
  try {
    return new URL(source, platform.document?.baseURI).href;
  } catch {
    throw new ModelError("ZA_MODEL_NOT_FOUND", `${JSON.stringify(String(source))} is no address`, {
      remedy: "Give a whole URL, a file (Blob) or its bytes.",
    });
  }
}

/** Whether a source is a single file in GGUF's format, by its name; bytes are always such. */
export function isGguf(source: ModelSource): boolean {
  if (typeof source === "string") return new URL(source).pathname.toLowerCase().endsWith(".gguf");
  return source instanceof Blob || source instanceof ArrayBuffer || source instanceof Uint8Array;
}

/** The files of a folder at an address. */
export interface FolderFiles extends Omit<ModelFiles, "weights"> {
  /** Of its shards, the address by the name. */
  weights: string | ((shard: string) => string);
}

/** The files of a folder at an address; those that may be absent are left out when they are. */
export async function filesOfFolder(address: string, opening: Opening): Promise<FolderFiles> {
  const base = new URL(address);
  if (!base.pathname.endsWith("/")) base.pathname += "/";
  const at = (name: string) => new URL(encodeURIComponent(name), base).href;
  const optional = ["model.safetensors.index.json", "tokenizer_config.json", "generation_config.json"];
  const [index, tokenizerConfig, generationConfig, chatTemplate] = await Promise.all(
    [...optional, "chat_template.jinja"].map((name) => wholeFile(at(name), opening, true)),
  );
  const single = at("model.safetensors");
  // The order of transformers, and of the native package: the single file wins over an index.
  const sharded = index !== undefined && !(await isThere(single, opening.signal));
  return {
    config: at("config.json"),
    tokenizer: at("tokenizer.json"),
    weights: sharded ? at : single,
    ...(sharded ? { index } : {}),
    ...(tokenizerConfig ? { tokenizerConfig } : {}),
    ...(generationConfig ? { generationConfig } : {}),
    ...(chatTemplate ? { chatTemplate } : {}),
  };
}

/** Whether there is a file at an address, without fetching it. */
async function isThere(url: string, signal: AbortSignal | undefined): Promise<boolean> {
  const disk = url.startsWith("file:") ? nodeBuiltin("node:fs") : undefined;
  if (disk) return disk.existsSync(new URL(url));
  return (await request(url, signal, "HEAD")).ok;
}

/**
 * The bytes of a small file; undefined where an optional one is absent.
 *
 * @throws ModelError as {@link openFile}, and `ZA_MODEL_FORMAT` for a file too large to be one
 */
export async function wholeFile(
  source: FileSource,
  opening: Opening,
  optional = false,
): Promise<Uint8Array | undefined> {
  const file = await openFile(source, { ...opening, cache: false }, optional);
  if (!file) return undefined;
  if (file.bytes > mostSmallBytes) throw tooLargeToBeSmall("ZA_MODEL_FORMAT", file.name, file.bytes);
  const bytes = new Uint8Array(file.bytes);
  let at = 0;
  for await (const piece of file.pieces()) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}

/**
 * Opens a file; undefined where an optional one is absent.
 *
 * @throws ModelError `ZA_MODEL_NOT_FOUND` with the server's answer; AbortedError.
 */
export async function openFile(source: FileSource, opening: Opening, optional = false): Promise<Opened | undefined> {
  const given = absolute(source);
  if (given instanceof Blob) return ofBlob(given, (given as Partial<File>).name ?? "the file", false);
  if (typeof given !== "string") return ofBytes(given instanceof Uint8Array ? given : new Uint8Array(given));
  const name = nameOf(given);
  const disk = given.startsWith("file:") ? nodeBuiltin("node:fs") : undefined;
  if (disk) {
    try {
      return ofBlob(await disk.openAsBlob(new URL(given)), name, false);
    } catch (error) {
      if (optional) return undefined;
      throw notFound(given, error instanceof Error ? error.message : String(error), error);
    }
  }
  const kept = opening.cache ? await cached(given) : undefined;
  if (kept && (await isCurrent(given, kept, opening.signal))) return ofBlob(kept.file, name, true);
  const response = await request(given, opening.signal);
  if (optional && (response.status === 404 || response.status === 403)) return undefined;
  if (!response.ok) throw notFound(given, `the server answered ${response.status} ${response.statusText}`.trim());
  const length = Number(response.headers.get("content-length") ?? "");
  // A length that is not that of the body: it was compressed on its way.
  if (!(length > 0) || response.headers.get("content-encoding") || !response.body) {
    return ofBlob(await response.blob(), name, false);
  }
  const { body } = response;
  const writer = opening.cache ? await store(given, response.headers.get("etag")) : undefined;
  return { name, bytes: length, cached: false, pieces: () => throughCache(body, length, writer) };
}

/** The last part of an address. */
function nameOf(address: string): string {
  const name = new URL(address).pathname.split("/").at(-1)!;
  try {
    return decodeURIComponent(name);
  } catch {
    return name;
  }
}

async function request(url: string, signal: AbortSignal | undefined, method = "GET"): Promise<Response> {
  try {
    return await fetch(url, { method, ...(signal ? { signal } : {}) });
  } catch (error) {
    if (signal?.aborted) throw fromNative(error);
    throw notFound(url, `it cannot be fetched (${error instanceof Error ? error.message : error})`, error);
  }
}

function notFound(url: string, problem: string, cause?: unknown): ModelError {
  return new ModelError("ZA_MODEL_NOT_FOUND", problem, {
    place: { file: url },
    remedy: "Check the address; a server of another origin must allow this one (CORS).",
    cause,
  });
}

/** Whether the server still has what is cached. Without a network, or a mark of the file, it is taken as it is. */
async function isCurrent(
  url: string,
  { file, etag }: { file: File; etag: string | null },
  signal: AbortSignal | undefined,
): Promise<boolean> {
  try {
    const { ok, headers } = await fetch(url, { method: "HEAD", ...(signal ? { signal } : {}) });
    if (!ok) return true;
    const [now, length] = [headers.get("etag"), headers.get("content-length")];
    if (etag !== null && now !== null) return etag === now;
    return length === null || headers.get("content-encoding") !== null || Number(length) === file.size;
  } catch (error) {
    if (signal?.aborted) throw fromNative(error);
    return true;
  }
}

function ofBlob(blob: Blob, name: string, cached: boolean): Opened {
  return { name, bytes: blob.size, cached, pieces: () => piecesOf(blob.stream()) };
}

function ofBytes(bytes: Uint8Array): Opened {
  return {
    name: "the bytes",
    bytes: bytes.length,
    cached: false,
    async *pieces() {
      for (let at = 0; at < bytes.length; at += piece) yield bytes.subarray(at, at + piece);
    },
  };
}

async function* piecesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array, void> {
  const reader = stream.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      for (let at = 0; at < value.length; at += piece) yield value.subarray(at, at + piece);
    }
  } finally {
    // Whoever leaves early wants no more of it.
    await reader.cancel().catch(() => {});
  }
}

async function* throughCache(
  stream: ReadableStream<Uint8Array>,
  bytes: number,
  writer: CacheWriter | undefined,
): AsyncGenerator<Uint8Array, void> {
  let left = bytes;
  try {
    for await (const piece of piecesOf(stream)) {
      await writer?.write(piece);
      left -= piece.length;
      yield piece;
    }
  } finally {
    await (left === 0 ? writer?.close() : writer?.abort());
  }
}
