/** What is known of models that servers offer: price, context, abilities. One small table, and the user's own over it. */
import { readFile } from "node:fs/promises";
import { z } from "zod";
import { ConfigError, fromNative } from "../errors";
import type { Usage } from "./chat-model";

const facts = {
  /** Dollars per million tokens of the question. */
  input: z.number().nonnegative(),
  /** Dollars per million tokens of the answer. */
  output: z.number().nonnegative(),
  /** Share of the price that a batch costs. @default 0.5 */
  batch: z.number().min(0).max(1).optional(),
  /** Tokens of question and answer together. */
  context: z.number().int().positive().optional(),
  /** Alternatives with log-probabilities that can be asked for. @default 20 */
  topLogprobs: z.number().int().min(0).max(20).optional(),
  /** Whether answers can be bound to a JSON schema. @default true; it is found out at the first refusal */
  schema: z.boolean().optional(),
  /** Whether a system message is honoured. @default true */
  system: z.boolean().optional(),
  /** The field that limits the answer's length. @default "max_tokens" */
  limit: z.enum(["max_tokens", "max_completion_tokens"]).optional(),
};

/** A row of the table. Prices are in dollars per million tokens. */
export type ModelFacts = z.infer<z.ZodObject<typeof facts>>;

/** Models by the name that the server knows them by. */
export type ModelTable = Readonly<Record<string, ModelFacts>>;

const chat = { topLogprobs: 20, schema: true } as const;
/** Models that think first: no log-probabilities, and the limit counts the thoughts. */
const reasoning = { topLogprobs: 0, schema: true, limit: "max_completion_tokens" } as const;
const early = { topLogprobs: 5, schema: false } as const;

/**
 * List prices of the end of 2025, without discounts (cached input is cheaper: the true bill is then lower). Prices change:
 * look at the provider's page, and override a row with `prices` where it is no longer true. Snapshots are rows of their
 * own, because a price belongs to a snapshot; a name that is not here has no price.
 */
const known: ModelTable = {
  "gpt-4": { input: 30, output: 60, context: 8192, ...early },
  "gpt-4-0613": { input: 30, output: 60, context: 8192, ...early },
  "gpt-4-1106-preview": { input: 10, output: 30, context: 128_000, ...early },
  "gpt-4-0125-preview": { input: 10, output: 30, context: 128_000, ...early },
  "gpt-4-turbo": { input: 10, output: 30, context: 128_000, ...chat, schema: false },
  "gpt-4-turbo-2024-04-09": { input: 10, output: 30, context: 128_000, ...chat, schema: false },
  "gpt-4o": { input: 2.5, output: 10, context: 128_000, ...chat },
  "gpt-4o-2024-05-13": { input: 5, output: 15, context: 128_000, ...chat, schema: false },
  "gpt-4o-2024-08-06": { input: 2.5, output: 10, context: 128_000, ...chat },
  "gpt-4o-2024-11-20": { input: 2.5, output: 10, context: 128_000, ...chat },
  "gpt-4o-mini": { input: 0.15, output: 0.6, context: 128_000, ...chat },
  "gpt-4o-mini-2024-07-18": { input: 0.15, output: 0.6, context: 128_000, ...chat },
  "gpt-4.1": { input: 2, output: 8, context: 1_047_576, ...chat },
  "gpt-4.1-2025-04-14": { input: 2, output: 8, context: 1_047_576, ...chat },
  "gpt-4.1-mini": { input: 0.4, output: 1.6, context: 1_047_576, ...chat },
  "gpt-4.1-mini-2025-04-14": { input: 0.4, output: 1.6, context: 1_047_576, ...chat },
  "gpt-4.1-nano": { input: 0.1, output: 0.4, context: 1_047_576, ...chat },
  "gpt-4.1-nano-2025-04-14": { input: 0.1, output: 0.4, context: 1_047_576, ...chat },
  "gpt-3.5-turbo": { input: 0.5, output: 1.5, context: 16_385, ...chat, schema: false },
  "gpt-3.5-turbo-0125": { input: 0.5, output: 1.5, context: 16_385, ...chat, schema: false },
  "gpt-3.5-turbo-1106": { input: 1, output: 2, context: 16_385, ...chat, schema: false },
  o1: { input: 15, output: 60, context: 200_000, ...reasoning },
  o3: { input: 2, output: 8, context: 200_000, ...reasoning },
  "o3-mini": { input: 1.1, output: 4.4, context: 200_000, ...reasoning },
  "o4-mini": { input: 1.1, output: 4.4, context: 200_000, ...reasoning },
  "gpt-5": { input: 1.25, output: 10, context: 400_000, ...reasoning },
  "gpt-5-mini": { input: 0.25, output: 2, context: 400_000, ...reasoning },
  "gpt-5-nano": { input: 0.05, output: 0.4, context: 400_000, ...reasoning },
};

/** The facts of a model: the user's row over ours. undefined: nothing is known, and there is no price. */
export function factsOf(model: string, own: ModelTable = {}): ModelFacts | undefined {
  if (Object.hasOwn(own, model)) return { ...(Object.hasOwn(known, model) ? known[model] : {}), ...own[model]! };
  return Object.hasOwn(known, model) ? known[model] : undefined;
}

/** Dollars of so many tokens. */
export function priceOf(facts: ModelFacts, { promptTokens, completionTokens }: Usage): number {
  return (promptTokens * facts.input + completionTokens * facts.output) / 1e6;
}

const tableSchema = z.record(z.string(), z.strictObject(facts));

/**
 * Reads a table of one's own: `{"model": {"input": 0.5, "output": 1.5, "context": 32768}}`, dollars per million tokens.
 *
 * @throws ConfigError `ZA_CONFIG_INVALID` with file and field, IoError.
 */
export async function readPrices(file: string): Promise<ModelTable> {
  const text = await readFile(file, "utf8").catch((error) => {
    throw fromNative(error, { file });
  });
  const refuse = (problem: string, field?: string, cause?: unknown) =>
    new ConfigError("ZA_CONFIG_INVALID", problem, {
      place: { file, ...(field === undefined ? {} : { field }) },
      remedy: 'Write {"model": {"input": 0.5, "output": 1.5}}: dollars per million tokens.',
      cause,
    });
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    throw refuse(`the prices are not JSON: ${(error as Error).message}`, undefined, error);
  }
  const checked = tableSchema.safeParse(parsed);
  if (checked.success) return checked.data;
  const [issue] = checked.error.issues;
  throw refuse(issue?.message ?? "the prices cannot be read", issue?.path.join("."));
}
