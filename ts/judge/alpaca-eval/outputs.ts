/** Outputs to AlpacaEval's instructions by any model. */
import { existsSync } from "node:fs";
import type { ChatModel } from "../../client";
import { concurrently } from "../../client/concurrently";
import { ConfigError, throwIfAborted } from "../../errors";
import { JsonLines, pythonJson } from "../json-lines";
import type { Generator } from "./comparison";
import { type Output, type OutputGeneration, readOutputs } from "./files";

/** How instructions are answered; the defaults are those of AlpacaEval's own configuration of Zephyr. */
export interface GenerateOutputsOptions {
  /** Name of the outputs (`generator`). @default the model's name */
  name?: string;
  /** @default 2048 */
  maxTokens?: number;
  /** @default 0.7 */
  temperature?: number;
  /** The chat template that the model answers with, to be written into the file: a name or a hash. */
  template?: string;
  /** JSON lines of outputs: what is there is kept, what is missing is added. */
  file?: string;
  /** Write what is new into the file; false only reads it, for a dry run. @default true */
  keep?: boolean;
  /** Instructions in work at once. @default 4 */
  concurrency?: number;
  signal?: AbortSignal;
  onOutput?: (done: number, instructions: number) => void;
}

/**
 * Answers every instruction once. Each output is in the file before the next begins; the same call goes on where one ended.
 *
 * @param instructions for example the baseline's outputs, of which instruction and data set are taken
 * @throws ConfigError `ZA_CONFIG_INVALID` when the file holds outputs that were made with other options.
 */
export async function generateOutputs(
  model: ChatModel,
  instructions: readonly Pick<Output, "instruction" | "dataset">[],
  options: GenerateOutputsOptions = {},
): Promise<Generator> {
  const { name = model.name, file, keep = true, concurrency = 4, signal } = options;
  const generation: OutputGeneration = {
    template: options.template ?? null,
    max_tokens: options.maxTokens ?? 2048,
    temperature: options.temperature ?? 0.7,
  };
  // Opened before it is read: half a line at its end goes first.
  const lines = file === undefined || !keep ? undefined : await JsonLines.open(file);
  const before = file !== undefined && existsSync(file) ? await readOutputs(file) : [];
  for (const output of before) checkGeneration(output, generation, file!);
  const outputs = new Map(before.map((output) => [output.instruction, output]));
  const open = instructions.filter(({ instruction }) => !outputs.has(instruction));
  try {
    for await (const output of concurrently(open, concurrency, async ({ instruction, dataset }): Promise<Output> => {
      throwIfAborted(signal);
      const { text } = await model.complete({
        messages: [{ role: "user", content: instruction }],
        sampling: { temperature: generation.temperature, topP: 1, maxTokens: generation.max_tokens, seed: 0 },
        purpose: "answer alpaca-eval",
        ...(signal ? { signal } : {}),
      });
      return {
        instruction,
        output: text.trim(),
        generator: name,
        ...(dataset === undefined ? {} : { dataset }),
        generation,
      };
    })) {
      outputs.set(output.instruction, output);
      await lines?.append(output);
      options.onOutput?.(outputs.size, instructions.length);
    }
  } finally {
    await lines?.close();
  }
  return { name, outputs: instructions.map(({ instruction }) => outputs.get(instruction)!), file, generated: true };
}

function checkGeneration(output: Output, generation: OutputGeneration, file: string): void {
  if (!output.generation || pythonJson(output.generation) === pythonJson(generation)) return;
  const problem = `outputs were made with ${pythonJson(output.generation)}, now asked is ${pythonJson(generation)}`;
  throw new ConfigError("ZA_CONFIG_INVALID", problem, {
    place: { file },
    remedy: "Give the same options, or another file for the new outputs.",
  });
}
