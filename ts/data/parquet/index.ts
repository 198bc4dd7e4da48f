import { type Dataset, type Row, rowValue, rowValues } from "../dataset-type";
import { type ByteSource, bytesOf, checkIndex } from "../file-bytes";
import { type Layout, readLayout } from "./layout";
import { RowGroupReader } from "./row-group";

/** Windows of rows that are kept for access by index. */
const keptWindows = 4;
/** Row groups whose pages are remembered. */
const keptGroups = 4;

/**
 * Reads a Parquet file, local or behind HTTP: `length()` comes from the footer, rows from the pages that hold them. Memory
 * is that of a few megabytes of rows, whatever the size of file and row groups.
 *
 * Rows are as a JSON file would hold them: nulls are null, nested columns are objects and lists, integers beyond 2^53 are
 * strings of digits. Rows that lie in damaged pages are bad rows (`ZA_DATA_PARQUET`) with row group and column; the rows
 * of other pages are usable.
 */
export function parquet(input: string | ByteSource): Dataset<unknown> {
  return new ParquetDataset(bytesOf(input));
}

class ParquetDataset implements Dataset<unknown> {
  readonly #bytes: ByteSource;
  #layout: Promise<Layout> | undefined;
  readonly #groups = new Map<number, RowGroupReader>();
  readonly #windows = new Map<string, Promise<Row<unknown>[]>>();

  constructor(bytes: ByteSource) {
    this.#bytes = bytes;
  }

  get source(): string {
    return this.#bytes.name;
  }

  [Symbol.asyncIterator](): AsyncIterator<unknown> {
    return rowValues(this.rows());
  }

  async *rows(): AsyncGenerator<Row<unknown>> {
    const layout = await this.#laidOut();
    for (const group of layout.groups) {
      const reader = new RowGroupReader(this.#bytes, layout, group);
      for (let index = 0; index < reader.windows; index++) yield* await reader.window(index);
    }
  }

  async length(): Promise<number> {
    return (await this.#laidOut()).rows;
  }

  async at(index: number): Promise<unknown> {
    return rowValue(await this.row(index));
  }

  async row(index: number): Promise<Row<unknown>> {
    const layout = await this.#laidOut();
    checkIndex(index, layout.rows, this.source);
    const group = layout.groups.findLast(({ firstRow, rows }) => rows > 0 && firstRow <= index)!;
    const reader = kept(this.#groups, group.index, keptGroups, () => new RowGroupReader(this.#bytes, layout, group));
    const window = reader.windowOf(index - group.firstRow);
    const key = `${group.index}/${window}`;
    const rows = kept(this.#windows, key, keptWindows, () =>
      reader.window(window).catch((error) => {
        this.#windows.delete(key);
        throw error;
      }),
    );
    return (await rows).find((row) => row.index === index)!;
  }

  async close(): Promise<void> {
    this.#groups.clear();
    this.#windows.clear();
    this.#layout = undefined;
    await this.#bytes.close();
  }

  #laidOut(): Promise<Layout> {
    this.#layout ??= readLayout(this.#bytes).catch((error) => {
      this.#layout = undefined;
      throw error;
    });
    return this.#layout;
  }
}

/** A value of a map, made when it is not there; only those used last are kept. */
function kept<K, V>(map: Map<K, V>, key: K, count: number, make: () => V): V {
  const value = map.get(key) ?? make();
  map.delete(key);
  map.set(key, value);
  for (const oldest of map.keys()) {
    if (map.size <= count) break;
    map.delete(oldest);
  }
  return value;
}
