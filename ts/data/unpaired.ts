import type { Place } from "../errors";
import type { ConvertOptions } from "./formats";
import { checkOrder, type Message, messagesAt, rowError, stringAt, withoutLeadingAssistant } from "./messages";

/** An answer to a prompt, and whether it is wanted. */
export type UnpairedRow =
  | { kind: "chat"; prompt: Message[]; completion: Message[]; label: boolean }
  | { kind: "text"; prompt: string; completion: string; label: boolean };

/**
 * `{prompt, completion, label}`: both strings, or messages (a prompt that is a string becomes one user turn). The label
 * is true or false, or 1 or 0.
 */
export function unpairedFromColumns(row: Record<string, unknown>, place: Place, options: ConvertOptions): UnpairedRow {
  const label = labelAt(row.label, place);
  if (typeof row.completion === "string" && typeof row.prompt === "string") {
    if (row.completion === "") {
      throw rowError("ZA_EMPTY_ANSWER", place, "completion", "the completion is empty", "Remove the row.");
    }
    const [prompt, completion] = [stringAt(row.prompt, place, "prompt"), stringAt(row.completion, place, "completion")];
    return { kind: "text", prompt, completion, label };
  }
  const all =
    typeof row.prompt === "string"
      ? [{ role: "user" as const, content: stringAt(row.prompt, place, "prompt") }]
      : messagesAt(row.prompt, place, "prompt");
  const { messages: prompt, offset } = begun(all, options);
  const alone = typeof row.completion === "object" && row.completion !== null && !Array.isArray(row.completion);
  const completion = messagesAt(alone ? [row.completion] : row.completion, place, "completion");
  checkOrder(prompt, place, { field: "prompt", raw: row.prompt, first: "user", last: "user", offset });
  checkOrder(completion, place, { field: "completion", raw: row.completion, first: "assistant", last: "assistant" });
  return { kind: "chat", prompt, completion, label };
}

function begun(all: Message[], options: ConvertOptions): { messages: Message[]; offset: number } {
  if (!options.dropLeadingAssistant) return { messages: all, offset: 0 };
  const { messages, dropped } = withoutLeadingAssistant(all);
  if (options.counts) options.counts.droppedLeadingAssistant += dropped;
  return { messages, offset: all[0]?.role === "system" ? 0 : dropped };
}

function labelAt(raw: unknown, place: Place): boolean {
  if (typeof raw === "boolean") return raw;
  if (raw === 0 || raw === 1) return raw === 1;
  const problem = `the label is ${JSON.stringify(raw) ?? "missing"}, not true or false`;
  throw rowError("ZA_DATA_ROW", place, "label", problem, "Write true for a wanted answer, false for an unwanted one.");
}
