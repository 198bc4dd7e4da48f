/** What is said of a configuration that cannot be honoured. */
import type { z } from "zod";
import { typeName } from "../data/messages";
import { ConfigError, type ConfigProblem } from "../errors";
import type { Rule } from "../model/option-rules";
import { nearestKey } from "../nearest-key";
import { dpoLosses } from "./config-fields";

/** The error of a configuration, with all its problems. */
export function configError(problems: ConfigProblem[]): ConfigError {
  const lines = problems.map(({ field, problem, remedy }) => `\n  ${field}: ${problem}. ${remedy}`).join("");
  const count = problems.length === 1 ? "one problem" : `${problems.length} problems`;
  return new ConfigError("ZA_CONFIG_INVALID", `the configuration has ${count}:${lines}`, {
    problems,
    ...(problems.length === 1 ? { place: { field: problems[0]!.field } } : {}),
  });
}

/** What is wrong with a key, from what zod says. */
export function problemsOf(issue: z.core.$ZodIssue, schema: z.ZodObject): ConfigProblem[] {
  if (issue.code === "unrecognized_keys") {
    return issue.keys.map((field) => {
      const nearest = nearestKey(field, Object.keys(schema.shape));
      return {
        field,
        problem: "there is no such option",
        remedy: nearest ? `Did you mean ${nearest}?` : "Remove it.",
      };
    });
  }
  const field = issue.path
    .map((part, i) => (typeof part === "number" ? `[${part}]` : i > 0 ? `.${String(part)}` : String(part)))
    .join("");
  const key = String(issue.path[0]);
  const text = issue.message.replace(/^Invalid (input|option): /, "");
  // A union fails with one list of issues per member; for the losses the names are what helps.
  if (key === "lossType") {
    return [{ field, problem: "it is not a loss", remedy: `Known losses: ${dpoLosses.join(", ")}.` }];
  }
  if (key === "device") return [{ field, problem: "it is no device", remedy: "Take auto, cpu, cuda or cuda:1." }];
  return [{ field, problem: lowerFirst(text), remedy: remedyOf(issue) }];
}

/**
 * What is wrong with models, rows and the like that are given, as plain JavaScript may give them. What is undefined counts as
 * left out.
 *
 * @param needed what may not be left out
 */
export function givenProblems(
  given: Readonly<Record<string, unknown>>,
  rules: Readonly<Record<string, Rule>>,
  needed: readonly string[],
): ConfigProblem[] {
  return Object.entries(rules).flatMap(([field, { fits, take }]) => {
    const value = given[field];
    if (value === undefined ? !needed.includes(field) : fits(value)) return [];
    const problem = value === undefined ? "it is missing" : `it is ${typeName(value)}`;
    return [{ field, problem, remedy: `Give ${take}.` }];
  });
}

/** Options as an object; what is none has every key left out. */
export function asObject(options: unknown): Record<string, unknown> {
  return typeof options === "object" && options !== null ? { ...options } : {};
}

function remedyOf(issue: z.core.$ZodIssue): string {
  switch (issue.code) {
    case "invalid_value":
      return `Choose one of ${issue.values.map((value) => JSON.stringify(value)).join(", ")}.`;
    case "too_small":
      return `Give a value ${issue.inclusive === false ? "above" : "of at least"} ${issue.minimum}.`;
    case "too_big":
      return `Give a value ${issue.inclusive === false ? "below" : "of at most"} ${issue.maximum}.`;
    case "invalid_union":
      return issue.errors
        .flat()
        .map((each) => remedyOf(each))
        .join(" Or: ");
    case "invalid_type":
      return `Give ${issue.expected === "int" ? "a whole number" : `a value of type ${issue.expected}`}.`;
    default:
      return "See the documentation of the option.";
  }
}

function lowerFirst(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1);
}
