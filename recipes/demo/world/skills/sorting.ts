import { say } from "../numbers";
import type { Random } from "../random";
import type { Draft, Skill, Turn, Value, WordClass } from "../types";
import { commas, days, sizes } from "../vocabulary";

/** What can be put in order: the words from first to last, and how one speaks of the order. */
export interface Scale {
  class: WordClass;
  /** Every word of the scale, in ascending order. */
  order: readonly string[];
  up: string;
  down: string;
  plural: string;
  first: string;
  last: string;
}

export const scales: readonly Scale[] = [
  {
    class: "number",
    order: Array.from({ length: 20 }, (_, n) => say(n + 1)),
    up: "from low to high",
    down: "from high to low",
    plural: "numbers",
    first: "is the lowest",
    last: "is the highest",
  },
  {
    class: "day",
    order: days,
    up: "from first to last",
    down: "from last to first",
    plural: "days",
    first: "comes first",
    last: "comes last",
  },
  {
    class: "size",
    order: sizes,
    up: "from small to large",
    down: "from large to small",
    plural: "sizes",
    first: "is the smallest",
    last: "is the largest",
  },
];

export function sorted(scale: Scale, words: readonly string[], up = true): string[] {
  const rank = (word: string) => scale.order.indexOf(word) * (up ? 1 : -1);
  return [...words].sort((a, b) => rank(a) - rank(b));
}

/** Three or four numbers, days or sizes in order; turn 2 turns round, adds, leaves out or picks from the result. */
export const sorting: Skill = {
  category: "sorting",
  make(random): Draft {
    const scale = scales[[0, 0, 0, 1, 1, 2][random.int(0, 5)]!]!;
    const words = random.some(scale.order, scale.class === "size" ? 3 : random.int(3, 4));
    const up = random.chance(0.7);
    const way = up ? scale.up : scale.down;
    const result = sorted(scale, words, up);
    const first: Turn = {
      prompt: random.pick([
        `sort ${way}: ${commas(words)}.`,
        `sort these ${scale.plural} ${way}: ${commas(words)}.`,
        `put these ${scale.plural} in order, ${way}: ${commas(words)}.`,
        `please sort the ${scale.plural} ${commas(words)} ${way}.`,
      ]),
      answer: random.pick([`${commas(result)}.`, `${way}: ${commas(result)}.`]),
      accept: listed(scale, result),
    };
    return [first, follow(random, scale, words, up)];
  },
};

function listed(scale: Scale, result: readonly string[]): Turn["accept"] {
  const value: Value = { kind: "list", items: result.map((word) => word.toLowerCase()), classes: [scale.class] };
  return { value, format: { kind: "list" }, maxWords: result.length + 8, subjects: [] };
}

function follow(random: Random, scale: Scale, words: readonly string[], up: boolean): Turn {
  const result = sorted(scale, words, up);
  switch (random.int(0, 3)) {
    case 0: {
      const way = up ? scale.down : scale.up;
      const back = [...result].reverse();
      return {
        prompt: random.pick([`now ${way}.`, "now the other way round.", `and ${way}?`]),
        answer: random.pick([`${commas(back)}.`, `${way}: ${commas(back)}.`]),
        accept: listed(scale, back),
      };
    }
    case 1: {
      const word = random.pick(scale.order.filter((candidate) => !words.includes(candidate)));
      const longer = sorted(scale, [...words, word], up);
      return {
        prompt: random.pick([`now add ${word} and sort again.`, `add ${word} and sort again, please.`]),
        answer: `${commas(longer)}.`,
        accept: listed(scale, longer),
      };
    }
    case 2: {
      const word = random.pick(words);
      const shorter = result.filter((candidate) => candidate !== word);
      return {
        prompt: random.pick([`now without ${word}.`, `the same without ${word}, please.`]),
        answer: `${commas(shorter)}.`,
        accept: listed(scale, shorter),
      };
    }
    default: {
      const ascending = sorted(scale, words);
      const low = random.chance(0.5);
      const word = low ? ascending[0]! : ascending[ascending.length - 1]!;
      const what = low ? scale.first : scale.last;
      const oneWord = random.chance(0.4);
      const value: Value =
        scale.class === "number"
          ? { kind: "number", number: scale.order.indexOf(word) + 1, given: [] }
          : { kind: "word", word: word.toLowerCase(), classes: [scale.class] };
      return {
        prompt: oneWord ? `which ${what}? answer with one word.` : `which ${what}?`,
        answer: oneWord ? `${word}.` : `${word} ${what}.`,
        accept: {
          value,
          format: { kind: oneWord ? "word" : "sentence" },
          maxWords: oneWord ? 1 : 12,
          subjects: [],
        },
      };
    }
  }
}
