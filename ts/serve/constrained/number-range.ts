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

/** Digits behind the point at most. */
const places = 15;
const unit = 10n ** BigInt(places);

/**
 * Numbers from `low` to `high`, with up to 15 digits behind the point; undefined when there are none that are written so.
 * Bounds are the decimals that JSON has for them: what is between those is between them as doubles too.
 */
export function numbersBetween(low: number, high: number): Rule | undefined {
  const ways: (Rule | undefined)[] = [];
  // Zero has no sign.
  const least = high < 0 ? unitsOf(-high, "up") : 1n;
  if (low < 0) ways.push(signed(decimalsBetween(least, unitsOf(-low, "down"))));
  if (high >= 0) ways.push(decimalsBetween(low > 0 ? unitsOf(low, "up") : 0n, unitsOf(high, "down")));
  const found = ways.filter((way) => way !== undefined);
  return found.length === 0 ? undefined : choice(...found);
}

function signed(size: Rule | undefined): Rule | undefined {
  return size && sequence(text("-"), size);
}

/** A number, not negative, in units of the last digit that is written. */
function unitsOf(value: number, round: "up" | "down"): bigint {
  const [, whole = "", fraction = "", exponent = "0"] = /^(\d+)(?:\.(\d+))?(?:e([+-]\d+))?$/.exec(String(value)) ?? [];
  const digits = BigInt(whole + fraction);
  const shift = Number(exponent) - fraction.length + places;
  if (shift >= 0) return digits * 10n ** BigInt(shift);
  const divisor = 10n ** BigInt(-shift);
  return digits / divisor + (round === "up" && digits % divisor > 0n ? 1n : 0n);
}

/** Decimals, not negative, between two numbers of units. */
function decimalsBetween(low: bigint, high: bigint): Rule | undefined {
  if (low > high) return undefined;
  const [from, to] = [low / unit, high / unit];
  const [above, below] = [low, high].map((units) =>
    String(units % unit)
      .padStart(places, "0")
      .replace(/0+$/, ""),
  );
  if (from === to) return sequence(text(String(from)), fraction(above as string, below));
  const ways = [
    sequence(text(String(from)), fraction(above as string)),
    sequence(text(String(to)), fraction("", below)),
  ];
  const between = wholeBetween(Number(from) + 1, Number(to) - 1);
  if (between) ways.push(sequence(between, fraction("")));
  return choice(...ways);
}

/** The point and what follows it, or nothing: from `low` to `high`, digits behind the point without zeros at their end. */
function fraction(low: string, high?: string): Rule {
  const some = sequence(text("."), digitsFrom(low, high, places, 1));
  return low === "" ? optional(some) : some;
}

/** `least` to `most` digits behind a point that are between two others; what is not written is zero. */
function digitsFrom(low: string, high: string | undefined, most: number, least: number): Rule {
  if (low === "" && high === undefined) return repeat(digit, least, most);
  if (low === "" && high === "") return repeat(text("0"), least, most);
  const first = Number(low[0] ?? 0);
  const last = high === undefined ? 9 : Number(high[0] ?? 0);
  const ways: Rule[] = [];
  const add = (digits: string, low: string, high: string | undefined) => {
    // Behind the last place, the lower bound has no digits any more.
    if (digits !== "")
      ways.push(sequence(oneOf(digits), most === 1 ? text("") : digitsFrom(low, high, most - 1, low === "" ? 0 : 1)));
  };
  if (first === last) add(String(first), low.slice(1), high?.slice(1));
  else {
    add(String(first), low.slice(1), undefined);
    add("0123456789".slice(first + 1, high === undefined ? 10 : last), "", undefined);
    if (high !== undefined) add(String(last), "", high.slice(1));
  }
  return least === 0 && low === "" ? choice(text(""), ...ways) : choice(...ways);
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
