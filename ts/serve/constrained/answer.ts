/** Answers that are held to a grammar, token by token. */
import { draw as uniform } from "../../distill/draw";
import { aborted, ModelError, throwIfAborted } from "../../errors";
import { type AnswerLogprob, decodingOf, type Generated, type GenerateOptions } from "../../model/generation";
import type { Mistral } from "../../model/mistral";
import { textAfter } from "../../model/token-text";
import type { Tokenizer } from "../../model/tokenizer";
import { native } from "../../native/load";
import type { Grammar, GrammarState } from "./grammar";

/** Tokens that a greedy answer looks at first: mostly one of them fits, and far less is sorted and carried over. */
const firstLook = 128;

/** Tokens that a character may be spread over. */
const longestCharacter = 4;

const replacement = "\uFFFD";

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
  /** Tokens whose bytes are not yet a character, this one the last. */
  pending: readonly number[];
}

/** The answer may end. */
interface Ending {
  readonly end: true;
  logprob: number;
}

/**
 * Answers a prompt with a text of the grammar: of each step's tokens only those are chosen from that the grammar can go on
 * with. Temperature, topK, topP and minP work on these. Ends when the grammar does; with `maxTokens` it may end before.
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
  let text = "";
  let state = grammar.start();
  let pending: readonly number[] = [];
  let finishReason: Generated["finishReason"] = "length";
  while (chosen.length < maxTokens && steps.room > 0) {
    throwIfAborted(signal);
    const { candidates, best } = await steps.candidates(state, pending, top ?? 0);
    const next = chosenOf(candidates, options, () => uniform(options.seed ?? 0, "token", chosen.length));
    if (next.end) {
      finishReason = "stop";
      break;
    }
    steps.push(next.id);
    const spelled = (id: number, logprob: number) => ({ id, token: model.tokenizer.decode([id]), logprob });
    chosen.push({ ...spelled(next.id, next.logprob), top: best.map(([id, logprob]) => spelled(id, logprob)) });
    ({ state, pending } = next);
    text += next.text;
    if (next.text !== "") onToken?.(next.text);
    if (state.ended && pending.length === 0) {
      finishReason = "stop";
      break;
    }
  }
  const ids = Uint32Array.from(chosen, ({ id }) => id);
  return { text, ids, finishReason, ...(top === undefined ? {} : { logprobs: chosen }) };
}

/** The model, one token at a time; keys and values stay from step to step. */
class Steps {
  readonly #model: Mistral;
  readonly #tokenizer: Tokenizer;
  readonly #options: GenerateOptions;
  readonly #stops: ReadonlySet<number>;
  /** Of tokens that stand alone behind whole characters. */
  readonly #texts: Map<number, string>;
  #ids: Uint32Array;
  #length: number;

  constructor(model: Mistral, prompt: Uint32Array, options: GenerateOptions) {
    this.#model = model;
    this.#tokenizer = model.tokenizer;
    this.#options = options;
    this.#stops = new Set(model.stopTokenIds);
    this.#texts = textsOf(model.tokenizer);
    this.#length = prompt.length;
    this.#ids = new Uint32Array(prompt.length + 256);
    this.#ids.set(prompt);
  }

  /** Tokens that still fit. */
  get room(): number {
    return this.#model.config.max_position_embeddings - this.#length;
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
   * Tokens that the grammar can go on with, the most probable first (a greedy answer needs only the first), and the `top`
   * most probable of all. End tokens are among them where the text may end.
   */
  async candidates(
    state: GrammarState,
    pending: readonly number[],
    top: number,
  ): Promise<{ candidates: (Candidate | Ending)[]; best: [id: number, logprob: number][] }> {
    const vocabulary = this.#model.config.vocab_size;
    const greedy = (this.#options.temperature ?? 0) === 0;
    for (let count = greedy ? Math.min(Math.max(firstLook, top), vocabulary) : vocabulary; ; count = vocabulary) {
      const { ids, logprobs } = await this.#distribution(count);
      const candidates: (Candidate | Ending)[] = [];
      for (const [place, id] of ids.entries()) {
        const found = this.#candidate(id, logprobs[place] as number, state, pending);
        if (found) candidates.push(found);
        if (found && greedy) break;
      }
      if (candidates.length > 0) {
        const best = Array.from(ids.subarray(0, top), (id, i): [number, number] => [id, logprobs[i] as number]);
        return { candidates, best };
      }
      if (count === vocabulary) {
        throw new ModelError("ZA_GENERATE_OPTION", "no token of the model fits the schema at this place", {
          place: { field: "response_format" },
          remedy: "Allow more in the schema, or take a model whose tokenizer has every character.",
        });
      }
    }
  }

  #candidate(
    id: number,
    logprob: number,
    state: GrammarState,
    pending: readonly number[],
  ): Candidate | Ending | undefined {
    if (this.#stops.has(id)) return state.complete && pending.length === 0 ? { end: true, logprob } : undefined;
    const all = [...pending, id];
    const text = this.#textOf(all);
    const whole = text.replace(/\uFFFD+$/, "");
    // A special token has no text: it would come again and again.
    if (text === "" || whole.includes(replacement)) return undefined;
    const behind = state.afterText(whole);
    if (!behind) return undefined;
    if (whole === text) return { id, logprob, state: behind, text, pending: [] };
    // A part of a character: only where any character may come, as nobody knows which it becomes.
    const open = behind.after(0xe9) && behind.after(0x4e2d) && behind.after(0x1f600);
    if (whole !== "" || !open || all.length >= longestCharacter) return undefined;
    return { id, logprob, state, text: "", pending: all };
  }

  /** What these tokens, next in the answer, add to its text. */
  #textOf(ids: readonly number[]): string {
    const [id] = ids;
    const known = ids.length === 1 ? this.#texts.get(id as number) : undefined;
    if (known !== undefined) return known;
    // Behind the token that stands before them: decoders take the space off a text's beginning.
    const before = this.#ids[this.#length - ids.length] as number;
    const text = textAfter(this.#tokenizer, before, ids, visible);
    const ground = this.#tokenizer.decode([before], visible);
    if (ids.length === 1 && ground !== "" && !ground.endsWith(replacement)) this.#texts.set(id as number, text);
    return text;
  }

  /** The most probable tokens that come next, in that order. */
  async #distribution(count: number): Promise<{ ids: Uint32Array; logprobs: Float32Array }> {
    const { signal } = this.#options;
    const abort = new (native().NativeAbort)();
    const stop = () => abort.abort();
    signal?.addEventListener("abort", stop, { once: true });
    try {
      const decoding = { ...decodingOf({ maxTokens: 1, reuse: true }, []), topLogprobs: count };
      const ids = this.#ids.slice(0, this.#length);
      const { topIds, topLogps } = await this.#model.native.generate(
        this.#tokenizer.native,
        ids,
        decoding,
        [],
        abort,
        () => {},
      );
      return { ids: topIds, logprobs: topLogps };
    } catch (error) {
      throw signal?.aborted ? aborted(signal.reason) : error;
    } finally {
      signal?.removeEventListener("abort", stop);
    }
  }
}

/** Texts of tokens, kept for the next answers. */
const texts = new WeakMap<Tokenizer, Map<number, string>>();

function textsOf(tokenizer: Tokenizer): Map<number, string> {
  const known = texts.get(tokenizer) ?? new Map<number, string>();
  texts.set(tokenizer, known);
  return known;
}

/** Chooses among candidates, the most probable first, as the core does: temperature, top-k, top-p, min-p. */
function chosenOf(
  candidates: readonly (Candidate | Ending)[],
  { temperature = 0, topK = 0, topP = 1, minP = 0 }: GenerateOptions,
  random: () => number,
): Candidate | Ending {
  const first = candidates[0] as Candidate | Ending;
  if (temperature === 0 || !Number.isFinite(1 / temperature)) return first;
  const kept = topK > 0 ? candidates.slice(0, topK) : candidates;
  const weights = kept.map(({ logprob }) => Math.exp((logprob - first.logprob) / temperature));
  const goal = topP * weights.reduce((sum, weight) => sum + weight, 0);
  let mass = 0;
  let count = 0;
  while (count < weights.length && mass < goal && (weights[count] as number) >= minP)
    mass += weights[count++] as number;
  let left = random() * mass;
  for (let at = 0; at < count; at++) {
    left -= weights[at] as number;
    if (left < 0) return kept[at] as Candidate | Ending;
  }
  return first;
}
