import { say } from "../numbers";
import type { Random } from "../random";
import type { Accept, Draft, Skill, Turn } from "../types";
import { items, names, plural } from "../vocabulary";

/** Sums and differences of small numbers in words, bare or as a little story; turn 2 goes on from the result. */
export const arithmetic: Skill = {
  category: "arithmetic",
  make: (random) => (random.chance(0.4) ? bare(random) : story(random)),
};

/** A sum or difference that stays within one to twenty. */
export function step(random: Random, from?: number): { a: number; b: number; sign: 1 | -1; result: number } {
  const a = from ?? random.int(2, 15);
  const up = a < 2 || (a < 20 && random.chance(0.5));
  // Turn 2 adds or takes little, so that the fact stays among the often seen ones.
  const b = random.int(1, Math.min(up ? 20 - a : a - 1, from === undefined ? 10 : 5));
  return { a, b, sign: up ? 1 : -1, result: up ? a + b : a - b };
}

function accept(number: number, given: readonly number[], unit?: readonly string[], plus?: number): Accept {
  return {
    value: { kind: "number", number, given, ...(unit && { unit }) },
    format: { kind: "sentence" },
    maxWords: 16,
    subjects: [],
    ...(plus !== undefined && { plus }),
  };
}

function equation(a: number, b: number, sign: 1 | -1): string {
  return `${say(a)} ${sign > 0 ? "plus" : "minus"} ${say(b)}`;
}

function bare(random: Random): Draft {
  const { a, b, sign, result } = step(random);
  const prompt =
    sign > 0
      ? random.pick([
          `what is ${equation(a, b, sign)}?`,
          `how much is ${equation(a, b, sign)}?`,
          `add ${say(a)} and ${say(b)}.`,
          `what is the sum of ${say(a)} and ${say(b)}?`,
        ])
      : random.pick([
          `what is ${equation(a, b, sign)}?`,
          `how much is ${equation(a, b, sign)}?`,
          `take ${say(b)} from ${say(a)}.`,
        ]);
  const first: Turn = {
    prompt,
    answer: `${equation(a, b, sign)} ${random.pick(["is", "is", "makes"])} ${say(result)}.`,
    accept: accept(result, [a, b]),
  };
  const next = step(random, result);
  const change = next.sign > 0 ? `add ${say(next.b)} to that` : `take ${say(next.b)} from that`;
  const facts = accept(next.result, [a, b, result, next.b], undefined, next.sign * next.b);
  if (random.chance(0.25)) {
    const second: Turn = {
      prompt: `now ${change} and answer with one word.`,
      answer: `${say(next.result)}.`,
      accept: { ...facts, format: { kind: "word" }, maxWords: 1 },
    };
    return [first, second];
  }
  return [
    first,
    {
      prompt: random.pick([`now ${change}.`, `${change}.`, `please ${change}.`]),
      answer: `${equation(result, next.b, next.sign)} is ${say(next.result)}.`,
      accept: facts,
    },
  ];
}

function story(random: Random): Draft {
  const [name, other] = random.some(names, 2) as [string, string];
  const item = random.pick(items);
  const unit = [item, `${item}s`];
  const subjects = [
    { classes: ["name"], words: [name.toLowerCase()] },
    { classes: ["item"], words: [item] },
  ] as const;
  const { a, b, sign, result } = step(random);
  const count = (n: number) => `${say(n)} ${plural(item, n)}`;
  const change = (s: 1 | -1, n: number) => (s > 0 ? `gets ${say(n)} more` : `gives ${say(n)} to ${other}`);
  const first: Turn = {
    prompt: random.pick([
      `${name} has ${count(a)} and ${change(sign, b)}. how many ${item}s does ${name} have now?`,
      `${name} has ${count(a)}. ${name} ${change(sign, b)}. how many ${item}s does ${name} have?`,
    ]),
    answer: random.pick([
      `${equation(a, b, sign)} is ${say(result)}, so ${name} has ${count(result)}.`,
      `${equation(a, b, sign)} is ${say(result)}. ${name} has ${count(result)}.`,
    ]),
    accept: { ...accept(result, [a, b], unit), subjects },
  };
  const next = step(random, result);
  return [
    first,
    {
      prompt: random.pick([
        `then ${name} ${change(next.sign, next.b)}. how many now?`,
        `now ${name} ${change(next.sign, next.b)}. how many ${item}s does ${name} have?`,
      ]),
      answer: `${equation(result, next.b, next.sign)} is ${say(next.result)}, so ${name} has ${count(next.result)}.`,
      accept: { ...accept(next.result, [a, b, result, next.b], unit, next.sign * next.b), subjects },
    },
  ];
}
