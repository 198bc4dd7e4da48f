import { createHash } from "node:crypto";
import type { z } from "zod";
import { dataset } from "../data";
import { rowValue } from "../data/dataset-type";
import { DataError, JudgeError, type Place, placeText } from "../errors";

/** A checked row with its place. */
export interface Placed<T> {
  value: T;
  place: Place;
}

/**
 * All rows of a benchmark's file (JSONL or a JSON array), each checked.
 *
 * @throws DataError with file, row and field.
 */
export async function readRows<T>(path: string, schema: z.ZodType<T>): Promise<Placed<T>[]> {
  const rows = dataset(path);
  const read: Placed<T>[] = [];
  try {
    for await (const row of rows.rows())
      read.push({ value: checked(rowValue(row), schema, row.place), place: row.place });
  } finally {
    await rows.close();
  }
  return read;
}

/** A value that fits the schema; a {@link DataError} with the field when it does not. */
export function checked<T>(value: unknown, schema: z.ZodType<T>, place: Place): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0]!;
  const field = issue.path.map((part, at) =>
    typeof part === "number" ? `[${part}]` : at > 0 ? `.${String(part)}` : String(part),
  );
  throw new DataError("ZA_DATA_ROW", issue.message.replace(/^Invalid input: /, ""), {
    place: { ...place, ...(field.length > 0 ? { field: field.join("") } : {}) },
    remedy: "Give the file as the benchmark's own scripts write it.",
  });
}

/**
 * Rows by their key.
 *
 * @throws JudgeError `ZA_JUDGE_DUPLICATE` when a key is there twice; the place is that of the second.
 */
export function byKey<T, K>(rows: readonly Placed<T>[], keyOf: (row: T) => K, what: (key: K) => string): Map<K, T> {
  const found = new Map<K, Placed<T>>();
  for (const row of rows) {
    const key = keyOf(row.value);
    const first = found.get(key);
    if (first) {
      throw new JudgeError("ZA_JUDGE_DUPLICATE", `${what(key)} is there twice, first at ${placeText(first.place)}`, {
        place: row.place,
        remedy: "Keep one of the two; neither is averaged nor chosen for you.",
      });
    }
    found.set(key, row);
  }
  return new Map([...found].map(([key, { value }]) => [key, value]));
}

/** Items by a key, in the order of their first appearance. */
export function groupBy<T, K>(items: readonly T[], keyOf: (item: T) => K): Map<K, T[]> {
  const groups = new Map<K, T[]>();
  for (const item of items) {
    const group = groups.get(keyOf(item));
    if (group) group.push(item);
    else groups.set(keyOf(item), [item]);
  }
  return groups;
}

/** sha256 in hex. */
export function sha256(content: string | Uint8Array): string {
  return createHash("sha256").update(content).digest("hex");
}
