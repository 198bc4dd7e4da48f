import { readNumber, say } from "./numbers";
import type { Accept, Value, WordClass } from "./types";
import { classOf } from "./vocabulary";

/** Reads what an answer says, whatever its phrasing. Everything here takes arbitrary text and never throws. */

/** More than this is read by nobody: it bounds the judge's work on runaway answers. */
const longestRead = 4_000;

export interface Word {
  /** Lower-case. */
  text: string;
  number: number | undefined;
  class: WordClass | undefined;
  base: string;
  /** What stands between the word before and this one. */
  gap: string;
}

export function words(answer: string): Word[] {
  const found: Word[] = [];
  const text = answer.slice(0, longestRead).toLowerCase();
  let end = 0;
  for (const match of text.matchAll(/[a-z]+(?:-[a-z]+)*|\d+/g)) {
    const gap = text.slice(end, match.index);
    end = match.index + match[0].length;
    // "1. cat": the number of a line is no content, nor is its full stop the end of a sentence.
    if (
      /^\d+$/.test(match[0]) &&
      /(^|\n)\s*$/.test(text.slice(0, match.index)) &&
      /^[.)]\s/.test(text.slice(end, end + 2))
    ) {
      end += 1;
      continue;
    }
    const entry = classOf(match[0]);
    found.push({
      text: match[0],
      number: readNumber(match[0]),
      class: entry?.class,
      base: entry?.base ?? match[0],
      gap,
    });
  }
  return found;
}

/** Sentences without their marks; empty ones dropped. */
export function sentences(answer: string): string[] {
  return answer
    .slice(0, longestRead)
    .split(/[.!?]+(?:\s+|$)/)
    .map((part) => part.trim())
    .filter((part) => /[a-z0-9]/i.test(part));
}

/** True when the answer says that it cannot be known. */
export function refuses(answer: string): boolean {
  return /\b(does not|doesn't|do not|don't|did not|cannot|can't|can not|not|no one|nobody|never)\b[^.!?\n]{0,40}\b(say|says|said|tell|tells|mention|mentions|mentioned|know|known|state|stated|given|contain|name|answer)\b|\bno information\b|\bunknown\b|\bnothing about\b|\bnot in the text\b/i.test(
    answer.slice(0, longestRead),
  );
}

/** What an answer states, compared with the truth. */
export interface Reading {
  verdict: "right" | "partial" | "wrong" | "contradicts" | "refuses" | "invents" | "none";
  /** 0–1: how close to the truth; 1 only when right. */
  degree: number;
  /** What was read and what was wanted, for the rationale. */
  said: string;
  wanted: string;
  /** The number claimed, for number values. */
  number?: number;
  /** Numbers that neither the conversation nor the result holds. */
  misquoted: readonly string[];
}

export function read(answer: string, accept: Pick<Accept, "value" | "subjects">): Reading {
  const { value } = accept;
  const reading = readValue(answer, accept);
  if (value.kind !== "missing" && reading.verdict !== "right" && refuses(answer)) {
    return { ...reading, verdict: "refuses", degree: 0, said: "that it cannot be said" };
  }
  return reading;
}

function readValue(answer: string, { value, subjects }: Pick<Accept, "value" | "subjects">): Reading {
  switch (value.kind) {
    case "number":
      return readNumberValue(words(answer), value);
    case "list":
      return compareLists(longestRun(words(answer), value.classes), value.items);
    case "sequence": {
      // What follows the right sentences is rambling, which form and length answer for.
      const said = inClasses(words(answer), value.classes);
      const begun = said.slice(0, value.items.length);
      return compareLists(begun.join() === value.items.join() ? begun : said, value.items);
    }
    case "word":
      return readWord(
        answer,
        value,
        subjects.flatMap((subject) => subject.words),
      );
    case "missing":
      return readMissing(answer, value);
    case "pairs":
      return readPairs(answer, value.pairs);
  }
}

/** In "the last one", "this one" the word is no number. */
const pronounAfter = new Set([
  "first",
  "last",
  "largest",
  "smallest",
  "highest",
  "lowest",
  "that",
  "this",
  "which",
  "the",
  "only",
  "no",
  "each",
]);

function readNumberValue(found: readonly Word[], value: Extract<Value, { kind: "number" }>): Reading {
  const wanted = say(value.number);
  const bare: { number: number; hasUnit: boolean }[] = [];
  const mentioned: number[] = [];
  for (let i = 0; i < found.length; i++) {
    const word = found[i]!;
    if (word.number === undefined || (word.text === "one" && pronounAfter.has(found[i - 1]?.text ?? ""))) continue;
    mentioned.push(word.number);
    const operator = (at: number) =>
      /^(plus|minus|and)$/.test(found[at]?.text ?? "") && !/[,.;:\n]/.test(found[at]?.gap ?? "");
    // "five plus seven" restates the question; only what stands outside of such a term can be the result.
    const opens = operator(i + 1) && found[i + 2]?.number !== undefined;
    const closes = operator(i - 1) && found[i - 2]?.number !== undefined;
    if (!opens && !closes) {
      bare.push({ number: word.number, hasUnit: value.unit?.includes(found[i + 1]?.text ?? "") ?? false });
    }
  }
  if (mentioned.length === 0) return { verdict: "none", degree: 0, said: "no number", wanted, misquoted: [] };
  const withUnit = bare.filter((entry) => entry.hasUnit);
  const pool = (withUnit.length > 0 ? withUnit : bare).map((entry) => entry.number);
  const claims = pool.length > 0 ? pool : mentioned;
  const fresh = claims.filter((number) => !value.given.includes(number));
  const number = fresh[fresh.length - 1] ?? claims[claims.length - 1]!;
  const known = new Set([...value.given, value.number, number]);
  const misquoted = [...new Set(mentioned.filter((n) => !known.has(n)))].map(spoken);
  const common = { said: spoken(number), wanted, number, misquoted };
  if (number !== value.number) {
    const near = Math.abs(number - value.number) === 1 ? 0.5 : 0;
    return fresh.includes(value.number)
      ? { ...common, verdict: "contradicts", degree: 0.5 }
      : { ...common, verdict: "wrong", degree: near };
  }
  return new Set(fresh).size > 1
    ? { ...common, verdict: "contradicts", degree: 0.5, said: [...new Set(fresh)].map(spoken).join(" and ") }
    : { ...common, verdict: "right", degree: 1 };
}

function spoken(number: number): string {
  return number <= 99 ? say(number) : String(number);
}

function inClasses(found: readonly Word[], classes: readonly WordClass[]): string[] {
  return found.filter((word) => belongs(word, classes)).map((word) => word.base);
}

function belongs(word: Word, classes: readonly WordClass[]): boolean {
  return word.number !== undefined
    ? classes.includes("number")
    : word.class !== undefined && classes.includes(word.class);
}

/** The longest run of words of the classes with nothing but marks, "and" or "then" between; of equal ones the last. */
function longestRun(found: readonly Word[], classes: readonly WordClass[]): string[] {
  let best: string[] = [];
  let run: string[] = [];
  for (const word of found) {
    if (word.text === "and" || word.text === "then") continue;
    if (belongs(word, classes)) {
      // A sentence that ends ends its list; a line does not.
      run = /[.!?:;]\s/.test(word.gap) ? [] : run;
      run.push(word.number !== undefined ? spoken(word.number) : word.base);
      if (run.length >= best.length) best = run;
    } else {
      run = [];
    }
  }
  return best;
}

function compareLists(said: readonly string[], wanted: readonly string[]): Reading {
  const common = { said: said.join(", ") || "no list", wanted: wanted.join(", "), misquoted: [] };
  if (said.length === 0) return { ...common, verdict: "none", degree: 0 };
  if (said.length === wanted.length && said.every((word, i) => word === wanted[i])) {
    return { ...common, verdict: "right", degree: 1 };
  }
  const degree = Math.min(0.95, longestCommon(said.slice(0, 60), wanted) / Math.max(said.length, wanted.length));
  return { ...common, verdict: degree >= 0.5 ? "partial" : "wrong", degree };
}

/** Length of the longest common subsequence. */
function longestCommon(a: readonly string[], b: readonly string[]): number {
  let previous = new Array<number>(b.length + 1).fill(0);
  for (const word of a) {
    const row = [0];
    for (let j = 0; j < b.length; j++) {
      row.push(word === b[j] ? previous[j]! + 1 : Math.max(previous[j + 1]!, row[j]!));
    }
    previous = row;
  }
  return previous[b.length]!;
}

/** Read are the first sentence with a word of the kind asked for and every later one about the same subject. */
function readWord(answer: string, value: Extract<Value, { kind: "word" }>, subjects: readonly string[]): Reading {
  const said = new Set<string>();
  for (const sentence of sentences(answer)) {
    const found = words(sentence);
    const about = found.some((word) => subjects.includes(word.base) || word.base === value.word);
    if (said.size === 0 || about) for (const word of inClasses(found, value.classes)) said.add(word);
  }
  const list = [...said];
  const common = {
    said: list.slice(0, 6).join(" and ") || "none of the kind asked for",
    wanted: value.word,
    misquoted: [],
  };
  if (list.length === 0) return { ...common, verdict: "none", degree: 0 };
  if (!said.has(value.word)) return { ...common, verdict: "wrong", degree: 0 };
  return list.length === 1
    ? { ...common, verdict: "right", degree: 1 }
    : { ...common, verdict: "contradicts", degree: 0.5 };
}

function readMissing(answer: string, value: Extract<Value, { kind: "missing" }>): Reading {
  const wanted = "that the text does not say";
  const common = { wanted, misquoted: [] };
  const invented = (text: string) =>
    inClasses(words(text), value.classes).filter((word) => !value.asked.includes(word));
  if (!refuses(answer)) {
    const made = invented(answer);
    return made.length > 0
      ? { ...common, verdict: "invents", degree: 0, said: made.slice(0, 6).join(", ") }
      : { ...common, verdict: "none", degree: 0, said: "neither an answer nor a refusal" };
  }
  // Who says that it is unknown and then tells it all the same contradicts himself; talk of others is only too long.
  const made = sentences(answer)
    .filter((sentence) => refuses(sentence) || words(sentence).some((word) => value.asked.includes(word.base)))
    .flatMap(invented);
  return made.length > 0
    ? { ...common, verdict: "contradicts", degree: 0.5, said: `a refusal, yet also ${made[0]}` }
    : { ...common, verdict: "right", degree: 1, said: wanted };
}

function readPairs(answer: string, wanted: readonly (readonly [string, string])[]): Reading {
  const said: [string, string][] = [];
  for (const match of answer
    .slice(0, longestRead)
    .toLowerCase()
    .matchAll(/([a-z]+)\s*[:=]\s*([a-z0-9-]+)/g)) {
    said.push([match[1]!, match[2]!]);
  }
  const write = (pairs: readonly (readonly [string, string])[]) =>
    pairs.map(([key, word]) => `${key}: ${word}`).join(", ");
  const common = { said: write(said.slice(0, 8)) || "no pairs", wanted: write(wanted), misquoted: [] };
  if (said.length === 0) {
    // The right words without keys: half the content, none of the form.
    const found = words(answer).map((word) => word.base);
    const share = wanted.filter(([, word]) => found.includes(word)).length / wanted.length;
    return { ...common, verdict: share > 0 ? "partial" : "none", degree: share / 2 };
  }
  const hits = wanted.filter(([key, word]) => said.some(([k, w]) => k === key && w === word)).length;
  if (hits === wanted.length && said.length === wanted.length) return { ...common, verdict: "right", degree: 1 };
  const degree = Math.min(0.95, hits / Math.max(said.length, wanted.length));
  return { ...common, verdict: degree >= 0.5 ? "partial" : "wrong", degree };
}
