/** What is written down of a call that ended, and what it counts for. */
import type { NativeSettled } from "../../bindings/node/index";
import type { CallFailure } from "../errors";
import type { Use } from "./budget";
import type { ChatRequest } from "./chat-model";
import type { Completion } from "./completion";
import { type ModelFacts, priceOf } from "./model-facts";
import type { RawAnswer } from "./raw-chat-model";

/** What a call uses, but for being one call. */
export type Amount = Omit<Use, "calls">;

/** The most that a call can use. Dollars are undefined without a price. */
export interface Worst {
  tokens: number;
  dollars: number | undefined;
}

/**
 * The most that a call can use. A token stands for one byte at least, so the bytes of the question bound its tokens; what
 * templates and system texts of the server add is allowed for.
 *
 * @param share of the price that is to be paid, for batches
 */
export function worstOf(request: ChatRequest, facts: ModelFacts | undefined, share: number): Worst {
  const { schema, maxTokens } = request.sampling;
  const bytes = questionBytes(request) + (schema ? 2 * Buffer.byteLength(JSON.stringify(schema)) : 0);
  const allowance = 256 + 16 * request.messages.length;
  const promptTokens = Math.min(bytes + allowance, facts?.context ?? Number.POSITIVE_INFINITY);
  const dollars = facts && share * priceOf(facts, { promptTokens, completionTokens: maxTokens });
  return { tokens: promptTokens + maxTokens, dollars };
}

/** Tokens that a call will use by rule of thumb, four bytes each, with the longest answer: as providers count for rates. */
export function usualTokens(request: ChatRequest): number {
  return Math.ceil(questionBytes(request) / 4) + request.sampling.maxTokens;
}

export function questionBytes({ messages }: ChatRequest): number {
  return messages.reduce((sum, { content }) => sum + Buffer.byteLength(content), 0);
}

/** An answer, as the journal keeps it. Without a usage nobody knows what it cost: it counts at its worst. */
export function settledAnswer(
  call: number,
  raw: RawAnswer,
  { usage }: Completion,
  facts: ModelFacts | undefined,
  share: number,
): NativeSettled {
  return {
    call,
    done: true,
    ...(usage ? { billed: true, promptTokens: usage.promptTokens, completionTokens: usage.completionTokens } : {}),
    ...(usage && facts ? { cost: share * priceOf(facts, usage) } : {}),
    ...(raw.status === undefined ? {} : { status: raw.status }),
    ...(raw.requestId === undefined ? {} : { providerId: raw.requestId }),
    response: raw.body,
  };
}

/** A failure, as the journal keeps it. */
export function settledFailure(call: number, problem: string, failure: CallFailure): NativeSettled {
  return {
    call,
    done: false,
    note: problem,
    ...(failure.billed === "no" ? { billed: false } : {}),
    ...(failure.status === undefined ? {} : { status: failure.status }),
    ...(failure.requestId === undefined ? {} : { providerId: failure.requestId }),
    ...(failure.body === undefined ? {} : { response: failure.body }),
  };
}

/** What a settled call counts for in the caps. */
export function amountOf(settled: NativeSettled, worst: Worst): Amount | "nothing" {
  if (settled.billed === false) return "nothing";
  const { promptTokens = 0, completionTokens = 0, cost } = settled;
  if (settled.billed === undefined) return { tokens: worst.tokens, dollars: worst.dollars ?? 0 };
  return { tokens: promptTokens + completionTokens, dollars: cost ?? 0 };
}
