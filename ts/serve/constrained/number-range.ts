/** Numbers between bounds, as grammars over their decimal digits. */
import { choice, oneOf, optional, type Rule, repeat, sequence, text } from "./grammar";

/** The largest whole number that is written: 15 digits, all of which a double keeps. */
export const largest = 999_999_999_999_999;

const digit = oneOf("0123456789");

/** Whole numbers from `low` to `high`; undefined when there are none. Both at most {@link largest} in size. */
export function integersBetween(low: number, high: number): Rule | undefined {
  const ways: Rule[] = [];
  if (low < 0) {
    const sizes = wholeBetween(Math.max(-high, 1), -low);
    if (sizes) ways.push(sequence(text("-"), sizes));
  }
  const whole = wholeBetween(Math.max(low, 0), high);
  if (whole) ways.push(whole);
  return ways.length === 0 ? undefined : choice(...ways);
}

/**
 * Numbers from `low` to `high`, with up to 15 digits behind the point; undefined when there are none. Between a bound that
 * is no whole number and the next whole number none are written.
 */
export function numbersBetween(low: number, high: number): Rule | undefined {
  const [first, last] = [Math.ceil(low), Math.floor(high)];
  const fraction = sequence(text("."), repeat(digit, 1, 15));
  const ways: Rule[] = [];
  const add = (sign: string, whole: Rule | undefined) => {
    if (whole) ways.push(sequence(text(sign), whole, fraction));
  };
  // A fraction leads away from zero.
  add("", wholeBetween(Math.max(first, 0), last - 1));
  add("-", wholeBetween(Math.max(-last, 0), -first - 1));
  const whole = integersBetween(first, last);
  if (whole) ways.push(whole);
  return ways.length === 0 ? undefined : choice(...ways);
}

/** Numbers without bounds. */
export const anyInteger = sequence(
  optional(text("-")),
  choice(text("0"), sequence(oneOf("123456789"), repeat(digit, 0, 14))),
);
export const anyNumber = sequence(
  anyInteger,
  optional(sequence(text("."), repeat(digit, 1, 15))),
  optional(sequence(oneOf("eE"), optional(oneOf("+-")), repeat(digit, 1, 2))),
);

/** Whole numbers that are not negative, without zeros before them. */
function wholeBetween(low: number, high: number): Rule | undefined {
  const ways: Rule[] = [];
  for (let length = String(low).length; length <= String(high).length && low <= high; length++) {
    const from = Math.max(low, length === 1 ? 0 : 10 ** (length - 1));
    const to = Math.min(high, 10 ** length - 1);
    if (from <= to) ways.push(digitsBetween(String(from), String(to)));
  }
  return ways.length === 0 ? undefined : choice(...ways);
}

/** Texts of digits between two of the same length. */
function digitsBetween(from: string, to: string): Rule {
  if (from === to) return text(from);
  const rest = from.length - 1;
  if (/^0+$/.test(from) && /^9+$/.test(to)) return repeat(digit, rest + 1, rest + 1);
  const [low, high] = [Number(from[0]), Number(to[0])];
  if (rest === 0) return oneOf("0123456789".slice(low, high + 1));
  if (low === high) return sequence(text(String(low)), digitsBetween(from.slice(1), to.slice(1)));
  const ways = [
    sequence(text(String(low)), digitsBetween(from.slice(1), "9".repeat(rest))),
    sequence(text(String(high)), digitsBetween("0".repeat(rest), to.slice(1))),
  ];
  if (high - low > 1) ways.push(sequence(oneOf("0123456789".slice(low + 1, high)), repeat(digit, rest, rest)));
  return choice(...ways);
}
