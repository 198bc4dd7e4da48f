/** What generating takes and gives, and how it goes to the core and back. */
import type { NativeDecoding, NativeGenerated } from "../../bindings/node/index";
import { checkGenerateOptions, seedOf } from "./generate-options";
import type { EncodeOptions, Tokenizer } from "./tokenizer";

/** Decoding options; names and order of application as in transformers. */
export interface GenerateOptions extends EncodeOptions {
  /** @default 256 */
  maxTokens?: number;
  /** 0 is greedy. @default 0 */
  temperature?: number;
  /** 0 is off. @default 0 */
  topK?: number;
  /** 1 is off. @default 1 */
  topP?: number;
  /** 0 is off. @default 0 */
  minP?: number;
  /** 1 is off. @default 1 */
  repetitionPenalty?: number;
  /** A whole number; the same seed gives the same text. @default 0 */
  seed?: number;
  /** Texts that end the answer; they are not part of it. */
  stop?: string | readonly string[];
  /** Stops the generation; the call rejects with `AbortedError`. */
  signal?: AbortSignal;
  /** Called with each finished piece of text; the pieces joined are the answer. */
  onToken?: (piece: string) => void;
  /**
   * Log-probabilities of the answer's tokens, with so many of the most probable tokens at each place (0 to 100; `true`
   * is 0). They are the model's own: temperature 1, no penalty, no filter. @default none
   */
  logprobs?: boolean | number;
  /**
   * How keys and values are kept. "float16" and "q8" (8 bits) take a half and a quarter of the memory. Not on a card, which
   * keeps them in the type that it computes in.
   * @default "float16" under weights that are kept as in a GGUF file, else "float32"
   */
  kvCache?: "float32" | "float16" | "q8";
  /**
   * Keeps keys and values of this text for the next call that reuses, whose prompt may begin in the same way: then only
   * what is new is computed, as in a chat. The last bits may differ from those of a prompt computed whole.
   * @default false
   */
  reuse?: boolean;
}

/** Why a generation ended: an end token or stop text, or the limit of tokens or context. */
export type FinishReason = "stop" | "length";

/** A token with its log-probability, in nats. */
export interface TokenLogprob {
  id: number;
  /** Its text alone; part of a character is U+FFFD. */
  token: string;
  logprob: number;
}

/** A token of an answer. */
export interface AnswerLogprob extends TokenLogprob {
  /** The most probable tokens at its place, the most probable first; as many as `logprobs` asks for. */
  top: readonly TokenLogprob[];
}

/** A generated answer. */
export interface Generated {
  text: string;
  ids: Uint32Array;
  finishReason: FinishReason;
  /** One entry an id, where `logprobs` asks for them. A stop text that is cut off has its tokens here as in `ids`. */
  logprobs?: readonly AnswerLogprob[];
  /** Milliseconds of the core's work: the prompt up to the first token, and the tokens after it. Not of a batch. */
  timing?: { promptTokens: number; promptMs: number; answerMs: number };
}

/** A conversation with the log-probability of each of its tokens. */
export interface ScoredChat {
  ids: Uint32Array;
  /** Of each token after the first, in nats: `[ids − 1]`. */
  logprobs: Float32Array;
  /** 1 where the token after is part of an assistant's turn (its end token too), else 0: beside `logprobs`. */
  answers: Uint8Array;
  /** Sum over the tokens of assistants' turns, and their number. */
  answerLogprob: number;
  answerTokens: number;
}

/** The options as the core takes them. */
export function decodingOf(options: GenerateOptions, stopTokenIds: number[]): NativeDecoding {
  return {
    // More than any context has room for.
    maxTokens: Math.min(options.maxTokens ?? 256, 2 ** 32 - 1),
    temperature: options.temperature ?? 0,
    topK: options.topK ?? 0,
    topP: options.topP ?? 1,
    minP: options.minP ?? 0,
    repetitionPenalty: options.repetitionPenalty ?? 1,
    seed: seedOf(options.seed ?? 0),
    stopTokenIds,
    topLogprobs: alternatives(options),
    reuse: options.reuse ?? false,
    ...(options.kvCache === undefined ? {} : { kvCache: options.kvCache }),
  };
}

function alternatives({ logprobs }: Pick<GenerateOptions, "logprobs">): number {
  return typeof logprobs === "number" ? logprobs : 0;
}

/** The core's answer as users get it. */
export function generatedOf(
  answer: Pick<NativeGenerated, "ids" | "logps" | "topIds" | "topLogps" | "finishReason">,
  text: string,
  tokenizer: Pick<Tokenizer, "decode">,
  options: Pick<GenerateOptions, "logprobs">,
): Generated {
  const { ids, logps, topIds, topLogps } = answer;
  const finishReason = answer.finishReason as FinishReason;
  if (options.logprobs === undefined || options.logprobs === false) return { text, ids, finishReason };
  const count = alternatives(options);
  const spelled = (id: number, logprob: number): TokenLogprob => ({ id, token: tokenizer.decode([id]), logprob });
  const logprobs = Array.from(ids, (id, place): AnswerLogprob => {
    const from = place * count;
    const top = Array.from(topIds.subarray(from, from + count), (id, i) =>
      spelled(id, topLogps[from + i] ?? Number.NaN),
    );
    return { ...spelled(id, logps[place] ?? Number.NaN), top };
  });
  return { text, ids, finishReason, logprobs };
}

/** The pieces that a generation hands to `onToken`, as a stream. Leaving the loop stops the generation. */
export async function* streamed(
  generate: (options: GenerateOptions) => Promise<unknown>,
  options: GenerateOptions,
): AsyncGenerator<string, void> {
  checkGenerateOptions(options);
  const leave = new AbortController();
  const signal = options.signal ? AbortSignal.any([options.signal, leave.signal]) : leave.signal;
  const pieces: string[] = [];
  let wake = () => {};
  let finished = false;
  let failure: unknown;
  const running = generate({
    ...options,
    signal,
    onToken: (piece) => {
      const made = options.onToken?.(piece);
      pieces.push(piece);
      wake();
      return made;
    },
  })
    .catch((error: unknown) => {
      failure = error;
    })
    .finally(() => {
      finished = true;
      wake();
    });
  try {
    for (;;) {
      const piece = pieces.shift();
      if (piece !== undefined) yield piece;
      else if (finished) break;
      else
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
    }
    if (failure) throw failure;
  } finally {
    leave.abort();
    await running;
  }
}
