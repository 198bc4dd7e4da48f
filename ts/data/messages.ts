import { ConfigError, DataError, type Place } from "../errors";
import { brokenCharacter, brokenCharacterRemedy } from "./well-formed";

/** Who speaks. */
export type Role = "system" | "user" | "assistant";

/** One turn of a conversation. */
export interface Message {
  role: Role;
  content: string;
}

/** Speakers of from/value rows (ShareGPT and its relatives) and the role each stands for. */
const rolesBySpeaker: Readonly<Record<string, Role>> = {
  system: "system",
  human: "user",
  user: "user",
  gpt: "assistant",
  chatgpt: "assistant",
  bing: "assistant",
  bard: "assistant",
  model: "assistant",
  assistant: "assistant",
};

const roles: readonly string[] = ["system", "user", "assistant"];

/** A {@link DataError} at a field of a row. */
export function rowError(
  code: "ZA_DATA_ROW" | "ZA_DATA_ENCODING" | "ZA_ROLE_ORDER" | "ZA_EMPTY_ANSWER" | "ZA_DATA_NO_ANSWER",
  place: Place,
  field: string,
  problem: string,
  remedy: string,
): DataError {
  return new DataError(code, problem, { place: { ...place, field }, remedy });
}

/** Names the type of a value for messages; a promise that was not awaited is called so. */
export function typeName(value: unknown): string {
  if (value === undefined) return "nothing";
  if (value === null) return "null";
  if (value instanceof Promise) return "a promise";
  return Array.isArray(value) ? "an array" : typeof value === "object" ? "an object" : `a ${typeof value}`;
}

/** The refusal of an argument that plain JavaScript gave. */
export function argumentError(field: string, expected: string, found: unknown, remedy: string): ConfigError {
  return new ConfigError("ZA_ARGUMENT", `expected ${expected}, found ${typeName(found)}`, { place: { field }, remedy });
}

/** The string at a field; anything else, and half a character in it, is refused. */
export function stringAt(value: unknown, place: Place, field: string): string {
  if (typeof value === "string") {
    const broken = brokenCharacter(value);
    if (broken === undefined) return value;
    throw rowError("ZA_DATA_ROW", place, field, broken, brokenCharacterRemedy);
  }
  throw rowError(
    "ZA_DATA_ROW",
    place,
    field,
    value === undefined ? "the field is missing" : `expected a string, found ${typeName(value)}`,
    Array.isArray(value)
      ? "Content must be text: join text parts into one string; images and tools are not supported."
      : "Give the field a string in every row.",
  );
}

/**
 * Reads a list of messages, `{role, content}` or from/value. The order of roles is not checked here.
 *
 * @param field path of the list in the row, for example `messages`
 */
export function messagesAt(value: unknown, place: Place, field: string): Message[] {
  if (!Array.isArray(value)) {
    const found =
      value === undefined ? "the field is missing" : `expected a list of messages, found ${typeName(value)}`;
    throw rowError("ZA_DATA_ROW", place, field, found, "Give a list of {role, content}.");
  }
  if (value.length === 0) {
    throw rowError("ZA_DATA_ROW", place, field, "the list of messages is empty", "Remove the row.");
  }
  return value.map((item, i) => messageAt(item, place, `${field}[${i}]`));
}

function messageAt(value: unknown, place: Place, field: string): Message {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    const problem = `expected a message {role, content}, found ${typeName(value)}`;
    throw rowError("ZA_DATA_ROW", place, field, problem, "Give every message as an object.");
  }
  const item = value as Record<string, unknown>;
  if (!("role" in item) && ("from" in item || "value" in item)) {
    const speaker = stringAt(item.from, place, `${field}.from`);
    const role = Object.hasOwn(rolesBySpeaker, speaker) ? rolesBySpeaker[speaker] : undefined;
    if (role === undefined) {
      const known = Object.keys(rolesBySpeaker).join(", ");
      throw rowError("ZA_ROLE_ORDER", place, `${field}.from`, `unknown speaker "${speaker}"`, `Known are ${known}.`);
    }
    return { role, content: stringAt(item.value, place, `${field}.value`) };
  }
  const role = stringAt(item.role, place, `${field}.role`);
  if (!roles.includes(role)) {
    const remedy = "Known are system, user and assistant; map other roles to these or remove the row.";
    throw rowError("ZA_ROLE_ORDER", place, `${field}.role`, `unknown role "${role}"`, remedy);
  }
  return { role: role as Role, content: stringAt(item.content, place, `${field}.content`) };
}

/** Whether a list is written as from/value; decides how field paths are spelled. */
function isFromValue(raw: unknown): boolean {
  const first = Array.isArray(raw) ? raw[0] : undefined;
  return typeof first === "object" && first !== null && "from" in first && !("role" in first);
}

/** What may stand at the beginning and must stand at the end of a list of messages. */
export interface OrderRules {
  /** Path of the list, for places. */
  field: string;
  /** The list as it stands in the row: places are spelled as the row is written. */
  raw?: unknown;
  /** Role of the first message after an optional system message. */
  first: "user" | "assistant";
  /** Role that the last message must have; any when left out. */
  last?: "user" | "assistant";
  /** Index in the row of the first message, when some were taken off. */
  offset?: number;
}

/**
 * Checks the order of roles: a system message only at the very start, then user and assistant in turn. Empty assistant
 * turns are refused: they teach the model to say nothing. Empty user and system turns are allowed.
 */
export function checkOrder(messages: readonly Message[], place: Place, rules: OrderRules): void {
  const offset = rules.offset ?? 0;
  const [roleKey, contentKey] = isFromValue(rules.raw) ? ["from", "value"] : ["role", "content"];
  const path = (i: number, key: string) => `${rules.field}[${i + offset}].${key}`;
  let expected: Role = rules.first;
  for (const [i, { role, content }] of messages.entries()) {
    if (role === "system") {
      if (i + offset === 0 && rules.first === "user") continue;
      const remedy = "Move the system message to the start, or remove the row.";
      throw rowError("ZA_ROLE_ORDER", place, path(i, roleKey), "a system message may stand only first", remedy);
    }
    if (role !== expected) {
      const twice = i > 0 && messages[i - 1]?.role === role;
      throw rowError(
        "ZA_ROLE_ORDER",
        place,
        path(i, roleKey),
        twice ? `two ${role} turns in a row` : `expected the ${expected}, found the ${role}`,
        !twice && role === "assistant" && rules.first === "user"
          ? "Conversations begin with the user: remove the assistant turns before it (in code, dropLeadingAssistant: true cuts them)."
          : "User and assistant must take turns: join the turns or remove the row.",
      );
    }
    if (role === "assistant" && content.trim() === "") {
      const remedy = "Remove the row or the turn: an empty answer teaches the model to say nothing.";
      throw rowError("ZA_EMPTY_ANSWER", place, path(i, contentKey), "the assistant turn is empty", remedy);
    }
    expected = role === "user" ? "assistant" : "user";
  }
  const last = messages.at(-1);
  if (rules.last && last?.role !== rules.last) {
    throw rowError(
      "ZA_ROLE_ORDER",
      place,
      messages.length > 0 ? path(messages.length - 1, roleKey) : rules.field,
      `expected the ${rules.last} to speak last`,
      rules.last === "user" ? "A prompt ends with a user turn." : "An answer ends with an assistant turn.",
    );
  }
}

/** Cuts assistant turns that stand before the first user turn (many ShareGPT rows begin with one). */
export function withoutLeadingAssistant(messages: readonly Message[]): { messages: Message[]; dropped: number } {
  const system = messages[0]?.role === "system" ? [messages[0]] : [];
  let at = system.length;
  while (messages[at]?.role === "assistant") at++;
  return { messages: [...system, ...messages.slice(at)], dropped: at - system.length };
}

/** Whether two lists of messages are the same. */
export function sameMessages(a: readonly Message[], b: readonly Message[]): boolean {
  return (
    a.length === b.length && a.every((message, i) => message.role === b[i]?.role && message.content === b[i]?.content)
  );
}
