/**
 * Options as plain JavaScript may give them, checked by a table: types do not reach there, and the core would cut a number
 * to what it can hold. Without zod, which is larger than all else that a browser loads.
 */
import { ConfigError, type ErrorCode } from "../errors";
import { nearestKey } from "../nearest-key";

/** What an option may be. */
export interface Rule {
  fits: (value: unknown) => boolean;
  /** How a remedy says it, behind "Take". */
  take: string;
}

/** A value of an option, in a few words. */
export function shown(value: unknown): string {
  if (typeof value === "number" || typeof value === "bigint") return String(value);
  const text = typeof value === "function" ? "a function" : (JSON.stringify(value) ?? String(value));
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}

export function optionError(code: ErrorCode, field: string, problem: string, remedy: string): ConfigError {
  return new ConfigError(code, problem, { place: { field }, remedy, problems: [{ field, problem, remedy }] });
}

/**
 * Checks options by their rules; what is undefined counts as left out.
 *
 * @param elsewhere what options of other programs, and of older kin, are called here
 * @throws ConfigError with the field and what it may be
 */
export function checkOptions(
  options: object,
  rules: Readonly<Record<string, Rule>>,
  code: ErrorCode,
  elsewhere: Readonly<Record<string, string>> = {},
): void {
  if (typeof options !== "object" || options === null || Array.isArray(options)) {
    throw optionError(
      code,
      "options",
      `the options are ${shown(options)}`,
      "Give them as an object, or leave them out.",
    );
  }
  for (const [field, value] of Object.entries(options)) {
    if (value === undefined) continue;
    const rule = Object.hasOwn(rules, field) ? rules[field] : undefined;
    if (!rule) {
      const keys = Object.keys(rules);
      const near = elsewhere[field.replaceAll(/[-_]/g, "").toLowerCase()] ?? nearestKey(field, keys);
      const remedy = near ? `Did you mean ${near}?` : `There are ${keys.join(", ")}.`;
      throw optionError(code, field, `there is no option ${field}`, remedy);
    }
    if (!rule.fits(value)) throw optionError(code, field, `${field} is ${shown(value)}`, `Take ${rule.take}.`);
  }
}

export const whole = (low: number, high: number, take = `a whole number from ${low} to ${high}`): Rule => ({
  fits: (value) => Number.isInteger(value) && (value as number) >= low && (value as number) <= high,
  take,
});

export const number = (fits: (value: number) => boolean, take: string): Rule => ({
  fits: (value) => typeof value === "number" && Number.isFinite(value) && fits(value),
  take,
});

export const flag: Rule = { fits: (value) => typeof value === "boolean", take: "true or false" };
export const text: Rule = { fits: (value) => typeof value === "string" && value !== "", take: "a text" };

export const one = (...values: readonly string[]): Rule => ({
  fits: (value) => values.includes(value as string),
  take: values.map((value) => JSON.stringify(value)).join(" or "),
});
