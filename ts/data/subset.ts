import { DataError } from "../errors";
import { type Dataset, type Row, rowValue, rowValues } from "./dataset-type";
import { checkIndex } from "./file-bytes";
import { shuffled } from "./shuffle";

/** The first `count` rows. Rows behind them are never read by iteration. */
export function limited<T>(data: Dataset<T>, count: number): Dataset<T> {
  let counted: Promise<number> | undefined;
  // Counted by reading: the index of a large file would look at rows that are never used, or at a broken end.
  const length = () => {
    counted ??= countOf(rows());
    return counted;
  };
  const row = async (index: number) => {
    checkIndex(index, count, data.source);
    return data.row(index);
  };
  async function* rows(): AsyncGenerator<Row<T>> {
    if (count === 0) return;
    for await (const each of data.rows()) {
      yield each;
      if (each.index + 1 >= count) return;
    }
  }
  return {
    source: data.source,
    [Symbol.asyncIterator]: () => rowValues(rows()),
    length,
    rows,
    row,
    at: async (index) => rowValue(await row(index)),
    close: () => data.close(),
  };
}

async function countOf(rows: AsyncIterable<unknown>): Promise<number> {
  let count = 0;
  for await (const _ of rows) count++;
  return count;
}

/** Which rows to hold out of training. */
export interface HoldOut {
  /** Number of rows held out. */
  rows: number;
  /** The part wanted: the held-out rows, or all others. */
  part: "test" | "train";
  /** Seed of the choice. @default 42 */
  seed?: number;
}

/** Either side of a split into training and held-out rows, each in file order. The choice depends on seed and length only. */
export function heldOut<T>(data: Dataset<T>, { rows: count, part, seed = 42 }: HoldOut): Dataset<T> {
  let chosen: Promise<Uint32Array> | undefined;
  const indices = () => {
    chosen ??= data.length().then((n) => {
      if (count > n) {
        throw new DataError("ZA_DATA_INDEX", `cannot hold out ${count} rows of ${n}`, {
          place: { file: data.source },
          remedy: "Hold out fewer rows.",
        });
      }
      const permutation = shuffled(seed, 0, n);
      const test = Uint32Array.from({ length: count }, (_, i) => permutation(i)).sort();
      if (part === "test") return test;
      const train = new Uint32Array(n - count);
      for (let row = 0, next = 0, to = 0; row < n; row++) {
        if (row === test[next]) next++;
        else train[to++] = row;
      }
      return train;
    });
    return chosen;
  };
  const row = async (index: number): Promise<Row<T>> => {
    const table = await indices();
    checkIndex(index, table.length, data.source);
    return { ...(await data.row(table[index] as number)), index };
  };
  async function* rows(): AsyncGenerator<Row<T>> {
    const { length } = await indices();
    for (let index = 0; index < length; index++) yield row(index);
  }
  return {
    source: data.source,
    [Symbol.asyncIterator]: () => rowValues(rows()),
    length: async () => (await indices()).length,
    rows,
    row,
    at: async (index) => rowValue(await row(index)),
    close: () => data.close(),
  };
}
