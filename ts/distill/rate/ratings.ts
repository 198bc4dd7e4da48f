/** Ratings and scores out of a rater's answer: JSON where it writes JSON, text otherwise. */
import type { Parsed } from "../../client";
import { aspectRange, overallRange } from "../feedback-row";
import { type Aspect, aspects, ratingTextForm } from "../prompts/rating";

/** A rated aspect. `rating` is a whole number from 1 to 5, or null where the rater says that it does not apply. */
export interface AspectRating {
  rating: number | null;
  rationale: string;
}

/** The ratings of one response. */
export type Ratings = Partial<Record<Aspect, AspectRating>>;

/** A critique with its overall score, from 1 to 10. */
export interface Critique {
  critique: string;
  score: number;
}

/** The form that a rater who writes text is shown; {@link parseRatings} reads it. */
export function ratingForm(wanted: readonly Aspect[], count: number): string {
  const rows = wanted.map((name) => `${aspects[name].title}: <rating> - <why, in one or two sentences>`);
  const example = Array.from({ length: count }, (_, index) => [`Response ${index + 1}`, ...rows].join("\n")).join(
    "\n\n",
  );
  return ratingTextForm.fill({ count, example });
}

/**
 * Schema of {@link parseRatings}'s JSON: whatever fits it can be read. Each response has a key of its own, as a list
 * could leave one out or have one twice.
 */
export function ratingSchema(wanted: readonly Aspect[], count: number): Record<string, unknown> {
  const aspect = object({
    rationale: { type: "string" },
    rating: { type: "integer", minimum: aspectRange.low, maximum: aspectRange.high },
  });
  const response = object(Object.fromEntries(wanted.map((name) => [name, aspect])));
  const numbers = Array.from({ length: count }, (_, index) => index + 1);
  return object(Object.fromEntries(numbers.map((number) => [responseKey(number), response])));
}

/** The key of a response's ratings in JSON. */
export function responseKey(number: number): string {
  return `response_${number}`;
}

/** Schema of {@link parseCritique}'s JSON. */
export const critiqueSchema = object({
  critique: { type: "string" },
  overall_score: { type: "number", minimum: overallRange.low, maximum: overallRange.high },
});

function object(properties: Record<string, unknown>): Record<string, unknown> {
  return { type: "object", properties, required: Object.keys(properties), additionalProperties: false };
}

/**
 * Reads the ratings of `count` responses. Every response must have every aspect once, in 1 to 5; a rationale may have any
 * number of lines and paragraphs.
 */
export function parseRatings(text: string, wanted: readonly Aspect[], count: number): Parsed<Ratings[]> {
  const json = jsonIn(text);
  const found = json === undefined ? fromText(text, wanted) : fromJson(json, wanted);
  if (found.problem !== undefined) return found;
  const all: Ratings[] = [];
  for (let number = 1; number <= count; number++) {
    const ratings = found.value.get(number);
    if (!ratings) return { problem: `response ${number} has no ratings` };
    for (const name of wanted) {
      if (!ratings[name]) return { problem: `response ${number} has no rating for ${aspects[name].title}` };
    }
    all.push(ratings);
  }
  const more = [...found.value.keys()].find((number) => number < 1 || number > count);
  return more === undefined ? { value: all } : { problem: `there is no response ${more}` };
}

/** Reads a critique with its score; the last line that names the score is the verdict. */
export function parseCritique(text: string): Parsed<Critique> {
  const json = jsonIn(text) as { critique?: unknown; overall_score?: unknown } | undefined;
  if (json !== undefined) {
    const problem = outOfRange(json.overall_score, overallRange, "the overall score");
    if (problem) return { problem };
    return { value: { critique: String(json.critique ?? "").trim(), score: json.overall_score as number } };
  }
  const lines = [
    ...text.matchAll(
      /overall[ _]score[\s*_:=([]*(?:is|of)?[\s*_:=([]*(?:[-–—]\s+)?(-?\d+(?:\.\d+)?)(?:\s*(?:\/|out of)\s*(\d+))?/gi,
    ),
  ];
  const last = lines.at(-1);
  if (!last) return { problem: 'there is no line "Overall score: <number>"' };
  const [whole, digits, scale] = last;
  if (scale !== undefined && Number(scale) !== overallRange.high)
    return { problem: `the score is out of ${scale}, not out of 10` };
  const score = Number(digits);
  const problem = outOfRange(score, overallRange, "the overall score");
  if (problem) return { problem };
  const start = text.lastIndexOf("\n", last.index) + 1;
  const after = text.slice(last.index + whole.length).replace(/^[\s*.\])]+/, "");
  const critique = [text.slice(0, start), after]
    .map((part) => part.trim())
    .filter(Boolean)
    .join("\n\n");
  return { value: { critique, score } };
}

function outOfRange(value: unknown, { low, high }: { low: number; high: number }, what: string): string | undefined {
  if (typeof value !== "number" || !Number.isFinite(value)) return `${what} is not a number`;
  return value < low || value > high ? `${what} is ${value}, outside ${low} to ${high}` : undefined;
}

type Found = Parsed<Map<number, Ratings>>;

function fromJson(json: unknown, wanted: readonly Aspect[]): Found {
  const entries = responsesIn(json);
  if (entries.length === 0) return { problem: "the JSON has no responses" };
  const found = new Map<number, Ratings>();
  for (const [number, entry] of entries) {
    const given = entry as Record<string, unknown>;
    if (found.has(number)) return { problem: `response ${number} is rated twice` };
    const ratings: Ratings = {};
    for (const name of wanted) {
      const value = given[name] as { rating?: unknown; rationale?: unknown } | undefined;
      if (typeof value !== "object" || value === null) continue;
      const rating = value.rating === "N/A" ? null : value.rating;
      const problem = rating === null ? undefined : ratingProblem(rating, name, number);
      if (problem) return { problem };
      ratings[name] = { rating: rating as number | null, rationale: String(value.rationale ?? "").trim() };
    }
    found.set(number, ratings);
  }
  return { value: found };
}

/** The responses of JSON by their numbers: by keys, or in a list that says the numbers or has them in their order. */
function responsesIn(json: unknown): [number: number, entry: object][] {
  const { responses = json } = json as { responses?: unknown };
  const entries = Array.isArray(responses)
    ? responses.map((entry, index): [number, unknown] => [
        typeof entry?.response === "number" ? entry.response : index + 1,
        entry,
      ])
    : Object.entries(Object(responses)).flatMap(([key, entry]): [number, unknown][] => {
        const number = /^(?:response[ _]?)?(\d+)$/i.exec(key)?.[1];
        return number === undefined ? [] : [[Number(number), entry]];
      });
  return entries.filter((each): each is [number, object] => typeof each[1] === "object" && each[1] !== null);
}

function ratingProblem(rating: unknown, name: Aspect, number: number): string | undefined {
  const what = `the rating of response ${number} for ${aspects[name].title}`;
  const problem = outOfRange(rating, aspectRange, what);
  return problem ?? (Number.isInteger(rating) ? undefined : `${what} is ${rating}, not a whole number`);
}

/** Around names and numbers models put stars, hashes, dashes, brackets and numbers of their own. */
const decoration = "[\\s#*_>\\-([\\]]*";

/** `Response 2`, `## Response 2:`, `**Text 2**`, `<response 2>`, alone on a line. */
const responseLine = new RegExp(`^${decoration}(?:response|text|answer|output)\\s*#?(\\d+)[\\s#*_>:.)\\]-]*$`, "gim");

/** `Honesty: 4 - why`, `- **Honesty**: 4/5`, `2. Honesty (rating): [4]`, `Honesty: N/A`. */
function aspectLine(name: Aspect): RegExp {
  const title = `(?:${aspects[name].title.replaceAll(" ", "[ _-]?")}|${name})`;
  return new RegExp(
    `^${decoration}(?:\\d+[.)]\\s*)?${decoration}${title}(?:\\s*\\(?rating\\)?)?[\\s*_]*[:=-][\\s*_([]*(?:rating\\s*[:=]\\s*)?(-?\\d+(?:\\.\\d+)?|n\\s*/\\s*a)(?:\\s*(?:/|out of)\\s*(\\d+))?[\\])*_]*`,
    "gim",
  );
}

function fromText(text: string, wanted: readonly Aspect[]): Found {
  const heads = [...text.matchAll(responseLine)];
  if (heads.length === 0) return { problem: 'there is no line "Response 1"' };
  const found = new Map<number, Ratings>();
  for (const [index, head] of heads.entries()) {
    const number = Number(head[1]);
    const block = text.slice(head.index + head[0].length, heads[index + 1]?.index);
    if (found.has(number)) return { problem: `response ${number} is rated twice` };
    const rated = ratingsIn(block, wanted, number);
    if (rated.problem !== undefined) return rated;
    found.set(number, rated.value);
  }
  return { value: found };
}

function ratingsIn(block: string, wanted: readonly Aspect[], number: number): Parsed<Ratings> {
  const lines = wanted
    .flatMap((name) => [...block.matchAll(aspectLine(name))].map((match) => ({ name, match })))
    .sort((a, b) => a.match.index - b.match.index);
  const ratings: Ratings = {};
  for (const [index, { name, match }] of lines.entries()) {
    if (ratings[name]) return { problem: `response ${number} has two ratings for ${aspects[name].title}` };
    const [whole, digits, scale] = match;
    const rating = /\d/.test(digits!) ? Number(digits) : null;
    if (scale !== undefined && Number(scale) !== aspectRange.high)
      return { problem: `a rating is out of ${scale}, not out of 5` };
    const problem = rating === null ? undefined : ratingProblem(rating, name, number);
    if (problem) return { problem };
    const rest = block.slice(match.index + whole.length, lines[index + 1]?.match.index);
    ratings[name] = {
      rating,
      rationale: rest
        .replace(/^[\s\-–—:.,;*]+/, "")
        .replace(/^rationale\s*:\s*/i, "")
        .trim(),
    };
  }
  return { value: ratings };
}

/** A JSON object or array that is the whole answer, alone or in a fence. */
function jsonIn(text: string): unknown {
  const inner = /^\s*(?:```(?:json)?\s*)?([[{][\s\S]*[\]}])\s*(?:```)?\s*$/.exec(text)?.[1];
  if (inner === undefined) return undefined;
  try {
    const value: unknown = JSON.parse(inner);
    return typeof value === "object" && value !== null ? value : undefined;
  } catch {
    return undefined;
  }
}
