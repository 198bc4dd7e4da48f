import type { Dataset } from "./dataset-type";
import type { Purpose } from "./formats";

/** What rows with these columns are for. Anything but pairs and labelled answers is for supervised training to take or refuse. */
export function purposeOfColumns(columns: readonly string[]): Purpose {
  const has = (...names: string[]) => names.every((name) => columns.includes(name));
  if (has("chosen", "rejected") || has("instruction", "completions")) return "pair";
  return has("prompt", "completion", "label") ? "unpaired" : "sft";
}

/** What the rows of a data set are for, by the columns of the first row that has any. */
export async function dataPurpose(data: Dataset<unknown>): Promise<Purpose> {
  for await (const { value } of data.rows()) {
    const columns = typeof value === "object" && value !== null ? Object.keys(value) : [];
    if (columns.length > 0) return purposeOfColumns(columns);
  }
  return "sft";
}
