import type { Place, ZephyrError } from "../errors";

/** One row with its place. `error` is set instead of `value` when the row cannot be used but reading can go on. */
export type Row<T> = RowBase & ({ value: T; error?: undefined } | { error: ZephyrError; value?: undefined });

interface RowBase {
  /** Position in the data set, 0-based; what {@link Dataset.at} takes. */
  index: number;
  /** Where the row is written. */
  place: Place;
}

/**
 * Rows in a fixed order, with random access. Memory does not grow with the size of the rows: readers hold at most one
 * row and a table of byte offsets.
 *
 * Iterating yields the values and throws the typed error of the first bad row; `rows()` yields bad rows as such.
 */
export interface Dataset<T> extends AsyncIterable<T> {
  /** Path or name, used in places. */
  readonly source: string;
  /** Number of rows. Reads a file once, on the first call. */
  length(): Promise<number>;
  /** The row at a 0-based index. Throws `ZA_DATA_INDEX` outside the data set, and the row's own error for a bad row. */
  at(index: number): Promise<T>;
  /** All rows in order with their places, bad ones included. */
  rows(): AsyncIterable<Row<T>>;
  /** The row at an index with its place, or with its error. */
  row(index: number): Promise<Row<T>>;
  /** Lets go of the file. Reading again opens it again. */
  close(): Promise<void>;
}

/** Whether a value is a data set already. */
export function isDataset(value: unknown): value is Dataset<unknown> {
  return typeof value === "object" && value !== null && "rows" in value && "source" in value && "at" in value;
}

/** The value of a row; throws its error. */
export function rowValue<T>(row: Row<T>): T {
  if (row.error) throw row.error;
  return row.value;
}

/** The values of `rows()`, throwing at the first bad row. */
export async function* rowValues<T>(rows: AsyncIterable<Row<T>>): AsyncGenerator<T> {
  for await (const row of rows) yield rowValue(row);
}
