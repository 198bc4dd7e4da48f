import type { Row } from "../../data";
import type { BrowsedData } from "./browsed-data";
import { holds, type KnownGroups, listsAll, passes, patternOf, type RowFilter } from "./row-filter";
import type { RowTable } from "./row-table";

/** What a search looks through. */
export interface Searched {
  data: BrowsedData;
  table: RowTable;
  groups: KnownGroups;
}

/** The rows that pass a filter, found bit by bit: each question for them looks on for a while. */
export class Matches {
  /** Rows looked at. */
  searched = 0;
  readonly #filter: RowFilter;
  readonly #in: Searched;
  readonly #found: number[] = [];
  readonly #pattern: RegExp | undefined;
  /** Rows of the file in order, where their text is searched. */
  #texts: AsyncIterator<Row<unknown>> | undefined;
  #ordered: readonly number[] | undefined;
  #working: Promise<void> = Promise.resolve();

  constructor(filter: RowFilter, searched: Searched) {
    this.#filter = filter;
    this.#in = searched;
    this.#pattern = patternOf(filter.text);
  }

  get complete(): boolean {
    return this.#all ? this.#filter.order === "file" || this.#in.table.complete : this.searched >= this.#in.data.length;
  }

  /** Share of the rows looked at. */
  get share(): number {
    const { data, table } = this.#in;
    return data.length === 0 || this.complete ? 1 : (this.#all ? table.read : this.searched) / data.length;
  }

  /** Rows found so far. */
  get total(): number {
    return this.#all ? this.#in.data.length : this.#found.length;
  }

  /** Rows of a page, in the filter's order once everything is found, before that in the file's. */
  slice(from: number, to: number): number[] {
    const ordered = this.#inOrder();
    if (ordered) return ordered.slice(from, to);
    return Array.from({ length: Math.max(0, Math.min(to, this.total) - from) }, (_, i) => from + i);
  }

  /** Where a row stands; −1 when it is not among those found. */
  position(row: number): number {
    const ordered = this.#inOrder();
    if (ordered) return ordered.indexOf(row);
    return row < this.total ? row : -1;
  }

  /** Looks on for so many milliseconds. */
  advance(milliseconds: number): Promise<void> {
    this.#working = this.#working.then(() => this.#advance(performance.now() + milliseconds));
    return this.#working;
  }

  /** Lets go of the file. */
  async close(): Promise<void> {
    await this.#working.catch(() => {});
    await this.#texts?.return?.();
  }

  /** No row is looked at, because all are listed. */
  get #all(): boolean {
    return listsAll(this.#filter);
  }

  async #advance(until: number): Promise<void> {
    if (this.#all) return;
    const { data, table, groups } = this.#in;
    const { kind } = this.#filter;
    // Known after the last row only.
    if ((kind === "exact" || kind === "near") && !groups[kind]) return;
    for (; this.searched < table.read; this.searched++) {
      if (this.searched % 16 === 0 && performance.now() > until) return;
      if (this.#pattern) {
        this.#texts ??= data.data.rows()[Symbol.asyncIterator]();
        const { value, done } = await this.#texts.next();
        if (done) {
          this.searched = data.length;
          return;
        }
        if (!passes(this.#filter, this.searched, table, groups) || !holds(this.#pattern, data.read(value))) continue;
      } else if (!passes(this.#filter, this.searched, table, groups)) continue;
      this.#found.push(this.searched);
    }
  }

  /** The rows in the order asked for; undefined when it is that of all rows in the file. */
  #inOrder(): readonly number[] | undefined {
    const { order } = this.#filter;
    if (order === "file" || !this.complete) return this.#all ? undefined : this.#found;
    if (!this.#ordered) {
      const { length, margin } = this.#in.table;
      const values = order === "longest" || order === "shortest" ? length : margin;
      const direction = order === "longest" || order === "margin-high" ? -1 : 1;
      const rows = this.#all ? Array.from({ length: this.total }, (_, row) => row) : [...this.#found];
      // Rows without a margin come last, whatever the direction.
      const key = (row: number) => (Number.isNaN(values[row]!) ? Number.POSITIVE_INFINITY : direction * values[row]!);
      this.#ordered = rows.sort((a, b) => key(a) - key(b) || a - b);
    }
    return this.#ordered;
  }
}
