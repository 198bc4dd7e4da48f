import { type Dataset, type Row, rowValue } from "./dataset-type";
import { checkIndex } from "./file-bytes";
import { argumentError } from "./messages";

/**
 * A data set of rows that are already in memory.
 *
 * @param name used in places of errors
 * @throws ConfigError `ZA_ARGUMENT` for what is no array
 */
export function fromArray<T>(rows: readonly T[], name = "rows"): Dataset<T> {
  if (!Array.isArray(rows)) {
    const remedy = "Give a path, a list of rows, or a data set: dataset(source, options).";
    throw argumentError("rows", "rows", rows, remedy);
  }
  const row = (index: number): Row<T> => {
    checkIndex(index, rows.length, name);
    return { index, place: { file: name, element: index + 1 }, value: rows[index] as T };
  };
  return {
    source: name,
    async *[Symbol.asyncIterator]() {
      yield* rows;
    },
    length: async () => rows.length,
    at: async (index) => rowValue(row(index)),
    row: async (index) => row(index),
    async *rows() {
      for (let index = 0; index < rows.length; index++) yield row(index);
    },
    close: async () => {},
  };
}
