/** Answers of `/v1/chat/completions`. */
import type { AnswerLogprob, Generated } from "../model/generation";
import type { ChatCompletionRequest } from "./chat-request";
import { type Exchange, indices, usageOf } from "./exchange";
import { shownCount, spelledInBytes } from "./token-logprobs";

/** A prompt that fits, and the longest answer to it. */
export interface ChatPrompt {
  ids: Uint32Array;
  maxTokens: number;
}

/** The whole completion. */
export async function chatCompletion(exchange: Exchange, request: ChatCompletionRequest, prompt: ChatPrompt) {
  const answers = await Promise.all(
    indices(request.choices).map((index) => generate(exchange, request, prompt, index)),
  );
  const usage = usageOf(prompt.ids.length, answers);
  const completion = {
    ...head(exchange, "chat.completion"),
    choices: answers.map((answer, index) => ({
      index,
      message: { role: "assistant", content: answer.text, refusal: null },
      logprobs: logprobsOf(exchange, answer),
      finish_reason: answer.finishReason,
    })),
    usage,
  };
  return { completion, usage };
}

/**
 * The completion in chunks. Log-probabilities come in one chunk behind the text: what a stop text takes away is known only
 * then.
 */
export async function streamChatCompletion(
  exchange: Exchange,
  request: ChatCompletionRequest,
  prompt: ChatPrompt,
  send: (event: unknown) => void,
) {
  const chunk = (choices: readonly object[], usage: object | null = null) =>
    send({ ...head(exchange, "chat.completion.chunk"), choices, ...(request.usage ? { usage } : {}) });
  const piece = (index: number, delta: object, finish: string | null = null, logprobs: object | null = null) =>
    chunk([{ index, delta, logprobs, finish_reason: finish }]);
  const answers = await Promise.all(
    indices(request.choices).map(async (index) => {
      piece(index, { role: "assistant", content: "", refusal: null });
      const answer = await generate(exchange, request, prompt, index, (content) => piece(index, { content }));
      const logprobs = logprobsOf(exchange, answer);
      if (logprobs) piece(index, { content: "" }, null, logprobs);
      piece(index, {}, answer.finishReason);
      return answer;
    }),
  );
  const usage = usageOf(prompt.ids.length, answers);
  if (request.usage) chunk([], usage);
  return { usage };
}

function head({ id, created, served }: Exchange, object: string) {
  return { id, object, created, model: served.name };
}

function generate(
  exchange: Exchange,
  request: ChatCompletionRequest,
  { ids, maxTokens }: ChatPrompt,
  index: number,
  onToken?: (piece: string) => void,
): Promise<Generated> {
  const { topLogprobs, grammar } = request;
  return exchange.generate(ids, request, index, { maxTokens, topLogprobs, grammar, ...(onToken ? { onToken } : {}) });
}

function logprobsOf({ served }: Exchange, answer: Generated) {
  if (!answer.logprobs) return null;
  const { tokenizer } = served.model;
  const { ids, logprobs } = answer;
  const entry = (place: number, id: number, logprob: number) => {
    const { token, bytes } = spelledInBytes(tokenizer, place === 0 ? undefined : ids[place - 1], id);
    return { token, logprob, bytes };
  };
  const content = logprobs
    .slice(0, shownCount(tokenizer, answer))
    .map(({ id, logprob, top }: AnswerLogprob, place) => ({
      ...entry(place, id, logprob),
      top_logprobs: top.map((each) => entry(place, each.id, each.logprob)),
    }));
  return { content, refusal: null };
}
