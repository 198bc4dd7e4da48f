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

  /** Generates the answer with a number among those of the request. */
  generate(prompt: Uint32Array, sampling: RequestSampling, index: number, choice: ChoiceOptions): Promise<Generated> {
    const { engine, ticket, served, signal } = this;
    const { temperature, topP, topK, minP, repetitionPenalty, stop, reuse } = sampling;
    const { maxTokens, topLogprobs, grammar, onToken } = choice;
    const options = {
      ...{ temperature, topP, topK, minP, repetitionPenalty, stop, reuse, maxTokens, signal },
      seed: sampling.seed + index,
      ...(topLogprobs === undefined ? {} : { logprobs: topLogprobs }),
      ...(onToken ? { onToken: this.#watched(onToken) } : {}),
    } satisfies GenerateOptions;
    if (grammar) {
      const run = () => constrainedAnswer(served.model, prompt, grammar, options);
      return engine.answerBy(ticket, served.name, signal, run);
    }
    return engine.answer(ticket, { name: served.name, model: served.model, prompt, options });
  }

  #watched(onToken: (piece: string) => void): (piece: string) => void {
    return (piece) => {
      if (this.signal.aborted) return;
      this.onFirstText();
      onToken(piece);
    };
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
