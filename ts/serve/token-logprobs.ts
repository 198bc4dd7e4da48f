/** Tokens with log-probabilities as texts. */
import { isUtf8 } from "node:buffer";
import { throwIfAborted } from "../errors";
import type { Generated, TokenLogprob } from "../model/generation";
import type { Mistral } from "../model/mistral";
import { tokenBytes } from "../model/token-bytes";
import { textAfter } from "../model/token-text";
import type { Tokenizer } from "../model/tokenizer";
import { breaks } from "../report/view/breaks";
import { badField } from "./api-error";

/** A token's text behind another one, or at the beginning. Part of a character is U+FFFD. */
export function spelled(tokenizer: Tokenizer, before: number | undefined, id: number): string {
  const bytes = tokenBytes(tokenizer).get(id);
  // Behind the beginning of a character a decoder shows nothing of its middle: the two are one replacement.
  return bytes && !isUtf8(bytes) ? Buffer.from(bytes).toString() : textAfter(tokenizer, before, [id]);
}

/** A token's text with its bytes, which joined are those of the whole text; null where the tokenizer does not tell them. */
export function spelledInBytes(
  tokenizer: Tokenizer,
  before: number | undefined,
  id: number,
): { token: string; bytes: number[] | null } {
  const token = spelled(tokenizer, before, id);
  const bytes = token.includes("\uFFFD") ? tokenBytes(tokenizer).get(id) : Buffer.from(token);
  return { token, bytes: bytes ? [...bytes] : null };
}

/** How many of an answer's tokens its text shows: those of a stop text that was cut off are left out. */
export function shownCount(tokenizer: Tokenizer, { ids, text, finishReason }: Generated): number {
  const covers = (count: number) => tokenizer.decode(ids.subarray(0, count), { skipSpecialTokens: true }).length;
  let count = ids.length;
  if (finishReason === "stop") while (count > 0 && covers(count - 1) >= text.length) count--;
  return count;
}

/** A token of a given text. */
export interface ScoredToken {
  /** undefined: of the first, which nothing predicts. */
  logprob: number | undefined;
  /** The most probable at its place, in that order. */
  top: readonly Omit<TokenLogprob, "token">[];
}

/** Bytes of logits that are held at once for alternatives. */
const mostLogits = 2 ** 29;

/**
 * Scores given tokens.
 *
 * @param top alternatives at each place
 * @throws ApiError 400 when there are too many logits for alternatives
 */
export async function scoredTokens(
  model: Mistral,
  ids: Uint32Array,
  top: number,
  signal: AbortSignal,
): Promise<ScoredToken[]> {
  const first: ScoredToken = { logprob: undefined, top: [] };
  if (top === 0 || ids.length === 1) {
    const logprobs = ids.length === 1 ? [] : [...(await model.score(ids, { signal }))];
    return [first, ...logprobs.map((logprob) => ({ logprob, top: [] }))];
  }
  const vocabulary = model.config.vocab_size;
  const bytes = 4 * vocabulary * ids.length;
  if (bytes > mostLogits) {
    const most = Math.floor(mostLogits / 4 / vocabulary);
    throw badField(
      "prompt",
      `Alternatives (logprobs above 0) with echo are possible for ${most} tokens of this model, not for ${ids.length}. Take logprobs: 0, or a shorter prompt.`,
    );
  }
  const logits = await model.logits(ids, { signal });
  const pause = breaks();
  const scored = [first];
  for (let place = 1; place < ids.length; place++) {
    const row = logits.subarray((place - 1) * vocabulary, place * vocabulary);
    scored.push(scoredRow(row, ids[place] as number, top));
    await pause();
    throwIfAborted(signal);
  }
  return scored;
}

function scoredRow(logits: Float32Array, id: number, count: number): ScoredToken {
  let max = Number.NEGATIVE_INFINITY;
  for (const value of logits) if (value > max) max = value;
  let sum = 0;
  for (const value of logits) sum += Math.exp(value - max);
  const normaliser = max + Math.log(sum);
  // The best so far, in order; mostly a logit is below the last of them.
  const best: { id: number; logprob: number }[] = [];
  for (let each = 0; each < logits.length; each++) {
    const logprob = (logits[each] as number) - normaliser;
    if (best.length === count && logprob <= best[count - 1]!.logprob) continue;
    let at = best.length;
    while (at > 0 && best[at - 1]!.logprob < logprob) at--;
    best.splice(at, 0, { id: each, logprob });
    if (best.length > count) best.pop();
  }
  return { logprob: (logits[id] as number) - normaliser, top: best };
}
