/** What `/v1/completions` is asked. */
import type { Mistral } from "../model/mistral";
import { badField } from "./api-error";
import { RequestFields } from "./request-fields";
import { type Delivery, deliveryOf, type RequestSampling, samplingOf } from "./sampling";

/** A text to continue: as text, or as tokens. */
export type TextPrompt = string | Uint32Array;

/** A completion as it is asked for. */
export interface CompletionRequest extends RequestSampling, Delivery {
  model: string;
  prompts: readonly TextPrompt[];
  maxTokens: number;
  /** Alternatives with log-probabilities at each place; undefined: no log-probabilities. */
  topLogprobs: number | undefined;
  /** Begin the text of the answer with the prompt, its log-probabilities too. */
  echo: boolean;
}

/** OpenAI's default. */
const usualTokens = 16;

/** Answers of a request at most, over all its prompts. */
const mostAnswers = 2048;

/**
 * Reads the body of a request.
 *
 * @throws ApiError 400 that names the field
 */
export function completionRequestOf(body: unknown): CompletionRequest {
  const fields = new RequestFields(body);
  const model = fields.text("model");
  if (model === undefined) throw badField("model", "model is missing: the name of one of /v1/models.");
  const prompts = promptsOf(fields.take("prompt"));
  fields.unsupported("suffix", (value) => value === "", "This server continues texts, it does not fill gaps.");
  fields.unsupported(
    "response_format",
    (value) => (value as { type?: unknown }).type === "text",
    "Take /v1/chat/completions.",
  );
  const echo = fields.boolean("echo") ?? false;
  const sampling = samplingOf(fields);
  fields.unsupported("best_of", (value) => value === sampling.choices, "Take n.");
  const request = {
    model,
    prompts,
    ...sampling,
    ...deliveryOf(fields),
    // Nothing is written when only the prompt is to be scored.
    maxTokens: fields.whole("max_tokens", echo ? 0 : 1, Number.MAX_SAFE_INTEGER) ?? usualTokens,
    topLogprobs: fields.whole("logprobs", 0, 20),
    echo,
  };
  fields.close();
  const answers = prompts.length * sampling.choices;
  if (answers > mostAnswers)
    throw badField("n", `The request asks for ${answers} answers; ${mostAnswers} are possible.`);
  return request;
}

function promptsOf(prompt: unknown): readonly TextPrompt[] {
  if (typeof prompt === "string") return [prompt];
  if (!Array.isArray(prompt) || prompt.length === 0) {
    throw badField("prompt", "prompt must be a text, a list of texts, a list of token ids, or a list of such lists.");
  }
  if (prompt.every((each) => typeof each === "number")) return [idsOf(prompt, "prompt")];
  return prompt.map((each, index) => {
    if (typeof each === "string") return each;
    if (Array.isArray(each)) return idsOf(each, `prompt[${index}]`);
    throw badField(`prompt[${index}]`, `prompt[${index}] must be a text or a list of token ids.`);
  });
}

function idsOf(list: readonly unknown[], path: string): Uint32Array {
  const wrong = list.findIndex((id) => !(Number.isInteger(id) && (id as number) >= 0 && (id as number) < 2 ** 32));
  if (wrong >= 0) throw badField(path, `${path}[${wrong}] is not a token id.`);
  return Uint32Array.from(list as number[]);
}

/**
 * The tokens of a prompt, with those that the tokenizer puts before every text.
 *
 * @throws ApiError 400 when there are none, or one is not the model's
 */
export function promptIds({ tokenizer, config }: Mistral, prompt: TextPrompt): Uint32Array {
  const ids = typeof prompt === "string" ? tokenizer.encode(prompt, { addSpecialTokens: true }) : prompt;
  if (ids.length === 0) throw badField("prompt", "prompt is empty: there is nothing to continue.");
  const foreign = ids.find((id) => id >= config.vocab_size);
  if (foreign === undefined) return ids;
  throw badField("prompt", `prompt has the token id ${foreign}; the model knows those below ${config.vocab_size}.`);
}
