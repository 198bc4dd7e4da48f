/** The options of generating, checked: one table for `generate`, `stream` and `generateBatch`. */
import { typeName } from "../data/messages";
import { brokenCharacter } from "../data/well-formed";
import { wholeText } from "./given-text";
import type { Prompt, TextTokenizer } from "./language-model";
import { checkOptions, flag, number, one, optionError, type Rule, whole } from "./option-rules";
import type { EncodeOptions } from "./tokenizer";

/** The most alternatives that can be asked for at each place. */
export const mostLogprobs = 100;

/** Seeds are whole numbers below this; negative ones count from it down. */
export const seeds = 2 ** 47;

const seed = whole(Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER, "a whole number");
const stopText = (value: unknown) => typeof value === "string" && value !== "" && brokenCharacter(value) === undefined;

const shared: Readonly<Record<string, Rule>> = {
  specialsInContent: one("text", "parse"),
  answerEnd: one("eos", "turn"),
  maxTokens: whole(0, Number.MAX_SAFE_INTEGER, "a whole number, not negative"),
  temperature: number((value) => value >= 0, "a number, not negative; 0 is greedy"),
  topK: whole(0, 2 ** 32 - 1, "a whole number, not negative; 0 is off"),
  topP: number((value) => value > 0 && value <= 1, "a number above 0, up to 1; 1 is off"),
  minP: number((value) => value >= 0 && value <= 1, "a number from 0 to 1; 0 is off"),
  repetitionPenalty: number((value) => value > 0, "a number above 0; 1 is off"),
  seed,
  signal: {
    fits: (value) => typeof (value as Partial<AbortSignal> | null)?.addEventListener === "function",
    take: "the signal of an AbortController",
  },
  logprobs: {
    fits: (value) => typeof value === "boolean" || whole(0, mostLogprobs).fits(value),
    take: `true, or a whole number from 0 to ${mostLogprobs}`,
  },
  kvCache: one("float32", "float16", "q8"),
};

const ofScore: Readonly<Record<string, Rule>> = {
  specialsInContent: shared.specialsInContent!,
  answerEnd: shared.answerEnd!,
  signal: shared.signal!,
  exact: flag,
};

const ofOne: Readonly<Record<string, Rule>> = {
  ...shared,
  stop: {
    fits: (value) => stopText(value) || (Array.isArray(value) && value.every(stopText)),
    take: "a text, or a list of texts, none empty",
  },
  onToken: { fits: (value) => typeof value === "function", take: "a function" },
  reuse: flag,
};

const ofBatch: Readonly<Record<string, Rule>> = {
  ...shared,
  batchSize: whole(1, Number.MAX_SAFE_INTEGER, "a whole number above 0"),
  seeds: { fits: (value) => Array.isArray(value) && value.every(seed.fits), take: "a list of whole numbers" },
};

/** As other programs call them. */
const elsewhere = { maxnewtokens: "maxTokens", maxcompletiontokens: "maxTokens", numpredict: "maxTokens" };

/** @throws ConfigError `ZA_GENERATE_OPTION` */
export function checkGenerateOptions(options: object): void {
  checkOptions(options, ofOne, "ZA_GENERATE_OPTION", elsewhere);
}

/** Those of `score` and `logits`. @throws ConfigError `ZA_GENERATE_OPTION` */
export function checkScoreOptions(options: object): void {
  checkOptions(options, ofScore, "ZA_GENERATE_OPTION");
}

/** @throws ConfigError `ZA_GENERATE_OPTION`, `ZA_ARGUMENT` for prompts that are no list */
export function checkBatch(prompts: unknown, options: object): void {
  if (!Array.isArray(prompts)) {
    throw optionError(
      "ZA_ARGUMENT",
      "prompts",
      `expected prompts, found ${typeName(prompts)}`,
      "Give a list of prompts.",
    );
  }
  const { stop, onToken, reuse, ...rest } = (options ?? {}) as Record<string, unknown>;
  // What asks for nothing may stand there.
  const asked = {
    stop: Array.isArray(stop) && stop.length === 0 ? undefined : stop,
    onToken,
    reuse: reuse || undefined,
  };
  const [field] = Object.entries(asked).find(([, value]) => value !== undefined) ?? [];
  if (field !== undefined) {
    throw optionError(
      "ZA_GENERATE_OPTION",
      field,
      `${field} is no option of a batch`,
      "Take generate() for each prompt.",
    );
  }
  const names = { ...elsewhere, n: "seeds" };
  checkOptions(options === null ? (options as never) : rest, ofBatch, "ZA_GENERATE_OPTION", names);
  const given = (rest.seeds as readonly number[] | undefined)?.length;
  if (given === undefined || given === prompts.length) return;
  const problem = `there are ${given} seeds for ${prompts.length} prompts`;
  throw optionError("ZA_GENERATE_OPTION", "seeds", problem, "Give one for each prompt, or a seed for the first.");
}

/**
 * The ids of a prompt of any kind; a promise where the tokenizer is elsewhere.
 *
 * @throws ConfigError `ZA_ARGUMENT` for what is no prompt, DataError `ZA_MESSAGE_CONTENT`
 */
export function promptIds<T extends Pick<TextTokenizer, "encode" | "encodePrompt">>(
  tokenizer: T,
  prompt: Prompt,
  options: EncodeOptions,
): Uint32Array | ReturnType<T["encode"]> | ReturnType<T["encodePrompt"]> {
  if (prompt instanceof Uint32Array) return prompt;
  if (typeof prompt === "string") {
    const { specialsInContent: specials } = options;
    const whole = wholeText(prompt, "prompt");
    return tokenizer.encode(whole, { addSpecialTokens: true, ...(specials ? { specials } : {}) }) as ReturnType<
      T["encode"]
    >;
  }
  if (Array.isArray(prompt)) return tokenizer.encodePrompt(prompt, options) as ReturnType<T["encodePrompt"]>;
  const remedy = "Give messages, or a text or token ids (a Uint32Array) to continue.";
  throw optionError("ZA_ARGUMENT", "prompt", `expected a prompt, found ${typeName(prompt)}`, remedy);
}

/** A seed as the core takes it. */
export function seedOf(seed: number): number {
  return seed < 0 ? ((seed % seeds) + seeds) % seeds : seed;
}

/** Stop texts as a list. */
export function stopsOf(stop: string | readonly string[] | undefined): string[] {
  return typeof stop === "string" ? [stop] : [...(stop ?? [])];
}
