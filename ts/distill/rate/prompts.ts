/** The prompts that are answered and rated, from rows of several kinds. */

import type { Dataset } from "../../data";
import { checkOrder, type Message, messagesAt } from "../../data/messages";
import { DataError, type Place } from "../../errors";
import { promptId } from "../prompt-id";

/** Which user turns of a conversation are prompts. */
export const turnChoices = ["first", "last", "all"] as const;

/** A key of {@link turnChoices}. */
export type TurnChoice = (typeof turnChoices)[number];

/** Something to answer: the last message, and what was said before. */
export interface FeedbackPrompt {
  source: string;
  instruction: string;
  history: Message[];
  /** What the rater is told: answers known to be right or wrong. */
  correctAnswers: string[];
  incorrectAnswers: string[];
}

/** A prompt as one text: its messages with blank lines between them; that of one message is the message. */
export function promptText({ history, instruction }: Pick<FeedbackPrompt, "history" | "instruction">): string {
  return [...history.map(({ content }) => content), instruction].join("\n\n");
}

/** `prompt_id` of a prompt. */
export function feedbackId(prompt: Pick<FeedbackPrompt, "history" | "instruction">): string {
  return promptId(promptText(prompt));
}

/** How rows become prompts. */
export interface PromptOptions {
  /**
   * Which user turns of a conversation are prompts: the first, as in UltraFeedback, the last with what was said before, or
   * each. @default "last"
   */
  turns?: TurnChoice;
  /** Source of rows without the column. @default "prompts" */
  source?: string;
}

/**
 * Reads prompts out of rows: `{messages}` or `{conversations}` (a last answer is cut off), `{prompt}` as text or messages,
 * or `{instruction}` (raw UltraFeedback, whose answers are not used). Throws the row's own error at the first bad one.
 */
export async function* feedbackPrompts(
  rows: Dataset<unknown>,
  options: PromptOptions = {},
): AsyncGenerator<FeedbackPrompt> {
  for await (const row of rows.rows()) {
    if (row.error) throw row.error;
    yield* promptsOf(row.value, row.place, options);
  }
}

function promptsOf(
  value: unknown,
  place: Place,
  { turns = "last", source = "prompts" }: PromptOptions,
): FeedbackPrompt[] {
  const row = (typeof value === "object" && value !== null ? value : {}) as Record<string, unknown>;
  const texts = (list: unknown) => (Array.isArray(list) ? list.filter((each) => typeof each === "string") : []);
  const common = {
    source: typeof row.source === "string" ? row.source : source,
    correctAnswers: texts(row.correct_answers),
    incorrectAnswers: texts(row.incorrect_answers),
  };
  return conversationsOf(row, place, turns).map((messages) => ({
    ...common,
    instruction: messages.at(-1)!.content,
    history: messages.slice(0, -1),
  }));
}

/** The conversations up to each user turn that is wanted. */
function conversationsOf(row: Record<string, unknown>, place: Place, turns: TurnChoice): Message[][] {
  const field = ["messages", "conversations", "prompt", "instruction"].find((name) => row[name] !== undefined);
  const value = field === undefined ? undefined : row[field];
  if (field === undefined) {
    const columns = Object.keys(row).join(", ") || "(none)";
    throw new DataError("ZA_DATA_FORMAT", `the columns ${columns} hold no prompts`, {
      place,
      remedy: "Give one of {messages} | {conversations} | {prompt} | {instruction}.",
    });
  }
  const messages: Message[] =
    typeof value === "string" ? [{ role: "user", content: value }] : messagesAt(value, place, field);
  checkOrder(messages, place, { field, raw: value, first: "user" });
  const ends = messages.flatMap(({ role }, index) => (role === "user" ? [index] : []));
  const wanted = turns === "all" ? ends : [turns === "first" ? ends[0] : ends.at(-1)];
  const found = wanted.filter((index) => index !== undefined).map((index) => messages.slice(0, index + 1));
  for (const each of found) {
    if (each.at(-1)!.content.trim() !== "") continue;
    throw new DataError("ZA_DATA_ROW", "the prompt is empty", {
      place: { ...place, field },
      remedy: "Remove the row.",
    });
  }
  return found;
}
