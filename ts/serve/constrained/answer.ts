/** Answers that are held to a grammar, token by token. */

import { draw as uniform } from "../../distill/draw";
import { throwIfAborted } from "../../errors";
import { abortable } from "../../model/abortable";
import { stopsOf } from "../../model/generate-options";
import { type AnswerLogprob, decodingOf, type Generated, type GenerateOptions } from "../../model/generation";
import type { Mistral } from "../../model/mistral";
import { optionError } from "../../model/option-rules";
import { tokenBytes } from "../../model/token-bytes";
import { textAfter } from "../../model/token-text";
import type { Tokenizer } from "../../model/tokenizer";
import { chosenOf } from "./choice";
import type { Grammar, GrammarState } from "./grammar";
import { StopTexts } from "./stop-texts";
import { bytesOfLead, type Parts, partsOf } from "./utf8-parts";

/** Tokens that a greedy answer looks at first: mostly one of them fits, and far less is sorted and carried over. */
const firstLook = 128;

const replacement = "\uFFFD";
const nothing = new Uint8Array();

/** What a reader sees. */
const visible = { skipSpecialTokens: true };

/** A token that may come, with what it leads to. */
interface Candidate {
  readonly end?: false;
  id: number;
  logprob: number;
  /** The state behind the whole characters. */
  state: GrammarState;
  /** Text of the whole characters that it completes. */
  text: string;
  /** Bytes behind them that are not yet a character. */
  pending: Uint8Array;
}

/** The answer may end. */
interface Ending {
  readonly end: true;
  logprob: number;
}

/**
 * Answers a prompt with a text of the grammar: of each step's tokens only those are chosen from that the grammar can go on
 * with. Temperature, topK, topP and minP work on these.
 *
 * Where `maxTokens` or the context is nearly used up, only what can still be brought to an end is chosen from, a token a
 * byte. So an answer is cut only where not even the shortest one fits, where the tokenizer lacks a character of it, or by a
 * stop text.
 */
export async function constrainedAnswer(
  model: Mistral,
  prompt: Uint32Array,
  grammar: Grammar,
  options: GenerateOptions,
): Promise<Generated> {
  const { maxTokens = 256, signal, onToken, logprobs } = options;
  const top = logprobs === undefined || logprobs === false ? undefined : logprobs === true ? 0 : logprobs;
  const steps = new Steps(model, prompt, options);
  const chosen: AnswerLogprob[] = [];
  const stops = new StopTexts(stopsOf(options.stop));
  let stopped = false;
  let text = "";
  const say = (piece: string) => {
    text += piece;
    if (piece !== "") onToken?.(piece);
  };
  let state = grammar.start();
  let pending: Uint8Array = nothing;
  let finishReason: Generated["finishReason"] = "length";
  for (;;) {
    const room = Math.min(maxTokens - chosen.length, steps.room);
    if (room <= 0) break;
    throwIfAborted(signal);
    const { next, best } = await steps.next(state, pending, room, top ?? 0, (attempt) =>
      uniform(options.seed ?? 0, "token", chosen.length, ...(attempt === 0 ? [] : [attempt])),
    );
    if (next.end) {
      finishReason = "stop";
      break;
    }
    steps.push(next.id);
    const spelled = (id: number, logprob: number) => ({ id, token: model.tokenizer.decode([id]), logprob });
    chosen.push({ ...spelled(next.id, next.logprob), top: best.map(([id, logprob]) => spelled(id, logprob)) });
    ({ state, pending } = next);
    const certain = stops.push(next.text);
    say(certain.text);
    stopped = certain.stopped;
    if (stopped || (state.ended && pending.length === 0)) {
      finishReason = "stop";
      break;
    }
  }
  if (!stopped) say(stops.end());
  const ids = Uint32Array.from(chosen, ({ id }) => id);
  return { text, ids, finishReason, ...(top === undefined ? {} : { logprobs: chosen }) };
}

/** The model, one token at a time; keys and values stay from step to step. */
class Steps {
  readonly #model: Mistral;
  /** Positions and vocabulary; the model reads its configuration anew each time. */
  readonly #positions: number;
  readonly #vocabulary: number;
  readonly #tokenizer: Tokenizer;
  readonly #options: GenerateOptions;
  readonly #stops: ReadonlySet<number>;
  /** Of tokens behind whole characters. */
  readonly #texts: TokenTexts;
  readonly #bytes: ReadonlyMap<number, Uint8Array>;
  /** Of tokens behind whole characters. */
  readonly #parts = new Map<number, Parts | undefined>();
  /** Whether every byte inside a character is a token; undefined: nobody asked yet. */
  #ends: boolean | undefined;
  #ids: Uint32Array;
  #length: number;

  constructor(model: Mistral, prompt: Uint32Array, options: GenerateOptions) {
    const { max_position_embeddings, vocab_size } = model.config;
    this.#model = model;
    this.#positions = max_position_embeddings;
    this.#vocabulary = vocab_size;
    this.#tokenizer = model.tokenizer;
    this.#options = options;
    this.#stops = new Set(model.stopTokenIds);
    this.#texts = textsOf(model.tokenizer, vocab_size);
    this.#bytes = tokenBytes(model.tokenizer);
    this.#length = prompt.length;
    this.#ids = new Uint32Array(prompt.length + 256);
    this.#ids.set(prompt);
  }

  /** Tokens that still fit. */
  get room(): number {
    return this.#positions - this.#length;
  }

  push(id: number): void {
    if (this.#length === this.#ids.length) {
      const wider = new Uint32Array(2 * this.#length);
      wider.set(this.#ids);
      this.#ids = wider;
    }
    this.#ids[this.#length++] = id;
  }

  /**
   * A token that the grammar can go on with, or the end, and the `top` most probable tokens of all.
   *
   * @param room tokens that the answer may still have; those are left out behind which it could not be ended in time
   */
  async next(
    state: GrammarState,
    pending: Uint8Array,
    room: number,
    top: number,
    random: (attempt: number) => number,
  ): Promise<{ next: Candidate | Ending; best: [id: number, logprob: number][] }> {
    const vocabulary = this.#vocabulary;
    const greedy = (this.#options.temperature ?? 0) === 0;
    // Where it cannot be ended in time any more, it goes on as it likes.
    const late = leastTokens(state, pending) > room;
    const inTime = (found: Candidate | Ending) => found.end || leastTokens(found.state, found.pending) < room;
    for (let count = greedy ? Math.min(Math.max(firstLook, top), vocabulary) : vocabulary; ; count = vocabulary) {
      const { ids, logprobs } = await this.#distribution(count);
      for (const anyTime of count < vocabulary || late ? [late] : [false, true]) {
        const found = (place: number) => {
          const candidate = this.#candidate(ids[place] as number, logprobs[place] as number, state, pending);
          return candidate && (anyTime || inTime(candidate)) ? candidate : undefined;
        };
        const next = await chosenOf(
          { logprobs, mayFit: this.#mayFit(ids, state, pending), found },
          this.#options,
          random,
        );
        if (!next) continue;
        return { next, best: Array.from(ids.subarray(0, top), (id, i) => [id, logprobs[i] as number]) };
      }
      if (count === vocabulary) {
        const problem = "no token of the model fits the schema at this place";
        const remedy = "Allow more in the schema, or take a model whose tokenizer has every character.";
        throw optionError("ZA_GENERATE_OPTION", "response_format", problem, remedy);
      }
    }
  }

  /** Leaves out tokens by the character that they are known to begin with. */
  #mayFit(ids: Uint32Array, state: GrammarState, pending: Uint8Array): (place: number) => boolean {
    if (pending.length > 0) return (place) => ((this.#bytes.get(ids[place] as number)?.[0] ?? 0) & 0xc0) === 0x80;
    const { kindOf, firsts } = this.#texts;
    const open = Uint8Array.from(firsts, (codePoint) => Number(codePoint === undefined || state.begins(codePoint)));
    return (place) => open[kindOf[ids[place] as number] as number] === 1;
  }

  #candidate(id: number, logprob: number, state: GrammarState, pending: Uint8Array): Candidate | Ending | undefined {
    if (this.#stops.has(id)) return state.complete && pending.length === 0 ? { end: true, logprob } : undefined;
    if (pending.length === 0) {
      const text = this.#textOf(id);
      // A special token has no text: it would come again and again.
      if (text === "") return undefined;
      if (!text.includes(replacement)) {
        const behind = state.afterText(text);
        return behind && { id, logprob, state: behind, text, pending };
      }
    }
    const parts = this.#partsBehind(pending, id);
    const behind = parts && state.afterText(parts.text);
    if (!behind || (parts.rest.length > 0 && !this.#mayBreak(behind))) return undefined;
    return { id, logprob, state: behind, text: parts.text, pending: parts.rest };
  }

  /** The characters that a token's bytes complete. */
  #partsBehind(pending: Uint8Array, id: number): Parts | undefined {
    if (pending.length === 0 && this.#parts.has(id)) return this.#parts.get(id);
    const bytes = this.#bytes.get(id);
    const parts = bytes && partsOf(Buffer.concat([pending, bytes]));
    if (pending.length === 0) this.#parts.set(id, parts);
    return parts;
  }

  /** Whether part of a character may come: where any character may, for nobody knows which it becomes; and where it can be ended. */
  #mayBreak(state: GrammarState): boolean {
    if (![0xe9, 0x4e2d, 0x1f600].every((codePoint) => state.after(codePoint))) return false;
    if (this.#ends === undefined) {
      const single = new Set([...this.#bytes.values()].filter(({ length }) => length === 1).map(([byte]) => byte));
      this.#ends = Array.from({ length: 0x40 }, (_, i) => 0x80 + i).every((byte) => single.has(byte));
    }
    return this.#ends;
  }

  /** What a token, next in the answer, adds to its text. */
  #textOf(id: number): string {
    const known = this.#texts.known.get(id);
    if (known !== undefined) return known;
    // Behind the token that stands before it: decoders take the space off a text's beginning.
    const before = this.#ids[this.#length - 1] as number;
    const text = textAfter(this.#tokenizer, before, [id], visible);
    const ground = this.#tokenizer.decode([before], visible);
    if (ground !== "" && !ground.endsWith(replacement)) this.#texts.learn(id, text);
    return text;
  }

  /** The most probable tokens that come next, in that order. */
  async #distribution(count: number): Promise<{ ids: Uint32Array; logprobs: Float32Array }> {
    const decoding = { ...decodingOf({ maxTokens: 1, reuse: true }, []), topLogprobs: count };
    const ids = this.#ids.slice(0, this.#length);
    const { native, card } = this.#model;
    const { topIds, topLogps } = await abortable(this.#options.signal, (abort) =>
      native.generate(this.#tokenizer.native, ids, decoding, [], abort, () => {}, card),
    );
    return { ids: topIds, logprobs: topLogps };
  }
}

/** Tokens with which an answer can end, a token a byte. */
function leastTokens(state: GrammarState, pending: Uint8Array): number {
  const [lead] = pending;
  if (lead === undefined) return state.least;
  return state.least + bytesOfLead(lead) - pending.length;
}

/** Texts of tokens behind whole characters, as far as somebody asked for them. */
class TokenTexts {
  readonly known = new Map<number, string>();
  /** What tokens begin with; nothing is known of the first kind. */
  readonly firsts: (number | undefined)[] = [undefined];
  /** The kind of each token, a place in `firsts`. */
  readonly kindOf: Uint32Array;
  readonly #kinds = new Map<number, number>();

  constructor(vocabulary: number) {
    this.kindOf = new Uint32Array(vocabulary);
  }

  learn(id: number, text: string): void {
    this.known.set(id, text);
    const first = text.codePointAt(0);
    if (first === undefined || text.includes(replacement)) return;
    const kind = this.#kinds.get(first) ?? this.firsts.push(first) - 1;
    this.#kinds.set(first, kind);
    this.kindOf[id] = kind;
  }
}

/** They are kept for the next answers. */
const texts = new WeakMap<Tokenizer, TokenTexts>();

function textsOf(tokenizer: Tokenizer, vocabulary: number): TokenTexts {
  const known = texts.get(tokenizer);
  // Models may have more rows than their tokenizer has entries.
  const fitting = known && known.kindOf.length >= vocabulary ? known : new TokenTexts(vocabulary);
  texts.set(tokenizer, fitting);
  return fitting;
}
