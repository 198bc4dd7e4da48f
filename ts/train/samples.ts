/** A few prompts of the data, answered before and after training: numbers alone hide what a model says. */
import type { ConvertedDataset, Message, PairRow, SftRow } from "../data";
import type { Mistral } from "../model/mistral";
import type { RunReportSample } from "../report";

/** Tokens of a sample's answer. */
const maxTokens = 96;

/** Prompts with the answers of the model as it was. */
export interface Samples {
  prompts: Message[][];
  before: string[];
}

/** The first conversational prompts of the data, answered greedily by the model as it is. */
export async function sampleBefore(
  model: Mistral,
  dataset: ConvertedDataset<SftRow> | ConvertedDataset<PairRow>,
  count: number,
  signal?: AbortSignal,
): Promise<Samples> {
  const prompts: Message[][] = [];
  if (count > 0) {
    for await (const row of dataset) {
      const prompt = promptOf(row);
      if (prompt) prompts.push(prompt);
      if (prompts.length >= count) break;
    }
  }
  return { prompts, before: await answer(model, prompts, signal) };
}

/** The same prompts answered again. */
export async function sampleAfter(model: Mistral, samples: Samples, signal?: AbortSignal): Promise<RunReportSample[]> {
  const after = await answer(model, samples.prompts, signal);
  return samples.prompts.map((messages, index) => ({
    prompt: messages.map(({ role, content }) => `${role}: ${content}`).join("\n"),
    before: samples.before[index]!,
    after: after[index]!,
  }));
}

function promptOf(row: SftRow | PairRow): Message[] | undefined {
  if (row.kind !== "chat") return undefined;
  if ("prompt" in row) return row.prompt;
  const answer = row.messages.findIndex(({ role }) => role === "assistant");
  return answer > 0 ? row.messages.slice(0, answer) : undefined;
}

async function answer(model: Mistral, prompts: readonly Message[][], signal?: AbortSignal): Promise<string[]> {
  if (prompts.length === 0) return [];
  const room = model.config.max_position_embeddings - maxTokens;
  const fitting = prompts.filter((prompt) => model.tokenizer.encodePrompt(prompt).length <= room);
  const answers = await model.generateBatch(fitting, { maxTokens, ...(signal ? { signal } : {}) });
  return prompts.map((prompt) => answers[fitting.indexOf(prompt)]?.text ?? "(the prompt is longer than the context)");
}
