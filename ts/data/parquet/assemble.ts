/** Rows from the levels and values of their leaves (the record assembly of the Dremel paper, as Parquet lays it out). */
import type { List, MapNode, Node, Struct } from "./layout";
import type { ChunkPages, Page } from "./pages";
import { BadValue } from "./value";

/** Stands in the entries of one leaf, within pages that are decoded already. */
export class Cursor {
  #page: Page;
  #entry = 0;
  #value = 0;
  /** Whether a {@link BadValue} was taken. */
  metBadValue = false;
  /** Pages behind the current one. */
  readonly #following: Page[];

  constructor(
    pages: [Page, ...Page[]],
    readonly maxDefinition: number,
  ) {
    this.#page = pages[0];
    this.#following = pages.slice(1).reverse();
  }

  /** Definition level of the current entry. */
  get definition(): number {
    this.#enter();
    return this.#page.definition ? this.#page.definition[this.#entry]! : this.maxDefinition;
  }

  /** Repetition level of the current entry; 0 (a new row) behind the last. */
  get repetition(): number {
    this.#enter();
    return this.#page.repetition && this.#entry < this.#page.entries ? this.#page.repetition[this.#entry]! : 0;
  }

  /** Goes on to the next entry and gives the value of this one. */
  take(): unknown {
    const isNull = this.definition !== this.maxDefinition;
    if (this.#entry >= this.#page.entries) throw new RangeError("a column ends inside the row");
    this.#entry++;
    if (isNull) return null;
    const value = this.#page.value(this.#value++);
    if (typeof value === "object" && value instanceof BadValue) this.metBadValue = true;
    return value;
  }

  /** Goes to where the given number of rows have passed, from the start of the first page. */
  skipRows(rows: number): void {
    const { repetition, definition, entries } = this.#page;
    let passed = -1;
    let entry = 0;
    // What stands before the first row of the page belongs to a row of the page before.
    for (; entry < entries; entry++) {
      if (!repetition || repetition[entry] === 0) passed++;
      if (passed === rows) break;
      if (!definition || definition[entry] === this.maxDefinition) this.#value++;
    }
    this.#entry = entry;
  }

  #enter(): void {
    while (this.#entry >= this.#page.entries && this.#following.length > 0) {
      this.#page = this.#following.pop()!;
      this.#entry = 0;
      this.#value = 0;
    }
  }
}

/** A cursor at a row of a chunk that may be moved over the rows `[from, to)`. */
export async function cursorAt(chunk: ChunkPages, from: number, to: number): Promise<Cursor> {
  const { leaf } = chunk.chunk;
  const first = await chunk.pageOf(from);
  const pages: [Page, ...Page[]] = [first.page];
  let rows = first.firstRow + first.page.rows;
  for (let index = first.index + 1; ; index++) {
    // The last row may go on in the pages behind it.
    if (rows > to || (rows === to && leaf.maxRepetition === 0)) break;
    const page = await chunk.pageAt(index);
    if (!page) break;
    pages.push(page);
    rows += page.rows;
  }
  const cursor = new Cursor(pages, leaf.maxDefinition);
  cursor.skipRows(from - first.firstRow);
  return cursor;
}

/** One row; every leaf's cursor stands at its beginning, and then at its end. */
export function assembleRow(root: Struct, cursors: readonly Cursor[]): Record<string, unknown> {
  const row = structValue(root, cursors);
  for (const cursor of cursors) {
    if (cursor.repetition !== 0) throw new RangeError("the columns of the row do not fit together");
  }
  return row;
}

function nodeValue(node: Node, cursors: readonly Cursor[]): unknown {
  if (node.kind === "leaf") return cursors[node.firstLeaf]!.take();
  if (cursors[node.firstLeaf]!.definition < node.definition) {
    pass(node, cursors);
    return null;
  }
  if (node.kind === "list") return listValue(node, cursors);
  return node.kind === "map" ? mapValue(node, cursors) : structValue(node, cursors);
}

function structValue({ fields }: Struct, cursors: readonly Cursor[]): Record<string, unknown> {
  const value: Record<string, unknown> = {};
  for (const { name, node } of fields) set(value, name, nodeValue(node, cursors));
  return value;
}

function listValue(list: List, cursors: readonly Cursor[]): unknown[] {
  const first = cursors[list.firstLeaf]!;
  if (first.definition < list.present) {
    pass(list, cursors);
    return [];
  }
  const values: unknown[] = [];
  do values.push(nodeValue(list.element, cursors));
  while (first.repetition === list.repetition);
  return values;
}

function mapValue({ entries }: MapNode, cursors: readonly Cursor[]): Record<string, unknown> {
  const value: Record<string, unknown> = {};
  for (const entry of listValue(entries, cursors)) {
    const [key, item] = Object.values(entry as Record<string, unknown>);
    set(value, String(key), item);
  }
  return value;
}

/** As JSON.parse: a field of any name is the object's own. */
function set(target: Record<string, unknown>, name: string, value: unknown): void {
  if (name === "__proto__") {
    Object.defineProperty(target, name, { value, enumerable: true, configurable: true, writable: true });
  } else target[name] = value;
}

/** Goes past the one entry that every leaf has for a null or an empty list. */
function pass(node: Node, cursors: readonly Cursor[]): void {
  for (let leaf = node.firstLeaf; leaf < node.endLeaf; leaf++) cursors[leaf]!.take();
}
