/** Texts and conversations on their way to the core, which takes UTF-8 alone. */
import { type Message, typeName } from "../data/messages";
import { brokenCharacter, brokenCharacterRemedy } from "../data/well-formed";
import { DataError } from "../errors";

/** @throws DataError `ZA_MESSAGE_CONTENT` for a text that holds half a character */
export function wholeText(text: string, field: string): string {
  const problem = typeof text === "string" ? brokenCharacter(text) : undefined;
  if (problem === undefined) return text;
  throw new DataError("ZA_MESSAGE_CONTENT", problem, { place: { field }, remedy: brokenCharacterRemedy });
}

/** A conversation as the core reads it. */
export function messagesJson(messages: readonly Message[], field = "messages"): string {
  if (!Array.isArray(messages)) {
    throw new DataError("ZA_MESSAGE", `expected a list of messages, found ${typeName(messages)}`, {
      place: { field },
      remedy: "Give a list of {role, content}.",
    });
  }
  for (const [i, message] of messages.entries()) {
    for (const [key, value] of Object.entries(message ?? {})) wholeText(value as string, `${field}[${i}].${key}`);
  }
  return JSON.stringify(messages);
}
