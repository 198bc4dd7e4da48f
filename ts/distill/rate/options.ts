import { z } from "zod";
import type { ChatModel } from "../../client";
import { resolved } from "../options";
import type { FeedbackPrompt } from "./prompts";

const count = z.int().positive();

/** Plain options of the rater; every key may be left out. */
export const rateFields = {
  /** @default 42 */
  seed: z.int().nonnegative().default(42),
  /** Answers to each prompt; a smaller pool answers several times. @default 4 */
  answers: count.min(2).max(26).default(4),
  /** Answer under a drawn principle, as UltraFeedback did; models that take no system message never do. @default true */
  principles: z.boolean().default(true),
  /** Longest answer in tokens. @default 1024 */
  maxTokens: count.default(1024),
  /** Of the answers. @default 1 */
  temperature: z.number().min(0).max(2).default(1),
  /** Rate all four aspects in one call, or each in its own, as UltraFeedback did. @default "together" */
  ratings: z.enum(["together", "each"]).default("together"),
  /** Ask for a critique with an overall score of each answer (one call each). @default true */
  critique: z.boolean().default(true),
  /** Times that an answer which cannot be read is asked for again. @default 1 */
  reasks: z.int().nonnegative().max(10).default(1),
  /** Prompts under way at once. @default 4 */
  concurrency: count.max(100_000).default(4),
};

const schema = z.strictObject(rateFields);

/** Options as a user writes them. */
export type RateSettingsInput = z.input<typeof schema>;

/** Options with nothing left out. */
export type RateSettings = z.output<typeof schema>;

/** What the rater is given. */
export interface RateOptions extends RateSettingsInput {
  prompts: AsyncIterable<FeedbackPrompt> | Iterable<FeedbackPrompt>;
  /** The models that answer. */
  pool: readonly ChatModel[];
  /** The model that rates and criticises. */
  rater: ChatModel;
  /** Prompts that are passed over, by their `prompt_id`: those rated before. */
  done?: ReadonlySet<string>;
  signal?: AbortSignal;
}

/** Checks the plain options and fills in the defaults. Throws `ZA_CONFIG_INVALID` with all problems. */
export function rateSettings(input: RateSettingsInput): RateSettings {
  return resolved(schema, input);
}
