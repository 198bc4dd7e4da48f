import { type Dataset, type Row, rowValue, rowValues } from "./dataset-type";
import { type ByteSource, checkIndex } from "./file-bytes";
import { openFile, type ReaderName } from "./open-file";

/** The rows of files one behind the other. */
export function ofFiles(files: readonly ByteSource[], name: string, reader?: ReaderName): Dataset<unknown> {
  const parts = files.map((bytes) => openFile(bytes, reader));
  return parts.length === 1 ? parts[0]! : concatenated(parts, name);
}

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
