/** Answers of a pool, each under a drawn principle. */
import type { ChatModel } from "../../client";
import type { Message } from "../../data/messages";
import { throwIfAborted } from "../../errors";
import { drawOne, drawOrder, drawWeighted, seedOf } from "../draw";
import { principleMixes, principles } from "../prompts/principles";
import type { RateSettings } from "./options";
import type { FeedbackPrompt } from "./prompts";

/** One answer, or why there is none. */
export interface PoolAnswer {
  model: string;
  principle: string;
  system: string;
  text: string;
  problem?: string;
}

/**
 * Asks as many models as answers are wanted, in drawn order; a pool that is smaller answers again, with another draw.
 * Empty and withheld answers are problems, not answers.
 */
export async function poolAnswers(
  prompt: FeedbackPrompt,
  id: string,
  pool: readonly ChatModel[],
  settings: RateSettings,
  signal: AbortSignal | undefined,
): Promise<PoolAnswer[]> {
  const { seed, answers, maxTokens, temperature } = settings;
  const order = drawOrder(pool, seed, "pool", id);
  const asked = Array.from({ length: answers }, async (_, index): Promise<PoolAnswer> => {
    throwIfAborted(signal);
    const model = order[index % order.length]!;
    const system = principleOf(prompt, id, index, model, settings);
    const first: Message[] = system.text === "" ? [] : [{ role: "system", content: system.text }];
    const response = await model.complete({
      messages: [...first, ...prompt.history, { role: "user", content: prompt.instruction }],
      sampling: { maxTokens, temperature, topP: 1, seed: seedOf(seed, "answer", id, index) },
      sampleIndex: Math.floor(index / order.length),
      purpose: "rate answer",
      ...(signal && { signal }),
    });
    const text = response.text.trim();
    const given = { model: model.name, principle: system.principle, system: system.text, text };
    if (response.finishReason === "filtered") return { ...given, problem: "the provider held the answer back" };
    return text === "" ? { ...given, problem: "the answer is empty" } : given;
  });
  return Promise.all(asked);
}

function principleOf(
  { source, history }: FeedbackPrompt,
  id: string,
  index: number,
  model: ChatModel,
  settings: RateSettings,
): { principle: string; text: string } {
  // A conversation that brings a system message of its own keeps it.
  const free = settings.principles && model.capabilities.system && history[0]?.role !== "system";
  if (!free) return { principle: "none", text: "" };
  const mix = principleMixes[source] ?? principleMixes.default!;
  const principle = drawWeighted(mix, settings.seed, "principle", id, index);
  return { principle, text: drawOne(principles[principle], settings.seed, "wording", id, index) };
}
