import type { Dataset } from "../data";

/** Pairs are known by their columns; anything else is for the reader of conversations to accept or refuse. */
export async function dataPurpose(data: Dataset<unknown>): Promise<"sft" | "pair"> {
  for await (const { value } of data.rows()) {
    const columns = typeof value === "object" && value !== null ? Object.keys(value) : [];
    if (columns.length > 0) return columns.includes("chosen") && columns.includes("rejected") ? "pair" : "sft";
  }
  return "sft";
}
