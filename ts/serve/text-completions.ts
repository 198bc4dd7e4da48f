/** Answers of `/v1/completions`. */
import type { Generated, TokenLogprob } from "../model/generation";
import { textAfter } from "../model/token-text";
import type { Tokenizer } from "../model/tokenizer";
import type { CompletionRequest, TextPrompt } from "./completion-request";
import { type Exchange, indices, usageOf } from "./exchange";
import { type ScoredToken, scoredTokens, shownCount, spelled } from "./token-logprobs";

/** A prompt that fits, and the longest answer to it. */
export interface CompletionPrompt {
  given: TextPrompt;
  ids: Uint32Array;
  maxTokens: number;
}

/** A text that was continued. */
interface Continued {
  text: string;
  answer: Generated;
  logprobs: LegacyLogprobs | null;
}

/** Log-probabilities in the form that `/v1/completions` has for them. */
interface LegacyLogprobs {
  tokens: string[];
  token_logprobs: (number | null)[];
  top_logprobs: (Record<string, number> | null)[] | null;
  text_offset: number[];
}

/** An answer without a token. */
const nothing: Generated = { text: "", ids: new Uint32Array(), finishReason: "length" };

/** The whole completion: `choices` answers of each prompt, prompt by prompt. */
export async function textCompletion(
  exchange: Exchange,
  request: CompletionRequest,
  prompts: readonly CompletionPrompt[],
) {
  const made = await Promise.all(
    placesOf(prompts, request).map(({ prompt, index }) => continued(exchange, request, prompt, index)),
  );
  const usage = totalUsage(prompts, made);
  const completion = {
    ...head(exchange),
    choices: made.map(({ text, answer, logprobs }, index) => ({
      text,
      index,
      logprobs,
      finish_reason: answer.finishReason,
    })),
    usage,
  };
  return { completion, usage };
}

/** The completion in chunks; log-probabilities come in one chunk behind the text. */
export async function streamTextCompletion(
  exchange: Exchange,
  request: CompletionRequest,
  prompts: readonly CompletionPrompt[],
  send: (event: unknown) => void,
) {
  const chunk = (choices: readonly object[], usage: object | null = null) =>
    send({ ...head(exchange), choices, ...(request.usage ? { usage } : {}) });
  const piece = (index: number, text: string, finish: string | null = null, logprobs: object | null = null) =>
    chunk([{ text, index, logprobs, finish_reason: finish }]);
  const made = await Promise.all(
    placesOf(prompts, request).map(async ({ prompt, index }) => {
      if (request.echo) piece(index, echoed(exchange, prompt));
      const done = await continued(exchange, request, prompt, index, (text) => piece(index, text));
      piece(index, "", done.answer.finishReason, done.logprobs);
      return done;
    }),
  );
  const usage = totalUsage(prompts, made);
  if (request.usage) chunk([], usage);
  return { usage };
}

function head({ id, created, served }: Exchange) {
  return { id, object: "text_completion", created, model: served.name };
}

function placesOf(prompts: readonly CompletionPrompt[], { choices }: CompletionRequest) {
  return prompts.flatMap((prompt, at) => indices(choices).map((choice) => ({ prompt, index: at * choices + choice })));
}

function totalUsage(prompts: readonly CompletionPrompt[], made: readonly Continued[]) {
  return usageOf(
    prompts.reduce((sum, { ids }) => sum + ids.length, 0),
    made.map(({ answer }) => answer),
  );
}

/** The prompt as a part of the answer. */
function echoed({ served }: Exchange, { given }: CompletionPrompt): string {
  return typeof given === "string" ? given : served.model.tokenizer.decode(given);
}

async function continued(
  exchange: Exchange,
  request: CompletionRequest,
  prompt: CompletionPrompt,
  index: number,
  onText?: (text: string) => void,
): Promise<Continued> {
  const { engine, ticket, signal, served } = exchange;
  const { topLogprobs, echo } = request;
  const { tokenizer } = served.model;
  const scored =
    echo && topLogprobs !== undefined
      ? await engine.work(ticket, signal, () => scoredTokens(served.model, prompt.ids, topLogprobs, signal))
      : [];
  const before = prompt.ids.at(-1) as number;
  let answer = nothing;
  if (prompt.maxTokens > 0) {
    const lead = onText && (await firstSpace(exchange, request, prompt, index));
    let begun = false;
    const onToken = onText && {
      onToken: (piece: string) => {
        onText(begun ? piece : `${lead ?? ""}${piece}`);
        begun = true;
      },
    };
    const { maxTokens } = prompt;
    const sampling = lead === undefined ? request : { ...request, reuse: true };
    answer = await exchange.generate(prompt.ids, sampling, index, { maxTokens, topLogprobs, ...onToken });
  }
  const space = answer.text === "" ? "" : spaceOf(tokenizer, before, answer.ids[0] as number);
  const logprobs = topLogprobs === undefined ? null : legacyLogprobs(exchange, prompt, scored, answer, topLogprobs);
  return { text: `${echo ? echoed(exchange, prompt) : ""}${space}${answer.text}`, answer, logprobs };
}

/** Decoders take the space off a text's beginning; what continues another text needs it. */
function spaceOf(tokenizer: Tokenizer, before: number, id: number): string {
  return textAfter(tokenizer, before, [id]).startsWith(" ") && !tokenizer.decode([id]).startsWith(" ") ? " " : "";
}

/** The same for a text that is sent as it comes: the first token is chosen beforehand, by the same seed; undefined where nothing is taken off. */
async function firstSpace(
  exchange: Exchange,
  request: CompletionRequest,
  { ids }: CompletionPrompt,
  index: number,
): Promise<string | undefined> {
  const { engine, ticket, signal, served } = exchange;
  const { tokenizer } = served.model;
  if (!takesSpaces(tokenizer)) return undefined;
  const { temperature, topP, topK, minP, repetitionPenalty, seed } = request;
  const sampling = { temperature, topP, topK, minP, repetitionPenalty, seed: seed + index };
  const first = await engine.work(ticket, signal, () =>
    served.model.generate(ids, { ...sampling, maxTokens: 1, reuse: true, signal }),
  );
  const id = first.ids[0];
  return id === undefined ? "" : spaceOf(tokenizer, ids.at(-1) as number, id);
}

/** Whether a tokenizer's decoder takes the space off a text's beginning. */
function takesSpaces(tokenizer: Tokenizer): boolean {
  const ids = tokenizer.encode("a b");
  return tokenizer.decode(ids).startsWith("a") && !tokenizer.decode(ids.subarray(1)).startsWith(" ");
}

function legacyLogprobs(
  { served }: Exchange,
  prompt: CompletionPrompt,
  scored: readonly ScoredToken[],
  answer: Generated,
  top: number,
): LegacyLogprobs {
  const { tokenizer } = served.model;
  const found: LegacyLogprobs = { tokens: [], token_logprobs: [], top_logprobs: top > 0 ? [] : null, text_offset: [] };
  let offset = 0;
  const add = (before: number | undefined, id: number, { logprob, top }: ScoredToken) => {
    const text = spelled(tokenizer, before, id);
    found.tokens.push(text);
    found.token_logprobs.push(logprob ?? null);
    found.top_logprobs?.push(logprob === undefined ? null : alternatives(tokenizer, before, top, { text, logprob }));
    found.text_offset.push(offset);
    // What the tokenizer puts before a text is not in it.
    const seen =
      typeof prompt.given === "string" ? textAfter(tokenizer, before, [id], { skipSpecialTokens: true }) : text;
    offset += [...seen].length;
  };
  for (const [place, each] of scored.entries()) add(prompt.ids[place - 1], prompt.ids[place] as number, each);
  const { logprobs = [], ids } = answer;
  for (const [place, { id, logprob, top }] of logprobs.slice(0, shownCount(tokenizer, answer)).entries()) {
    add(place === 0 ? prompt.ids.at(-1) : ids[place - 1], id, { logprob, top });
  }
  return found;
}

/** Alternatives by their text; the token itself is among them. */
function alternatives(
  tokenizer: Tokenizer,
  before: number | undefined,
  top: readonly Omit<TokenLogprob, "token">[],
  own: { text: string; logprob: number },
): Record<string, number> {
  const found = new Map<string, number>();
  for (const { id, logprob } of top) {
    const text = spelled(tokenizer, before, id);
    // Two tokens may have one text: the more probable one stands for both.
    if (!found.has(text)) found.set(text, logprob);
  }
  if (!found.has(own.text)) found.set(own.text, own.logprob);
  return Object.fromEntries(found);
}
