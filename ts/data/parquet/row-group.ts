/** The rows of one row group, some at a time. */
import type { DataError } from "../../errors";
import type { Row } from "../dataset-type";
import type { ByteSource } from "../file-bytes";
import { rowError } from "../messages";
import { assembleRow, type Cursor, cursorAt } from "./assemble";
import type { Layout, RowGroup } from "./layout";
import { ChunkPages, PageFault } from "./pages";
import { BadValue } from "./value";

/** Unpacked bytes that are made into rows at once: what bounds the memory when a writer made one huge row group. */
const windowBytes = 2 << 20;
/** Most rows that are made at once, however small they claim to be. */
const windowRows = 10_000;

/** Rows of a row group that are decoded together. */
export function rowsPerWindow({ rows, uncompressed }: RowGroup): number {
  const fitting = Math.floor((rows * windowBytes) / Math.max(1, uncompressed));
  return Math.max(1, Math.min(rows, windowRows, fitting));
}

/** Reads a row group window by window, forwards or at any place. */
export class RowGroupReader {
  readonly #pages: ChunkPages[];
  readonly #perWindow: number;
  /** Reads follow each other: they share the pages' state. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(
    readonly source: ByteSource,
    readonly layout: Layout,
    readonly group: RowGroup,
  ) {
    this.#pages = group.chunks.map((chunk) => new ChunkPages(source, chunk, group.index));
    this.#perWindow = rowsPerWindow(group);
  }

  get windows(): number {
    return Math.ceil(this.group.rows / this.#perWindow);
  }

  /** The window that holds a row of the group. */
  windowOf(row: number): number {
    return Math.floor(row / this.#perWindow);
  }

  /** The rows of a window. Those that cannot be read are there with their error. */
  window(index: number): Promise<Row<unknown>[]> {
    const rows = this.#turn.then(() => this.#window(index));
    this.#turn = rows.catch(() => {});
    return rows;
  }

  async #window(index: number): Promise<Row<unknown>[]> {
    const from = index * this.#perWindow;
    const to = Math.min(from + this.#perWindow, this.group.rows);
    const rows: Row<unknown>[] = [];
    let fault: PageFault;
    try {
      const cursors = await Promise.all(this.#pages.map((pages) => cursorAt(pages, from, to)));
      for (let row = from; row < to; row++) rows.push(this.#row(row, cursors));
      return rows;
    } catch (error) {
      fault = this.#faultOf(error);
    }
    for (let row = from + rows.length; row < to; row++) {
      const { index: at, place } = this.#placeOf(row);
      rows.push({ index: at, place, error: fault.toError(place.row) });
    }
    return rows;
  }

  #row(row: number, cursors: readonly Cursor[]): Row<unknown> {
    const { index, place } = this.#placeOf(row);
    const value = assembleRow(this.layout.root, cursors);
    const faulty = cursors.filter(({ metBadValue }) => metBadValue);
    if (faulty.length === 0) return { index, place, value };
    for (const cursor of faulty) cursor.metBadValue = false;
    const { field, bad } = badValueIn(value, "")!;
    const error: DataError = rowError(bad.code, place, field, bad.problem, bad.remedy);
    return { index, place, error };
  }

  #placeOf(row: number) {
    const index = this.group.firstRow + row;
    return { index, place: { file: this.source.name, row: index + 1 } };
  }

  #faultOf(error: unknown): PageFault {
    if (error instanceof PageFault) return error;
    // Levels that contradict each other lead out of the pages.
    if (!(error instanceof RangeError || error instanceof TypeError)) throw error;
    const place = { file: this.source.name, rowGroup: this.group.index };
    return new PageFault(place, `its columns cannot be put together (${error.message})`, error);
  }
}

/** The first bad value of a row, and where it stands. */
function badValueIn(value: unknown, path: string): { field: string; bad: BadValue } | undefined {
  if (value instanceof BadValue) return { field: path, bad: value };
  if (typeof value !== "object" || value === null || value instanceof Uint8Array) return undefined;
  for (const [key, item] of Object.entries(value)) {
    const at = Array.isArray(value) ? `${path}[${key}]` : path === "" ? key : `${path}.${key}`;
    const found = badValueIn(item, at);
    if (found) return found;
  }
  return undefined;
}
