/**
 * Chat completions as OpenAI's API writes them, read in one place: from a server, put together from a stream, out of a
 * batch, out of the journal.
 */
import { ClientError } from "../errors";
import type { ChatLogprob, ChatResponse, Usage } from "./chat-model";

/** What an answer says, whoever asked for it. */
export type Completion = Pick<ChatResponse, "text" | "finishReason" | "model" | "usage" | "logprobs">;

type Json = Record<string, unknown>;

/**
 * Reads the body of a chat completion. The first choice is the answer; a refusal is an answer that was filtered.
 *
 * @throws ClientError `ZA_CLIENT_ANSWER` when it is none, with the body in `call`: it may have been paid for.
 */
export function readCompletion(body: string): Completion {
  let parsed: unknown;
  try {
    parsed = JSON.parse(body);
  } catch {
    throw noAnswer("it is not JSON", body);
  }
  if (!isObject(parsed)) throw noAnswer("it is not an object", body);
  const [choice] = Array.isArray(parsed.choices) ? parsed.choices : [];
  if (!isObject(choice) || !isObject(choice.message)) throw noAnswer("it has no choices[0].message", body);
  const { content, refusal } = choice.message;
  if (content !== undefined && content !== null && typeof content !== "string") {
    throw noAnswer("choices[0].message.content is not text", body);
  }
  const refused = typeof refusal === "string" && refusal !== "";
  const logprobs = logprobsOf(choice.logprobs);
  return {
    text: content ? content : refused ? refusal : "",
    finishReason: refused ? "filtered" : finishReasonOf(choice.finish_reason),
    model: typeof parsed.model === "string" ? parsed.model : "",
    usage: usageOf(parsed.usage),
    ...(logprobs ? { logprobs } : {}),
  };
}

/** An answer of something that is no server, in the same form. */
export function completionBody({ text, finishReason, model, usage, logprobs }: Completion): string {
  return JSON.stringify({
    object: "chat.completion",
    model,
    choices: [
      {
        index: 0,
        message: { role: "assistant", content: text },
        finish_reason: finishReason === "filtered" ? "content_filter" : finishReason,
        ...(logprobs
          ? {
              logprobs: {
                content: logprobs.map(({ token, logprob, top }) => ({ token, logprob, top_logprobs: top })),
              },
            }
          : {}),
      },
    ],
    ...(usage ? { usage: { prompt_tokens: usage.promptTokens, completion_tokens: usage.completionTokens } } : {}),
  });
}

/** Puts the chunks of a stream together to the body of a completion. */
export class StreamedCompletion {
  #head: Json = {};
  #text = "";
  #refusal = "";
  #finish: unknown;
  #usage: unknown;
  #sawChoice = false;
  readonly #logprobs: unknown[] = [];

  /** Adds a chunk; returns its piece of text. A chunk without choices brings the usage. */
  add(chunk: unknown): string {
    if (!isObject(chunk)) return "";
    const { choices, usage, ...head } = chunk;
    this.#head = { ...head, ...this.#head };
    if (isObject(usage)) this.#usage = usage;
    const [choice] = Array.isArray(choices) ? choices : [];
    if (!isObject(choice)) return "";
    this.#sawChoice = true;
    if (typeof choice.finish_reason === "string") this.#finish = choice.finish_reason;
    if (isObject(choice.logprobs) && Array.isArray(choice.logprobs.content)) {
      this.#logprobs.push(...choice.logprobs.content);
    }
    if (!isObject(choice.delta)) return "";
    const { content, refusal } = choice.delta;
    if (typeof refusal === "string") this.#refusal += refusal;
    if (typeof content !== "string") return "";
    this.#text += content;
    return content;
  }

  /** Whether the server said that the answer is complete: a stream may also just break off. */
  get finished(): boolean {
    return this.#sawChoice && this.#finish !== undefined;
  }

  /** The completion so far. */
  body(): string {
    return JSON.stringify({
      ...this.#head,
      object: "chat.completion",
      choices: [
        {
          index: 0,
          message: {
            role: "assistant",
            content: this.#text,
            ...(this.#refusal === "" ? {} : { refusal: this.#refusal }),
          },
          finish_reason: this.#finish ?? null,
          ...(this.#logprobs.length > 0 ? { logprobs: { content: this.#logprobs } } : {}),
        },
      ],
      ...(this.#usage === undefined ? {} : { usage: this.#usage }),
    });
  }
}

function noAnswer(why: string, body: string): ClientError {
  const beginning = body.length > 120 ? `${body.slice(0, 120)}…` : body;
  return new ClientError("ZA_CLIENT_ANSWER", `the server's answer is no chat completion, ${why}: ${beginning}`, {
    remedy: "Check that the address is that of an OpenAI-compatible API (it mostly ends in /v1).",
    call: { retry: true, billed: "possibly", body, status: 200 },
  });
}

function finishReasonOf(reason: unknown): Completion["finishReason"] {
  if (reason === "length") return "length";
  return reason === "content_filter" ? "filtered" : "stop";
}

function usageOf(usage: unknown): Usage | null {
  if (!isObject(usage)) return null;
  const { prompt_tokens, completion_tokens } = usage;
  if (!isCount(prompt_tokens) || !isCount(completion_tokens)) return null;
  return { promptTokens: prompt_tokens, completionTokens: completion_tokens };
}

function logprobsOf(logprobs: unknown): ChatLogprob[] | undefined {
  if (!isObject(logprobs) || !Array.isArray(logprobs.content)) return undefined;
  return logprobs.content.filter(isObject).map((each) => ({
    ...tokenOf(each),
    top: (Array.isArray(each.top_logprobs) ? each.top_logprobs : [])
      .filter(isObject)
      .map(tokenOf)
      .sort((a, b) => b.logprob - a.logprob),
  }));
}

function tokenOf({ token, logprob }: Json): { token: string; logprob: number } {
  return { token: String(token), logprob: typeof logprob === "number" ? logprob : Number.NEGATIVE_INFINITY };
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isFinite(value) && value >= 0;
}

function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
