/** A file behind HTTP, read in ranges. */
import { DataError, type Place, throwIfAborted, type ZephyrError } from "../errors";
import { bodyOf, networkProblem, patience, pause, RequestFailure, request, shownAddress } from "../hub/request";
import { type ByteSource, type Chunk, chunkSize } from "./file-bytes";

/** How a file is asked for. */
export interface HttpBytesOptions {
  /** What places call it. @default the address without its query */
  name?: string;
  /** Length, where a listing says it. */
  size?: number;
  /** Which content it is, where a listing says it. */
  identity?: string;
  /** Sends a request; @default a plain GET. Typed errors of its own pass through. */
  get?: (headers: Record<string, string>) => Promise<Response>;
  signal?: AbortSignal | undefined;
}

/**
 * A file behind HTTP. The server must answer ranges; the content must stay the same while it is read (`ZA_DATA_CHANGED`).
 * Connections that are cut are taken up again.
 */
export class HttpBytes implements ByteSource {
  readonly name: string;
  readonly pieceSize = 4 * chunkSize;
  readonly #get: (headers: Record<string, string>) => Promise<Response>;
  readonly #identity: string | undefined;
  readonly #signal: AbortSignal | undefined;
  #size: number | undefined;
  /** The first etag that was seen. */
  #etag: string | undefined;

  constructor(url: string, options: HttpBytesOptions = {}) {
    this.name = options.name ?? shownAddress(url);
    this.#size = options.size;
    this.#identity = options.identity;
    this.#signal = options.signal;
    this.#get = options.get ?? ((headers) => request(url, { headers: () => headers, signal: options.signal }));
  }

  async ready(): Promise<void> {}

  async identity(): Promise<string> {
    const size = await this.size();
    return this.#identity ?? JSON.stringify([this.name, size, this.#etag ?? null]);
  }

  async size(): Promise<number> {
    if (this.#size === undefined) {
      const response = await this.#ask(0, 1);
      await response.body?.cancel().catch(() => {});
    }
    return this.#size!;
  }

  async read(start: number, end: number): Promise<Buffer> {
    const stop = Math.min(end, await this.size());
    if (start >= stop) return Buffer.alloc(0);
    const bytes = Buffer.allocUnsafe(stop - start);
    let filled = 0;
    for await (const part of this.#stream(start, stop)) {
      bytes.set(part, filled);
      filled += part.length;
    }
    return bytes;
  }

  /** In pieces of one size, however they come over the network. */
  async *chunks(): AsyncGenerator<Chunk> {
    const size = await this.size();
    const buffer = Buffer.allocUnsafeSlow(chunkSize);
    let start = 0;
    let filled = 0;
    for await (const part of this.#stream(0, size)) {
      for (let at = 0; at < part.length; ) {
        const taken = Math.min(part.length - at, chunkSize - filled);
        buffer.set(part.subarray(at, at + taken), filled);
        filled += taken;
        at += taken;
        if (filled < chunkSize) continue;
        yield { bytes: buffer, start };
        start += filled;
        filled = 0;
      }
    }
    if (filled > 0) yield { bytes: buffer.subarray(0, filled), start };
  }

  async close(): Promise<void> {}

  /** The bytes `[start, end)`, all of them, over as many connections as it takes. */
  async *#stream(start: number, end: number): AsyncGenerator<Uint8Array> {
    let at = start;
    for (let idle = 0; at < end; ) {
      const before = at;
      const response = await this.#ask(at, end);
      const body = bodyOf(response);
      let problem = "the connection ended early";
      try {
        for (;;) {
          const next = await body.next().catch((error) => {
            throwIfAborted(this.#signal);
            problem = networkProblem(error);
          });
          if (!next || next.done) break;
          const part = next.value.subarray(0, end - at);
          at += part.length;
          yield part;
          if (at >= end) return;
        }
      } finally {
        await body.return(undefined);
      }
      idle = at > before ? 1 : idle + 1;
      if (idle >= patience.attempts) throw this.#fault(`${problem} at byte ${at} of ${end}`, "Check the connection.");
      await pause(idle, undefined, this.#signal);
    }
  }

  /** Asks for a range; the answer begins at its start. */
  async #ask(start: number, end: number): Promise<Response> {
    let response: Response;
    try {
      response = await this.#get({
        range: `bytes=${start}-${end - 1}`,
        ...(this.#etag === undefined ? {} : { "if-range": this.#etag }),
      });
    } catch (error) {
      if (error instanceof RequestFailure)
        throw this.#fault(error.message, "Check the address and the connection.", error);
      throw error;
    }
    const { status, headers } = response;
    const [, from, total] = /^bytes (\d+)-\d+\/(\d+)$/.exec(headers.get("content-range") ?? "") ?? [];
    const etag = headers.get("etag") ?? undefined;
    let refusal: ZephyrError | undefined;
    if (status === 416 && this.#size === undefined) {
      // Not even the first byte: the file is empty.
      this.#size = 0;
      return response;
    }
    if (status === 206 && Number(from) === start) {
      const size = Number(total);
      if ((this.#size !== undefined && this.#size !== size) || (this.#etag !== undefined && etag !== this.#etag)) {
        refusal = this.#changed();
      }
      this.#size ??= size;
      if (etag !== undefined && !etag.startsWith("W/")) this.#etag ??= etag;
    } else if (status === 200) {
      refusal = this.#etag === undefined ? this.#noRanges() : this.#changed();
    } else refusal = this.#fault(`the server answered ${status}`, "Check the address.");
    if (!refusal) return response;
    await response.body?.cancel().catch(() => {});
    throw refusal;
  }

  #noRanges(): DataError {
    return this.#fault("the server does not answer ranges", "Download the file, and give its path.");
  }

  #changed(): DataError {
    return new DataError("ZA_DATA_CHANGED", "the file changed while it was read", {
      place: this.#place,
      remedy: "Start again, or download the file first.",
    });
  }

  #fault(problem: string, remedy: string, cause?: unknown): DataError {
    return new DataError("ZA_DATA_FILE", problem, { place: this.#place, remedy, cause });
  }

  get #place(): Place {
    return { file: this.name };
  }
}
