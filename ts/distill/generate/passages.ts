import { readFile } from "node:fs/promises";
import { dataset } from "../../data";
import { fromNative } from "../../errors";
import { columnFile, columnValue, noColumn } from "../text-column";

/** Columns in which corpora have their texts. */
const textColumns = ["text", "passage", "content", "document", "body", "article"];

/**
 * Texts for the material sector: rows (JSONL, JSON) by the first known column or the one named behind `#`; a `.txt` or
 * `.md` file holds texts with blank lines between them.
 *
 * @throws DataError `ZA_DATA_FILE`, `ZA_DATA_FORMAT` when a row has no text
 */
export async function* passagesOf(fileAndColumn: string): AsyncGenerator<string> {
  const { file, column } = columnFile(fileAndColumn);
  if (/\.(txt|md)$/i.test(file)) {
    const text = await readFile(file, "utf8").catch((error) => {
      throw fromNative(error, { file });
    });
    yield* text.split(/\r?\n(?:[ \t]*\r?\n)+/).filter((part) => part.trim() !== "");
    return;
  }
  for await (const row of dataset(file)) {
    const value = typeof row === "string" ? row : columnValue(row, column, textColumns);
    if (typeof value !== "string") throw noColumn(row, file, "texts");
    yield value;
  }
}
