import type { z } from "zod";
import type { ChatModel } from "../client/chat-model";
import type { Rule } from "../model/option-rules";
import { asObject, configError, givenProblems, problemsOf } from "../train/config-problems";

/** Checks options by their schema; throws `ZA_CONFIG_INVALID` with all that is wrong. */
export function resolved<Schema extends z.ZodObject>(schema: Schema, input: unknown): z.output<Schema> {
  const { data, error } = schema.safeParse(input);
  if (error) throw configError(error.issues.flatMap((issue) => problemsOf(issue, schema)));
  return data as z.output<Schema>;
}

const isChatModel = (value: unknown): value is ChatModel =>
  typeof value === "object" && value !== null && "complete" in value;

/** A model that is asked. */
export const chatModel: Rule = {
  fits: isChatModel,
  take: "a model that is asked: new OpenAiChat(…), mistralChat(model), or one of your own",
};

/** At least one of them. */
export const chatModels: Rule = {
  fits: (value) => Array.isArray(value) && value.length > 0 && value.every(isChatModel),
  take: "a list of at least one model that is asked",
};

/**
 * What is given besides plain options.
 *
 * @param needed what may not be left out
 * @throws ConfigError `ZA_CONFIG_INVALID` with all that is missing or something else
 */
export function checkGiven(options: object, rules: Readonly<Record<string, Rule>>, needed: readonly string[]): void {
  const problems = givenProblems(asObject(options), rules, needed);
  if (problems.length > 0) throw configError(problems);
}
