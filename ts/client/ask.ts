/** Asking for something that can be parsed: one question, one parser, re-asked when the answer has no place for it. */
import type { Message } from "../data/messages";
import type { ChatModel, ChatRequest, ChatResponse } from "./chat-model";

/** What was read out of an answer, or why nothing could be. */
export type Parsed<T> = { value: T; problem?: undefined } | { problem: string; value?: undefined };

/** A parsed answer, or what failed; `tries` holds every answer in order, the last is the one that was parsed. */
export type Asked<T> = Parsed<T> & { tries: readonly ChatResponse[] };

/** Options of {@link ask}. */
export interface AskOptions {
  /** Times that the model is asked again after an answer that cannot be parsed. @default 1 */
  reasks?: number;
  /**
   * The messages of the next try. @default the conversation, the answer, and a sentence that says what was wrong with it
   */
  reask?: (messages: readonly Message[], answer: string, problem: string) => readonly Message[];
}

/**
 * Asks, parses, and asks again if the answer has not the form that was asked for. An answer that cannot be parsed is
 * rejected in the journal (kept, and never replayed as a success). A failure is a result, not an exception: callers list it.
 */
export async function ask<T>(
  model: ChatModel,
  request: ChatRequest,
  parse: (text: string, response: ChatResponse) => Parsed<T>,
  options: AskOptions = {},
): Promise<Asked<T>> {
  const { reasks = 1, reask = corrected } = options;
  const tries: ChatResponse[] = [];
  let messages = request.messages;
  for (;;) {
    const response = await model.complete({ ...request, messages });
    tries.push(response);
    const parsed = parse(response.text, response);
    if (parsed.problem === undefined) return { ...parsed, tries };
    await response.reject?.(parsed.problem);
    if (tries.length > reasks) return { ...parsed, tries };
    messages = reask(messages, response.text, parsed.problem);
  }
}

function corrected(messages: readonly Message[], answer: string, problem: string): readonly Message[] {
  return [
    ...messages,
    { role: "assistant", content: answer },
    { role: "user", content: `That can't be read: ${problem}. Answer again, in exactly the form that was asked for.` },
  ];
}
