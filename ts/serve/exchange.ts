/** A request in work: its turn, its end, its figures. */
import type { Generated, GenerateOptions } from "../model/generation";
import { constrainedAnswer } from "./constrained/answer";
import type { Grammar } from "./constrained/grammar";
import type { Engine, Ticket } from "./engine";
import type { RequestSampling } from "./sampling";
import type { ServedModel } from "./served-model";

/** Tokens as answers report them. */
export interface UsageReport {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
}

/** What the answer to one prompt is made of, besides how it is sampled. */
export interface ChoiceOptions {
  maxTokens: number;
  topLogprobs: number | undefined;
  grammar?: Grammar | undefined;
  onToken?: (piece: string) => void;
}

/** What both kinds of completions need to make their answers. */
export class Exchange {
  readonly id: string;
  /** Seconds since 1970. */
  readonly created = Math.floor(Date.now() / 1000);

  constructor(
    readonly engine: Engine,
    readonly served: ServedModel,
    readonly ticket: Ticket,
    /** Fires when nobody waits any more: the client left, the time is over, the server stops, another choice failed. */
    readonly signal: AbortSignal,
    kind: "chatcmpl" | "cmpl",
    /** Called with the first text that is sent. */
    readonly onFirstText: () => void,
  ) {
    this.id = `${kind}-${crypto.randomUUID().replaceAll("-", "")}`;
  }

  /** Generates the answer with a number among those of the request. An answer that is cut ends with a whole character. */
  async generate(
    prompt: Uint32Array,
    sampling: RequestSampling,
    index: number,
    choice: ChoiceOptions,
  ): Promise<Generated> {
    const { engine, ticket, served, signal } = this;
    const { temperature, topP, topK, minP, repetitionPenalty, stop, reuse } = sampling;
    const { maxTokens, topLogprobs, grammar, onToken } = choice;
    const pieces = onToken && new WholeCharacters((piece) => this.#say(piece, onToken));
    const options = {
      ...{ temperature, topP, topK, minP, repetitionPenalty, stop, reuse, maxTokens, signal },
      seed: sampling.seed + index,
      ...(topLogprobs === undefined ? {} : { logprobs: topLogprobs }),
      ...(pieces ? { onToken: (piece: string) => pieces.push(piece) } : {}),
    } satisfies GenerateOptions;
    const { name, model } = served;
    const answer = grammar
      ? await engine.answerBy(ticket, name, signal, () => constrainedAnswer(model, prompt, grammar, options))
      : await engine.answer(ticket, { name, model, prompt, options });
    if (answer.finishReason === "length") return { ...answer, text: answer.text.replace(partsAtEnd, "") };
    pieces?.end();
    return answer;
  }

  #say(piece: string, onToken: (piece: string) => void): void {
    if (this.signal.aborted) return;
    this.onFirstText();
    onToken(piece);
  }
}

/** Bytes at the end of a text that are not yet a character. */
const partsAtEnd = /\uFFFD+$/;

/** Keeps what may be part of a character until it is known that it is none. */
class WholeCharacters {
  readonly #send: (piece: string) => void;
  #kept = "";

  constructor(send: (piece: string) => void) {
    this.#send = send;
  }

  push(piece: string): void {
    const text = this.#kept + piece;
    const whole = text.replace(partsAtEnd, "");
    this.#kept = text.slice(whole.length);
    if (whole !== "") this.#send(whole);
  }

  /** The text ends here by itself. */
  end(): void {
    if (this.#kept !== "") this.#send(this.#kept);
    this.#kept = "";
  }
}

export function usageOf(promptTokens: number, answers: readonly Pick<Generated, "ids">[]): UsageReport {
  const completionTokens = answers.reduce((sum, { ids }) => sum + ids.length, 0);
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
  };
}

/** 0 to count − 1. */
export function indices(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index);
}
