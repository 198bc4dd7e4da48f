import { type Dataset, isDataset, type Row, rowValue, rowValues } from "./dataset-type";
import { argumentError } from "./messages";
import { type Permutation, shuffled } from "./shuffle";

/** Which order. */
export interface ShuffleOptions {
  /** @default 42 */
  seed?: number;
  /** Each pass over the data has an order of its own. @default 0 */
  epoch?: number;
}

/**
 * The rows in a random order that is a pure function of (seed, epoch, number of rows). It holds over all rows, those of all
 * shards and all parts of a mix; there is no table and no buffer, so that any position can be asked for alone: to go on
 * after a stop, ask for the rows from there.
 *
 * Rows are read one by one where they are: quick for JSON lines, a page each for Parquet. Trainers do not need this, they
 * shuffle the encoded rows.
 */
export function shuffle<T>(data: Dataset<T>, { seed = 42, epoch = 0 }: ShuffleOptions = {}): Dataset<T> {
  if (!isDataset(data))
    throw argumentError("data", "a data set", data, "Open the rows first: shuffle(dataset(source)).");
  let ordered: Promise<{ order: Permutation; length: number }> | undefined;
  const order = () => {
    ordered ??= data.length().then((length) => ({ order: shuffled(seed, epoch, length), length }));
    ordered.catch(() => {
      ordered = undefined;
    });
    return ordered;
  };
  const row = async (index: number): Promise<Row<T>> => {
    const { order: at, length } = await order();
    // A wrong index is for the data set to refuse.
    const inside = Number.isInteger(index) && index >= 0 && index < length;
    return { ...(await data.row(inside ? at(index) : index)), index };
  };
  async function* rows(): AsyncGenerator<Row<T>> {
    const { length } = await order();
    for (let index = 0; index < length; index++) yield row(index);
  }
  return {
    source: data.source,
    [Symbol.asyncIterator]: () => rowValues(rows()),
    length: async () => (await order()).length,
    rows,
    row,
    at: async (index) => rowValue(await row(index)),
    close: () => data.close(),
  };
}
