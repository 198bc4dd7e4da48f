import { type Dataset, type Row, rowValue, rowValues } from "./dataset-type";
import { checkIndex } from "./file-bytes";

/** Data sets one behind the other, for example the files of a split. Rows keep their places. */
export function concatenated<T>(parts: readonly Dataset<T>[], source: string): Dataset<T> {
  let ends: Promise<number[]> | undefined;
  /** Index behind the last row of each part. */
  const endsOf = () => {
    ends ??= (async () => {
      const found: number[] = [];
      for (const part of parts) found.push((found.at(-1) ?? 0) + (await part.length()));
      return found;
    })();
    ends.catch(() => {
      ends = undefined;
    });
    return ends;
  };
  const row = async (index: number): Promise<Row<T>> => {
    const found = await endsOf();
    checkIndex(index, found.at(-1) ?? 0, source);
    const part = found.findIndex((end) => index < end);
    return { ...(await parts[part]!.row(index - (found[part - 1] ?? 0))), index };
  };
  async function* rows(): AsyncGenerator<Row<T>> {
    let index = 0;
    for (const part of parts) for await (const each of part.rows()) yield { ...each, index: index++ };
  }
  return {
    source,
    [Symbol.asyncIterator]: () => rowValues(rows()),
    length: async () => (await endsOf()).at(-1) ?? 0,
    rows,
    row,
    at: async (index) => rowValue(await row(index)),
    close: async () => void (await Promise.all(parts.map((part) => part.close()))),
  };
}
