import { DataError } from "../errors";

/** A file, and the column that the user named behind `#`. */
export interface ColumnFile {
  file: string;
  column?: string;
}

/** Reads `file.jsonl#column`. */
export function columnFile(fileAndColumn: string): ColumnFile {
  const [, file = "", column] = /^(.*?)(?:#([^#/\\]+))?$/s.exec(fileAndColumn)!;
  return column === undefined ? { file } : { file, column };
}

/** What stands in the named column, or in the first one that is known; undefined when there is none. Case does not count. */
export function columnValue(row: unknown, column: string | undefined, known: readonly string[]): unknown {
  const keys = typeof row === "object" && row !== null ? Object.keys(row) : [];
  const wanted = column === undefined ? known : [column];
  for (const name of wanted) {
    const key = keys.find((each) => each.toLowerCase() === name.toLowerCase());
    if (key !== undefined) return (row as Record<string, unknown>)[key];
  }
  return undefined;
}

/** No column of a row holds what is looked for. */
export function noColumn(row: unknown, file: string, what: string): DataError {
  const columns = typeof row === "object" && row !== null ? Object.keys(row).join(", ") : "";
  return new DataError("ZA_DATA_FORMAT", `the columns ${columns || "(none)"} hold no ${what}`, {
    place: { file },
    remedy: `Name the column: ${file}#column.`,
  });
}
