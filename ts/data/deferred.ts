import { type Dataset, type Row, rowValue, rowValues } from "./dataset-type";

/** A data set that is found out about when it is first used: by a file's first bytes, or by asking the Hub. */
export function deferred(source: string, find: () => Promise<Dataset<unknown>>): Dataset<unknown> {
  let found: Promise<Dataset<unknown>> | undefined;
  const data = () => {
    found ??= find();
    found.catch(() => {
      found = undefined;
    });
    return found;
  };
  async function* rows(): AsyncGenerator<Row<unknown>> {
    yield* (await data()).rows();
  }
  const row = async (index: number) => (await data()).row(index);
  return {
    source,
    [Symbol.asyncIterator]: () => rowValues(rows()),
    length: async () => (await data()).length(),
    rows,
    row,
    at: async (index) => rowValue(await row(index)),
    close: async () => (await found)?.close(),
  };
}
