import { offlineModel } from "../../dist/index.js";

/** Answers as the offline teacher does; the model that is asked for names the writer, for example `offline:careless`. */
export default async function answer({ model, messages, response_format: format, ...sent }) {
  const { text, finishReason, logprobs, usage } = await offlineModel(model).complete({
    messages,
    sampling: {
      maxTokens: sent.max_completion_tokens ?? sent.max_tokens ?? 1024,
      temperature: sent.temperature,
      seed: sent.seed,
      stop: [sent.stop ?? []].flat(),
      ...(sent.logprobs ? { topLogprobs: sent.top_logprobs ?? 0 } : {}),
      ...(format?.type === "json_schema" ? { schema: format.json_schema } : {}),
    },
  });
  return { text, finishReason, logprobs, usage };
}
