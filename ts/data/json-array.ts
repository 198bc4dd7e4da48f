import { DataError, type Place } from "../errors";
import { type Dataset, type Row, rowValue, rowValues } from "./dataset-type";
import { type ByteSource, bytesOf, checkIndex, isFaultOfContent, maximumRowBytes, Offsets } from "./file-bytes";
import { parseJson } from "./parse-json";

/** Options of {@link jsonArray}. */
export interface JsonArrayOptions {
  /** Longest element accepted, in bytes. @default 67108864 */
  maximumElementBytes?: number;
}

/**
 * Reads a file that is one JSON array, element by element, whatever its size: memory holds one element and one chunk.
 *
 * Every whole element is yielded in order. A file that breaks off yields all whole elements and then
 * `ZA_DATA_TRUNCATED` with the byte offset at which it ends; malformed text between elements is `ZA_DATA_JSON`.
 * `length()` and `at()` build an index of byte offsets in one pass, 16 bytes an element.
 */
export function jsonArray(input: string | ByteSource, options: JsonArrayOptions = {}): Dataset<unknown> {
  const bytes = bytesOf(input);
  return new JsonArrayDataset(bytes, options.maximumElementBytes ?? maximumRowBytes);
}

interface Element {
  bytes: Buffer;
  start: number;
}

interface Index {
  starts: Offsets;
  ends: Offsets;
  /** Why the file could not be read to its end; the elements before are usable. */
  fault: DataError | undefined;
}

class JsonArrayDataset implements Dataset<unknown> {
  readonly #bytes: ByteSource;
  #index: Promise<Index> | undefined;

  constructor(
    bytes: ByteSource,
    readonly maximumElementBytes: number,
  ) {
    this.#bytes = bytes;
  }

  get source(): string {
    return this.#bytes.name;
  }

  [Symbol.asyncIterator](): AsyncIterator<unknown> {
    return rowValues(this.rows());
  }

  async *rows(): AsyncGenerator<Row<unknown>> {
    let index = 0;
    try {
      for await (const element of elementsOf(this.#bytes, this.maximumElementBytes)) {
        yield this.#rowOf(index++, element);
      }
    } catch (error) {
      if (!isFaultOfContent(error)) throw error;
      yield { index, place: error.place ?? { file: this.source }, error };
    }
  }

  async length(): Promise<number> {
    const { starts, fault } = await this.#indexed();
    if (fault) throw fault;
    return starts.length;
  }

  async at(index: number): Promise<unknown> {
    return rowValue(await this.row(index));
  }

  async row(index: number): Promise<Row<unknown>> {
    const { starts, ends, fault } = await this.#indexed();
    if (index === starts.length && fault) return { index, place: fault.place ?? { file: this.source }, error: fault };
    checkIndex(index, starts.length, this.source);
    const start = starts.at(index);
    return this.#rowOf(index, { bytes: await this.#bytes.read(start, ends.at(index)), start });
  }

  async close(): Promise<void> {
    await this.#bytes.close();
  }

  #rowOf(index: number, element: Element): Row<unknown> {
    const place: Place = { file: this.source, element: index + 1 };
    try {
      return { index, place, value: parseJson(element.bytes, element.start, place) };
    } catch (error) {
      if (error instanceof DataError) return { index, place, error };
      throw error;
    }
  }

  #indexed(): Promise<Index> {
    this.#index ??= indexOf(this.#bytes, this.maximumElementBytes).catch((error) => {
      this.#index = undefined;
      throw error;
    });
    return this.#index;
  }
}

async function indexOf(bytes: ByteSource, maximumElementBytes: number): Promise<Index> {
  const starts = new Offsets();
  const ends = new Offsets();
  await bytes.ready();
  try {
    for await (const element of elementsOf(bytes, maximumElementBytes)) {
      starts.push(element.start);
      ends.push(element.start + element.bytes.length);
    }
  } catch (error) {
    if (!isFaultOfContent(error)) throw error;
    return { starts, ends, fault: error };
  }
  return { starts, ends, fault: undefined };
}

/** Where the scanner stands in the outer array. */
type State = "before-array" | "first-or-end" | "element" | "comma-or-end" | "next" | "after-array";

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const COMMA = 0x2c;

/**
 * The bytes of each element of the outer array. Only strings, escapes and depth are followed here; what is inside an
 * element is checked by `JSON.parse`. `bytes` is valid only until the next element is asked for.
 */
async function* elementsOf(source: ByteSource, maximumElementBytes: number): AsyncGenerator<Element> {
  let state: State = "before-array";
  let inString = false;
  let escaped = false;
  let depth = 0;
  let count = 0;
  let elementStart = 0;
  let pending: Buffer[] = [];
  let pendingBytes = 0;
  let fileEnd = 0;

  for await (const { bytes, start } of source.chunks()) {
    fileEnd = start + bytes.length;
    let at = 0;
    // Where the current element continues in this chunk.
    let from = 0;
    if (start === 0 && bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf) at = 3;
    while (at < bytes.length) {
      if (state === "element") {
        const scanned = scanElement(bytes, at);
        at = scanned.at;
        if (!scanned.ended) break;
        const part = bytes.subarray(from, at);
        if (pendingBytes + part.length > maximumElementBytes) throw tooLong();
        yield { bytes: pendingBytes === 0 ? part : Buffer.concat([...pending, part]), start: elementStart };
        count++;
        pending = [];
        pendingBytes = 0;
        state = "comma-or-end";
        continue;
      }
      const byte = bytes[at] as number;
      if (byte === 32 || byte === 10 || byte === 13 || byte === 9) {
        at++;
        continue;
      }
      if (state === "before-array") {
        if (byte !== OPEN_BRACKET) throw malformed(start + at, byte, "the file does not begin with [");
        state = "first-or-end";
        at++;
      } else if (state === "comma-or-end") {
        if (byte === COMMA) state = "next";
        else if (byte === CLOSE_BRACKET) state = "after-array";
        else throw malformed(start + at, byte, "expected , or ] after an element");
        at++;
      } else if (state === "after-array") {
        throw malformed(start + at, byte, "there is text after the array");
      } else if (byte === CLOSE_BRACKET && state === "first-or-end") {
        state = "after-array";
        at++;
      } else if (byte === COMMA || byte === CLOSE_BRACKET || byte === CLOSE_BRACE) {
        throw malformed(start + at, byte, "expected an element");
      } else {
        state = "element";
        depth = 0;
        from = at;
        elementStart = start + at;
      }
    }
    if (state === "element") {
      // The chunk's buffer is used again, hence the copy.
      const part = Buffer.from(bytes.subarray(from));
      pending.push(part);
      pendingBytes += part.length;
      if (pendingBytes > maximumElementBytes) throw tooLong();
    }
  }
  if (state !== "after-array") throw truncated();

  /**
   * Runs to the end of the element (exclusive) or of the chunk. Strings are most of the bytes: inside one the next quote
   * is looked for by the native search, and it ends the string unless an odd number of backslashes stands before it.
   */
  function scanElement(bytes: Buffer, from: number): { at: number; ended: boolean } {
    const end = bytes.length;
    let i = from;
    while (i < end) {
      if (inString) {
        if (escaped) {
          escaped = false;
          i++;
          continue;
        }
        const quote = bytes.indexOf(QUOTE, i);
        const stop = quote < 0 ? end : quote;
        let run = stop;
        while (run > i && bytes[run - 1] === BACKSLASH) run--;
        const odd = ((stop - run) & 1) === 1;
        i = stop + (quote < 0 ? 0 : 1);
        if (quote < 0) escaped = odd;
        else if (!odd) {
          inString = false;
          if (depth === 0) return { at: i, ended: true };
        }
        continue;
      }
      const byte = bytes[i] as number;
      if (byte === QUOTE) inString = true;
      else if (byte === OPEN_BRACE || byte === OPEN_BRACKET) depth++;
      else if (depth === 0) {
        // A number or a word ends before the outer comma, bracket or space.
        if (byte === COMMA || byte === CLOSE_BRACKET || byte === CLOSE_BRACE || byte <= 32)
          return { at: i, ended: true };
      } else if (byte === CLOSE_BRACE || byte === CLOSE_BRACKET) {
        if (--depth === 0) return { at: i + 1, ended: true };
      }
      i++;
    }
    return { at: end, ended: false };
  }

  function place(byte: number): Place {
    return { file: source.name, element: count + 1, byte };
  }

  function tooLong(): DataError {
    return new DataError("ZA_DATA_LINE_TOO_LONG", `the element is longer than ${maximumElementBytes} bytes`, {
      place: place(elementStart),
      remedy: "Is a bracket or a quote missing before it? Otherwise split the row.",
    });
  }

  function malformed(at: number, byte: number, what: string): DataError {
    const found = byte > 32 && byte < 127 ? JSON.stringify(String.fromCharCode(byte)) : `byte 0x${byte.toString(16)}`;
    return new DataError("ZA_DATA_JSON", `${what}, found ${found}`, {
      place: place(at),
      remedy: "The file must be one JSON array. Is it JSONL? Then name it .jsonl.",
    });
  }

  function truncated(): DataError {
    const where =
      state === "before-array"
        ? "the file is empty"
        : state === "element"
          ? `the file ends inside ${inString ? "a string of " : ""}the element that begins at byte ${elementStart}`
          : "the file ends before the closing ]";
    return new DataError("ZA_DATA_TRUNCATED", `${where}; ${count} whole elements stand before`, {
      place: place(fileEnd),
      remedy: 'Download the file again, or pass onBadRow: "skip" to use the whole elements before the break.',
    });
  }
}
