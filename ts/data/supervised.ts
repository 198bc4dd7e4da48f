import type { Place } from "../errors";
import type { ConvertOptions } from "./formats";
import {
  checkOrder,
  type Message,
  messagesAt,
  rowError,
  stringAt,
  typeName,
  withoutLeadingAssistant,
} from "./messages";

/** A row for supervised fine-tuning. */
export type SftRow =
  | {
      kind: "chat";
      messages: Message[];
      /**
       * Index of the first message that may be learnt: 0 for conversations; for conversational prompt-completion rows
       * the number of prompt messages, because the prompt is given, not imitated (TRL's completion_only_loss).
       */
      supervisedFrom: number;
    }
  | { kind: "text"; text: string }
  | { kind: "prompt-completion"; prompt: string; completion: string };

/** A conversation; at least one assistant turn, roles in turn. A last user turn without an answer is allowed. */
export function sftFromMessages(raw: unknown, place: Place, field: string, options: ConvertOptions): SftRow {
  const all = messagesAt(raw, place, field);
  const { messages, offset } = conversation(all, options);
  if (!messages.some((message) => message.role === "assistant")) {
    const problem = "the conversation holds no assistant turn, so there is nothing to learn";
    throw rowError("ZA_DATA_NO_ANSWER", place, field, problem, "Remove the row.");
  }
  checkOrder(messages, place, { field, raw, first: "user", offset });
  return { kind: "chat", messages, supervisedFrom: 0 };
}

/** Texts that take turns, the user's first (UltraChat). */
export function sftFromTurns(raw: unknown, place: Place, field: string, options: ConvertOptions): SftRow {
  if (!Array.isArray(raw)) {
    const problem = `expected a list of texts, found ${typeName(raw)}`;
    throw rowError("ZA_DATA_ROW", place, field, problem, "Give the turns as texts, the user's first.");
  }
  const messages = raw.map((text, i) => ({
    role: i % 2 === 0 ? ("user" as const) : ("assistant" as const),
    content: stringAt(text, place, `${field}[${i}]`),
  }));
  return sftFromMessages(messages, place, field, options);
}

function conversation(all: Message[], options: ConvertOptions): { messages: Message[]; offset: number } {
  if (!options.dropLeadingAssistant) return { messages: all, offset: 0 };
  const { messages, dropped } = withoutLeadingAssistant(all);
  if (options.counts) options.counts.droppedLeadingAssistant += dropped;
  // With a system message in front, the first message keeps its index; paths of the others are then one cut lower.
  return { messages, offset: all[0]?.role === "system" ? 0 : dropped };
}

/** `{prompt, completion}`, both strings or both lists of messages. */
export function sftFromPromptCompletion(row: Record<string, unknown>, place: Place, options: ConvertOptions): SftRow {
  if (Array.isArray(row.completion) || Array.isArray(row.prompt)) {
    const { messages: prompt, offset } = conversation(messagesAt(row.prompt, place, "prompt"), options);
    const completion = messagesAt(row.completion, place, "completion");
    checkOrder(prompt, place, { field: "prompt", raw: row.prompt, first: "user", last: "user", offset });
    checkOrder(completion, place, { field: "completion", raw: row.completion, first: "assistant" });
    return { kind: "chat", messages: [...prompt, ...completion], supervisedFrom: prompt.length };
  }
  const prompt = stringAt(row.prompt, place, "prompt");
  const completion = stringAt(row.completion, place, "completion");
  if (completion === "") {
    throw rowError("ZA_EMPTY_ANSWER", place, "completion", "the completion is empty", "Remove the row.");
  }
  return { kind: "prompt-completion", prompt, completion };
}

/** `{text}`, not empty. */
export function sftFromText(raw: unknown, place: Place): SftRow {
  const text = stringAt(raw, place, "text");
  if (text === "") throw rowError("ZA_DATA_ROW", place, "text", "the text is empty", "Remove the row.");
  return { kind: "text", text };
}
