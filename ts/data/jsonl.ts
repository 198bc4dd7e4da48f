import { DataError, type Place } from "../errors";
import { type Dataset, type Row, rowValue, rowValues } from "./dataset-type";
import { type ByteSource, bytesOf, checkIndex, isFaultOfContent, maximumRowBytes, Offsets } from "./file-bytes";
import { parseJson } from "./parse-json";

const LF = 10;

/** Options of {@link jsonl}. */
export interface JsonlOptions {
  /** Longest line accepted, in bytes. @default 67108864 */
  maximumLineBytes?: number;
}

/**
 * Reads a file of one JSON value per line.
 *
 * Only LF ends a line: U+2028, U+2029 and U+0085 are ordinary characters of a string. A CR before the LF, a byte order
 * mark and blank lines are accepted and skipped. `length()` and `at()` build an index of byte offsets in one pass,
 * 8 bytes a row.
 */
export function jsonl(input: string | ByteSource, options: JsonlOptions = {}): Dataset<unknown> {
  const bytes = bytesOf(input);
  return new JsonlDataset(bytes, options.maximumLineBytes ?? maximumRowBytes);
}

interface Line {
  /** Null when the line is longer than the cap. */
  bytes: Buffer | null;
  start: number;
  /** 1-based. */
  number: number;
}

interface Index {
  starts: Offsets;
  /** Rows from `fromRow` on stand `blanks` lines lower than their index says. */
  shifts: { fromRow: number; blanks: number }[];
  /** Offset at which the last row ends. */
  end: number;
  /** Why a compressed file could not be read to its end; the rows before are usable. */
  fault: DataError | undefined;
}

class JsonlDataset implements Dataset<unknown> {
  readonly #bytes: ByteSource;
  #index: Promise<Index> | undefined;

  constructor(
    bytes: ByteSource,
    readonly maximumLineBytes: number,
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
      for await (const line of linesOf(this.#bytes, this.maximumLineBytes)) yield this.#rowOf(index++, line);
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
    const { starts, shifts, end, fault } = await this.#indexed();
    if (index === starts.length && fault) return { index, place: fault.place ?? { file: this.source }, error: fault };
    checkIndex(index, starts.length, this.source);
    const start = starts.at(index);
    const next = index + 1 < starts.length ? starts.at(index + 1) : end;
    const shift = shifts.findLast((candidate) => candidate.fromRow <= index);
    const number = index + 1 + (shift?.blanks ?? 0);
    // Blank lines may lie between this row and the next, so the row's own LF is looked for.
    const bytes = await this.#bytes.read(start, Math.min(next, start + this.maximumLineBytes + 2));
    const lf = bytes.indexOf(LF);
    const own = lf < 0 ? bytes : bytes.subarray(0, lf);
    return this.#rowOf(index, { bytes: isOverLong(own, this.maximumLineBytes) ? null : own, start, number });
  }

  async close(): Promise<void> {
    await this.#bytes.close();
  }

  #rowOf(index: number, line: Line): Row<unknown> {
    const place: Place = { file: this.source, row: line.number };
    try {
      if (line.bytes === null) throw this.#tooLong(line);
      return { index, place, value: parseJson(line.bytes, line.start, place) };
    } catch (error) {
      if (error instanceof DataError) return { index, place, error };
      throw error;
    }
  }

  #tooLong(line: Line): DataError {
    return new DataError("ZA_DATA_LINE_TOO_LONG", `the line is longer than ${this.maximumLineBytes} bytes`, {
      place: { file: this.source, row: line.number, byte: line.start },
      remedy: "Is this a JSON array in one line? Then name the file .json. Otherwise split the row.",
    });
  }

  #indexed(): Promise<Index> {
    this.#index ??= indexOf(this.#bytes, this.maximumLineBytes).catch((error) => {
      this.#index = undefined;
      throw error;
    });
    return this.#index;
  }
}

async function indexOf(bytes: ByteSource, maximumLineBytes: number): Promise<Index> {
  const index: Index = { starts: new Offsets(), shifts: [], end: 0, fault: undefined };
  const { starts, shifts } = index;
  await bytes.ready();
  try {
    for await (const line of linesOf(bytes, maximumLineBytes)) {
      const blanks = line.number - (starts.length + 1);
      if (blanks !== (shifts.at(-1)?.blanks ?? 0)) shifts.push({ fromRow: starts.length, blanks });
      starts.push(line.start);
      index.end = line.start + (line.bytes?.length ?? maximumLineBytes + 2);
    }
  } catch (error) {
    if (!isFaultOfContent(error)) throw error;
    index.fault = error;
  }
  return index;
}

/** The lines that are not blank, without their line ends. `bytes` is valid only until the next line is asked for. */
async function* linesOf(bytes: ByteSource, maximumLineBytes: number): AsyncGenerator<Line> {
  let pending: Buffer[] = [];
  let pendingBytes = 0;
  let start = 0;
  let number = 1;
  for await (const chunk of bytes.chunks()) {
    let from = chunk.start === 0 && hasByteOrderMark(chunk.bytes) ? 3 : 0;
    if (chunk.start === 0) start = from;
    for (;;) {
      const lf = chunk.bytes.indexOf(LF, from);
      const to = lf < 0 ? chunk.bytes.length : lf;
      const part = chunk.bytes.subarray(from, to);
      if (lf < 0) {
        pendingBytes += part.length;
        // The chunk's buffer is used again, hence the copy; an over-long line is counted but not kept.
        if (pendingBytes <= maximumLineBytes + 1) pending.push(Buffer.from(part));
        else pending = [];
        break;
      }
      const line = finish(part);
      if (line) yield line;
      number++;
      from = lf + 1;
      start = chunk.start + from;
    }
  }
  const last = finish(Buffer.alloc(0));
  if (last) yield last;

  function finish(part: Buffer): Line | null {
    const length = pendingBytes + part.length;
    const kept = length <= maximumLineBytes + 1;
    const whole = !kept ? null : pendingBytes === 0 ? part : Buffer.concat([...pending, part]);
    pending = [];
    pendingBytes = 0;
    if (whole === null || isOverLong(whole, maximumLineBytes)) return { bytes: null, start, number };
    return isBlank(whole) ? null : { bytes: whole, start, number };
  }
}

/** Whether a line without its LF is longer than the cap; a CR at its end does not count. */
function isOverLong(line: Buffer, maximumLineBytes: number): boolean {
  return line.length > maximumLineBytes + (line.at(-1) === 13 ? 1 : 0);
}

function hasByteOrderMark(bytes: Buffer): boolean {
  return bytes.length >= 3 && bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf;
}

function isBlank(bytes: Buffer): boolean {
  for (const byte of bytes) if (byte !== 32 && byte !== 9 && byte !== 13) return false;
  return true;
}
