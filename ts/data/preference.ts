import { DataError, type Place } from "../errors";
import type { ConvertOptions } from "./formats";
import {
  checkOrder,
  type Message,
  messagesAt,
  rowError,
  sameMessages,
  stringAt,
  withoutLeadingAssistant,
} from "./messages";

/** A preference pair. `prompt` ends with the user; both answers begin and end with the assistant. */
export type PairRow =
  | { kind: "chat"; prompt: Message[]; chosen: Message[]; rejected: Message[] }
  | { kind: "text"; prompt: string; chosen: string; rejected: string };

type RawRow = Record<string, unknown>;

/**
 * `{prompt, chosen, rejected}` or `{chosen, rejected}`.
 *
 * - all strings: text;
 * - answers as lists that begin with the assistant: the prompt is the column `prompt` (a list, or a string that becomes
 *   one user turn);
 * - answers as whole conversations (ultrafeedback_binarized, implicit prompt): the prompt is their longest common
 *   beginning. As in the handbook, a string in the column `prompt` is then not used.
 */
export function pairFromColumns(row: RawRow, place: Place, options: ConvertOptions): PairRow {
  if (typeof row.chosen === "string" || typeof row.rejected === "string") return textPair(row, place, options);
  const chosen = answerMessages(row.chosen, place, "chosen");
  const rejected = answerMessages(row.rejected, place, "rejected");
  const whole = chosen[0]?.role !== "assistant" || rejected[0]?.role !== "assistant" || row.prompt === undefined;
  if (whole) {
    if (Array.isArray(row.prompt)) checkStartsWith(messagesAt(row.prompt, place, "prompt"), chosen, rejected, place);
    return splitConversations(chosen, rejected, row, place, options);
  }
  const prompt =
    typeof row.prompt === "string"
      ? [{ role: "user" as const, content: stringAt(row.prompt, place, "prompt") }]
      : messagesAt(row.prompt, place, "prompt");
  return chatPair(prompt, chosen, rejected, row, "prompt", row.prompt, place, options);
}

/** `{conversations, chosen, rejected}` of from/value data: the conversation is the prompt, the answers single turns. */
export function pairFromConversation(row: RawRow, place: Place, options: ConvertOptions): PairRow {
  const prompt = messagesAt(row.conversations, place, "conversations");
  const chosen = answerMessages(row.chosen, place, "chosen");
  const rejected = answerMessages(row.rejected, place, "rejected");
  return chatPair(prompt, chosen, rejected, row, "conversations", row.conversations, place, options);
}

/** A list of messages, or one message alone. */
function answerMessages(raw: unknown, place: Place, field: string): Message[] {
  const alone = typeof raw === "object" && raw !== null && !Array.isArray(raw);
  return messagesAt(alone ? [raw] : raw, place, field);
}

function chatPair(
  all: Message[],
  chosen: Message[],
  rejected: Message[],
  row: RawRow,
  promptField: string,
  rawPrompt: unknown,
  place: Place,
  options: ConvertOptions,
): PairRow {
  let prompt = all;
  let offset = 0;
  if (options.dropLeadingAssistant) {
    const cut = withoutLeadingAssistant(all);
    prompt = cut.messages;
    offset = all[0]?.role === "system" ? 0 : cut.dropped;
    if (options.counts) options.counts.droppedLeadingAssistant += cut.dropped;
  }
  checkOrder(prompt, place, { field: promptField, raw: rawPrompt, first: "user", last: "user", offset });
  checkOrder(chosen, place, { field: "chosen", raw: row.chosen, first: "assistant", last: "assistant" });
  checkOrder(rejected, place, { field: "rejected", raw: row.rejected, first: "assistant", last: "assistant" });
  if (sameMessages(chosen, rejected)) equalPair(place, options);
  return { kind: "chat", prompt, chosen, rejected };
}

/** Two whole conversations: the prompt is what both begin with. */
function splitConversations(
  chosen: Message[],
  rejected: Message[],
  row: RawRow,
  place: Place,
  options: ConvertOptions,
): PairRow {
  checkOrder(chosen, place, { field: "chosen", raw: row.chosen, first: "user", last: "assistant" });
  checkOrder(rejected, place, { field: "rejected", raw: row.rejected, first: "user", last: "assistant" });
  let common = 0;
  while (common < chosen.length && common < rejected.length && sameMessages([chosen[common]!], [rejected[common]!])) {
    common++;
  }
  if (common === chosen.length && common === rejected.length) {
    equalPair(place, options);
    common--;
  }
  // The last common message is a user turn exactly when the conversations part at an answer.
  if (chosen[common - 1]?.role !== "user" || rejected[common]?.role !== "assistant") {
    throw rowError(
      "ZA_DATA_ROW",
      place,
      `rejected[${Math.min(common, rejected.length - 1)}]`,
      common === 0
        ? "chosen and rejected do not begin with the same prompt"
        : "chosen and rejected part at a user turn or where one of them ends, not at an answer",
      "Both must be answers to the same prompt.",
    );
  }
  return {
    kind: "chat",
    prompt: chosen.slice(0, common),
    chosen: chosen.slice(common),
    rejected: rejected.slice(common),
  };
}

function checkStartsWith(prompt: Message[], chosen: Message[], rejected: Message[], place: Place): void {
  for (const [field, answer] of [
    ["chosen", chosen],
    ["rejected", rejected],
  ] as const) {
    if (!sameMessages(prompt, answer.slice(0, prompt.length))) {
      const problem = "the answer is a whole conversation that does not begin with the prompt";
      throw rowError("ZA_DATA_ROW", place, field, problem, "Give only the answer, or repeat the prompt exactly.");
    }
  }
}

function textPair(row: RawRow, place: Place, options: ConvertOptions): PairRow {
  let prompt: string;
  let chosen = stringAt(row.chosen, place, "chosen");
  let rejected = stringAt(row.rejected, place, "rejected");
  if (row.prompt === undefined) {
    const length = commonLength(chosen, rejected);
    prompt = chosen.slice(0, length);
    chosen = chosen.slice(length);
    rejected = rejected.slice(length);
    if (prompt === "") {
      const problem = "chosen and rejected do not begin with the same prompt";
      throw rowError("ZA_DATA_ROW", place, "rejected", problem, "Give the column prompt.");
    }
  } else prompt = stringAt(row.prompt, place, "prompt");
  // Checked first: without a prompt column, equal texts leave two empty answers.
  if (chosen === rejected && (row.prompt !== undefined || chosen !== "")) equalPair(place, options);
  for (const [field, answer] of [
    ["chosen", chosen],
    ["rejected", rejected],
  ] as const) {
    if (answer === "") {
      const problem = "the answer is empty (or no longer than what both have in common)";
      throw rowError("ZA_EMPTY_ANSWER", place, field, problem, "Remove the row, or give the column prompt.");
    }
  }
  return { kind: "text", prompt, chosen, rejected };
}

/** As TRL's extract_prompt: one character less when the common part ends in a space; never inside a surrogate pair. */
function commonLength(a: string, b: string): number {
  let length = 0;
  while (length < a.length && length < b.length && a[length] === b[length]) length++;
  if (length > 0 && (a.charCodeAt(length - 1) & 0xfc00) === 0xd800) length--;
  return length > 0 && length < Math.min(a.length, b.length) && a[length - 1] === " " ? length - 1 : length;
}

function equalPair(place: Place, options: ConvertOptions): void {
  if (options.counts) options.counts.equalPairs++;
  if (options.onEqualPair === "error") {
    throw new DataError("ZA_DATA_EQUAL_PAIR", "chosen and rejected are the same", {
      place: { ...place, field: "rejected" },
      remedy: 'Remove the row, or pass onEqualPair: "count" to keep such rows and have them counted.',
    });
  }
}
