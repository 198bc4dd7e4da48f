/** A few prompts of the data, answered before and after training: numbers alone hide what a model says. */
import type { ConvertedDataset, Message, PairRow, SftRow, UnpairedRow } from "../data";
import { OutOfMemoryError } from "../errors";
import type { Generated } from "../model/generation";
import type { BatchOptions } from "../model/language-model";
import { chooseDevice } from "../native/devices";
import type { RunReportSample } from "../report";
import { aside } from "./log";
import type { Run } from "./run";

/** Tokens of a sample's answer. */
const maxTokens = 96;

/** Prompts with the answers of the model as it was. */
export interface Samples {
  prompts: Message[][];
  before: string[];
}

/** The first conversational prompts of the data, answered greedily by the model as it is. */
export async function sampleBefore(
  run: Run,
  dataset: ConvertedDataset<SftRow> | ConvertedDataset<PairRow> | ConvertedDataset<UnpairedRow | PairRow>,
  count: number,
): Promise<Samples> {
  const prompts: Message[][] = [];
  if (count > 0) {
    for await (const row of dataset) {
      const prompt = promptOf(row);
      if (prompt) prompts.push(prompt);
      if (prompts.length >= count) break;
    }
    const { sampleSteps } = run.config;
    if (prompts.length === 0 && sampleSteps > 0) {
      run.warn(`no row is a conversation with a prompt: nothing is asked every ${sampleSteps} steps`);
    }
  }
  return { prompts, before: await ask(run, prompts, 0) };
}

/** The same prompts answered in between, every `sampleSteps`. */
export async function sampleDuring(run: Run, { prompts }: Samples, step: number): Promise<void> {
  const { sampleSteps } = run.config;
  if (sampleSteps > 0 && step % sampleSteps === 0 && step < run.plan.totalSteps) {
    await aside(run, ask, prompts, step);
  }
}

/** The same prompts answered again. */
export async function sampleAfter(run: Run, { prompts, before }: Samples): Promise<RunReportSample[]> {
  const after = await ask(run, prompts, run.doneSteps);
  return prompts.map((messages, index) => ({
    prompt: promptText(messages),
    before: before[index]!,
    after: after[index]!,
  }));
}

/** Answers, which are told as an event too. */
async function ask(run: Run, prompts: readonly Message[][], step: number): Promise<string[]> {
  const answers = await answer(run, prompts);
  const samples = prompts.map((messages, index) => ({ prompt: promptText(messages), answer: answers[index]! }));
  if (samples.length > 0) run.events.push({ type: "samples", step, samples });
  return answers;
}

function promptText(messages: readonly Message[]): string {
  return messages.map(({ role, content }) => `${role}: ${content}`).join("\n");
}

function promptOf(row: SftRow | PairRow | UnpairedRow): Message[] | undefined {
  if (row.kind !== "chat") return undefined;
  if ("prompt" in row) return row.prompt;
  const answer = row.messages.findIndex(({ role }) => role === "assistant");
  return answer > 0 ? row.messages.slice(0, answer) : undefined;
}

async function answer(run: Run, prompts: readonly Message[][]): Promise<string[]> {
  const { model, signal } = run;
  if (prompts.length === 0) return [];
  const room = model.config.max_position_embeddings - maxTokens;
  const fitting = prompts.filter((prompt) => model.tokenizer.encodePrompt(prompt).length <= room);
  const answers = await generate(run, fitting, { maxTokens, ...(signal ? { signal } : {}) });
  return prompts.map((prompt) => answers[fitting.indexOf(prompt)]?.text ?? "(the prompt is longer than the context)");
}

/** By the weights that are trained, where they are trained; where a card has no room beside the training, on the CPU. */
async function generate(run: Run, prompts: readonly Message[][], options: BatchOptions): Promise<Generated[]> {
  const { model, session } = run;
  if (model.device.kind === "cpu") return model.generateBatch(prompts, options);
  try {
    return await model.generateBatchIn(session, prompts, options);
  } catch (error) {
    if (!(error instanceof OutOfMemoryError)) throw error;
    run.warn(`samples are answered on the CPU: ${error.message}`);
  }
  await session.fetch();
  return model.on(await chooseDevice("cpu")).generateBatch(prompts, options);
}
