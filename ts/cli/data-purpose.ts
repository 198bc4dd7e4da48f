import type { Dataset } from "../data";

/** Pairs are known by their columns; anything else is for the reader of conversations to accept or refuse. */
export async function dataPurpose(data: Dataset<unknown>): Promise<"sft" | "pair"> {
  for await (const { value } of data.rows()) {
    const columns = typeof value === "object" && value !== null ? Object.keys(value) : [];
    const has = (...names: string[]) => names.every((name) => columns.includes(name));
    if (columns.length > 0) return has("chosen", "rejected") || has("instruction", "completions") ? "pair" : "sft";
  }
  return "sft";
}
