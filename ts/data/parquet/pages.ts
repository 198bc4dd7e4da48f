/** The pages of one column in one row group, decoded as they are asked for. */
import { crc32 } from "node:zlib";
import { parquetHeader } from "hyparquet/src/column.js";
import { decompressPage, readDataPage, readDataPageV2 } from "hyparquet/src/datapage.js";
import { readPlain } from "hyparquet/src/plain.js";
import type { ColumnDecoder, DecodedArray, PageHeader } from "hyparquet/src/types.js";
import type { DataError, Place } from "../../errors";
import type { ByteSource } from "../file-bytes";
import { type ColumnChunk, damaged, type Leaf } from "./layout";
import { compressors } from "./unpack";
import { type Converter, converterOf } from "./value";

/** Largest header of a page that is looked for; its statistics may hold long texts. */
const maximumHeader = 16 << 20;
/** Largest page, unpacked. */
const maximumPage = 256 << 20;
/** Most entries in a page: a page of nulls has almost no bytes, so sizes alone do not bound it. */
const maximumEntries = 1 << 24;

/** Entries of a leaf as the file holds them: levels, and the values of those that are not null. */
export interface Page {
  entries: number;
  /** Undefined: the leaf is in no list, every entry is a row. */
  repetition: ArrayLike<number> | undefined;
  /** Undefined: no entry is null. */
  definition: ArrayLike<number> | undefined;
  /** Value of each entry that is not null, in order. */
  value: (index: number) => unknown;
  /** Entries that begin a row. */
  rows: number;
}

/** What is known of a page once it was passed. */
interface Known {
  header: PageHeader;
  /** Offset of what follows the header. */
  start: number;
  firstRow: number;
  rows: number;
}

/** A page is damaged; its column cannot be read on in this row group. */
export class PageFault extends Error {
  constructor(
    readonly place: Place,
    problem: string,
    override readonly cause?: unknown,
  ) {
    super(problem);
  }

  toError(row: number): DataError {
    return damaged({ ...this.place, row }, this.message, this.cause);
  }
}

/** Walks the pages of a chunk forwards, remembers where each begins, and goes back to those that it knows. */
export class ChunkPages {
  readonly #bytes: ReadAhead;
  readonly #decoder: ColumnDecoder;
  readonly #convert: Converter;
  readonly #place: Place;
  readonly #known: Known[] = [];
  /** Values of the dictionary, converted at their first use. */
  #dictionary: { raw: DecodedArray; converted: unknown[] } | undefined;
  /** Where the next page header is looked for. */
  #next: number;
  #entries = 0;
  /** The page that was decoded last, by its offset. */
  #decoded: { start: number; page: Page } | undefined;

  constructor(
    source: ByteSource,
    readonly chunk: ColumnChunk,
    rowGroup: number,
  ) {
    const { leaf, start, end, codec } = chunk;
    this.#place = { file: source.name, rowGroup, field: leaf.path };
    this.#bytes = new ReadAhead(source, end);
    this.#decoder = decoderOf(leaf, codec);
    this.#convert = converterOf(leaf.element);
    this.#next = start;
  }

  /** The page that holds the beginning of a row, its first row, and its index. */
  async pageOf(row: number): Promise<{ page: Page; firstRow: number; index: number }> {
    for (;;) {
      const last = this.#known.at(-1);
      if (last && row < last.firstRow + last.rows) break;
      const passed = await this.#walk();
      if (!passed) throw this.#fault(`the column holds ${last ? last.firstRow + last.rows : 0} rows, not ${row + 1}`);
    }
    let low = 0;
    let high = this.#known.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.#known[middle]!.firstRow <= row && this.#known[middle]!.rows > 0) low = middle;
      else if (this.#known[middle]!.firstRow > row) high = middle - 1;
      else high--;
    }
    const { header, start, firstRow } = this.#known[low]!;
    return { page: await this.#read(header, start), firstRow, index: low };
  }

  /** The page at an index that is known or the next one; undefined behind the last. */
  async pageAt(index: number): Promise<Page | undefined> {
    while (index >= this.#known.length) if (!(await this.#walk())) return undefined;
    const { header, start } = this.#known[index]!;
    return this.#read(header, start);
  }

  /** Decodes a page, or gives the one that was decoded last. */
  async #read(header: PageHeader, start: number): Promise<Page> {
    if (this.#decoded?.start !== start) {
      const bytes = await this.#bytes.read(start, header.compressed_page_size);
      if (bytes.length < header.compressed_page_size) throw this.#fault("the file ends inside the page");
      this.#decoded = { start, page: this.#decode(header, bytes, start) };
    }
    return this.#decoded.page;
  }

  /** Goes past one data page; false at the end of the chunk. */
  async #walk(): Promise<boolean> {
    const { end } = this.chunk;
    while (this.#next < end) {
      const { header, start } = await this.#header();
      if (start + header.compressed_page_size > end) throw this.#fault("the page reaches behind its column");
      const isData = header.type === "DATA_PAGE" || header.type === "DATA_PAGE_V2";
      if (header.type === "DICTIONARY_PAGE") await this.#readDictionary(header, start);
      if (isData) await this.#remember(header, start);
      // Only now: behind a page that cannot be read the rows cannot be counted, now or when it is asked again.
      this.#next = start + header.compressed_page_size;
      if (isData) return true;
    }
    return false;
  }

  async #remember(header: PageHeader, start: number): Promise<void> {
    const entries = (header.data_page_header ?? header.data_page_header_v2)!.num_values;
    if (this.#entries + entries > this.chunk.values) {
      throw this.#fault(`the pages hold more than the ${this.chunk.values} values that the footer promises`);
    }
    // A page of lists does not say how many rows begin in it (in version 2 it does, and is not believed).
    const rows = this.chunk.leaf.maxRepetition === 0 ? entries : (await this.#read(header, start)).rows;
    const last = this.#known.at(-1);
    this.#known.push({ header, start, firstRow: last ? last.firstRow + last.rows : 0, rows });
    this.#entries += entries;
  }

  async #header(): Promise<{ header: PageHeader; start: number }> {
    for (let length = 4096; ; length *= 16) {
      const bytes = await this.#bytes.read(this.#next, length);
      const reader = { view: viewOf(bytes), offset: 0 };
      try {
        const header = parquetHeader(reader);
        checkHeader(header);
        // They point into the piece of the file that was read, and would keep it.
        for (const kind of [header.data_page_header, header.data_page_header_v2]) if (kind) delete kind.statistics;
        return { header, start: this.#next + reader.offset };
      } catch (error) {
        const whole = bytes.length < length || length >= maximumHeader;
        if (!(error instanceof HeaderFault) && !whole) continue;
        throw this.#fault(`the header of the page at byte ${this.#next} cannot be read (${textOf(error)})`, error);
      }
    }
  }

  async #readDictionary(header: PageHeader, start: number): Promise<void> {
    const bytes = await this.#bytes.read(start, header.compressed_page_size);
    this.#guard(start, () => {
      checkSum(header, bytes);
      const { type, element, codec } = this.#decoder;
      const page = decompressPage(bytes, header.uncompressed_page_size, codec, compressors);
      const count = header.dictionary_page_header!.num_values;
      const raw = readPlain({ view: viewOf(page), offset: 0 }, type, count, element.type_length);
      this.#dictionary = { raw, converted: [] };
    });
  }

  #decode(header: PageHeader, bytes: Buffer, start: number): Page {
    return this.#guard(start, () => {
      checkSum(header, bytes);
      const { leaf } = this.chunk;
      const { codec } = this.#decoder;
      const one = header.data_page_header;
      const encoding = (one ?? header.data_page_header_v2)!.encoding;
      const entries = (one ?? header.data_page_header_v2)!.num_values;
      const { repetitionLevels, definitionLevels, dataPage } = one
        ? readDataPage(decompressPage(bytes, header.uncompressed_page_size, codec, compressors), one, this.#decoder)
        : readDataPageV2(bytes, header, this.#decoder);
      const repetition = leaf.maxRepetition > 0 ? repetitionLevels : undefined;
      const definition = definitionLevels?.length ? definitionLevels : undefined;
      for (const levels of [repetition, definition]) {
        if (levels && levels.length !== entries) throw new Error(`${levels.length} levels for ${entries} entries`);
      }
      let present = entries;
      if (definition) {
        present = 0;
        for (let entry = 0; entry < entries; entry++) if (definition[entry] === leaf.maxDefinition) present++;
      }
      if (dataPage.length !== present) throw new Error(`${dataPage.length} values where the levels ask for ${present}`);
      let rows = entries;
      if (repetition) {
        rows = 0;
        for (let entry = 0; entry < entries; entry++) if (repetition[entry] === 0) rows++;
      }
      return { entries, repetition, definition, value: this.#valueOf(dataPage, encoding), rows };
    });
  }

  #valueOf(data: DecodedArray, encoding: string): Page["value"] {
    const convert = this.#convert;
    if (!encoding.endsWith("_DICTIONARY")) return (index) => convert(data[index]);
    const dictionary = this.#dictionary;
    if (!dictionary) throw new Error("the page refers to a dictionary that is not there");
    const { raw, converted } = dictionary;
    for (let index = 0; index < data.length; index++) {
      if (!(data[index] < raw.length))
        throw new Error(`there is no entry ${data[index]} in a dictionary of ${raw.length}`);
    }
    return (index) => {
      const entry = data[index];
      converted[entry] ??= convert(raw[entry]);
      return converted[entry];
    };
  }

  #guard<T>(start: number, work: () => T): T {
    try {
      return work();
    } catch (error) {
      throw this.#fault(`the page at byte ${start} cannot be read (${textOf(error)})`, error);
    }
  }

  #fault(problem: string, cause?: unknown): PageFault {
    return new PageFault(this.#place, problem, cause);
  }
}

class HeaderFault extends Error {}

/** Refuses what would need absurd memory before it is allocated. */
function checkHeader(header: PageHeader): void {
  const { compressed_page_size: packed, uncompressed_page_size: unpacked, type } = header;
  const values =
    type === "DATA_PAGE"
      ? header.data_page_header?.num_values
      : type === "DATA_PAGE_V2"
        ? header.data_page_header_v2?.num_values
        : type === "DICTIONARY_PAGE"
          ? header.dictionary_page_header?.num_values
          : 0;
  const isSize = (size: number | undefined, largest: number) =>
    Number.isInteger(size) && size! >= 0 && size! <= largest;
  if (type === undefined || values === undefined) throw new HeaderFault("it is of no known kind");
  if (!isSize(packed, maximumPage) || !isSize(unpacked, maximumPage)) {
    throw new HeaderFault(`its sizes are ${packed} and ${unpacked}, at most ${maximumPage} are read`);
  }
  if (!isSize(values, maximumEntries))
    throw new HeaderFault(`it holds ${values} values, at most ${maximumEntries} are read`);
}

function checkSum(header: PageHeader, bytes: Uint8Array): void {
  if (header.crc !== undefined && header.crc >>> 0 !== crc32(bytes)) throw new Error("its checksum does not match");
}

function decoderOf(leaf: Leaf, codec: string): ColumnDecoder {
  const { element, schemaPath } = leaf;
  return {
    pathInSchema: leaf.path.split("."),
    type: element.type!,
    element,
    schemaPath,
    codec: codec as ColumnDecoder["codec"],
    compressors,
    // Values are converted by converterOf, a row at a time.
    parsers: {} as ColumnDecoder["parsers"],
  };
}

function viewOf(bytes: Uint8Array): DataView<ArrayBuffer> {
  return new DataView(bytes.buffer as ArrayBuffer, bytes.byteOffset, bytes.byteLength);
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Reads a range of a file in larger pieces. */
class ReadAhead {
  #piece: Buffer = Buffer.alloc(0);
  #start = 0;

  constructor(
    readonly source: ByteSource,
    readonly end: number,
  ) {}

  /** `length` bytes from an offset, fewer at the end. They stay valid. */
  async read(offset: number, length: number): Promise<Buffer> {
    const stop = Math.min(offset + length, this.end);
    if (offset < this.#start || stop > this.#start + this.#piece.length) {
      const end = Math.min(this.end, Math.max(stop, offset + this.source.pieceSize));
      this.#piece = await this.source.read(offset, end);
      this.#start = offset;
    }
    return this.#piece.subarray(offset - this.#start, stop - this.#start);
  }
}
