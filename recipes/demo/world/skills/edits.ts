import type { Random } from "../random";
import type { Draft, Skill, Turn } from "../types";
import { commas, thingClasses, things } from "../vocabulary";

/** One edit of a word list: how it is asked for, and what it does. */
export interface Edit {
  /** "drop the first word": follows "please", "now" or stands before a colon. */
  order: string;
  apply: (list: readonly string[]) => string[];
  /** The words that the edit brings in. */
  brings: readonly string[];
}

/** A random edit that fits the list and changes it. */
export function edit(random: Random, list: readonly string[]): Edit {
  const fresh = random.pick(things.filter((thing) => !list.includes(thing)));
  const old = random.pick(list);
  const edits: Edit[] = [
    {
      order: "swap the first and the last word",
      apply: (words) => [words[words.length - 1]!, ...words.slice(1, -1), words[0]!],
      brings: [],
    },
    { order: `put ${fresh} at the end`, apply: (words) => [...words, fresh], brings: [fresh] },
    { order: `put ${fresh} at the front`, apply: (words) => [fresh, ...words], brings: [fresh] },
    {
      order: `replace ${old} by ${fresh}`,
      apply: (words) => words.map((word) => (word === old ? fresh : word)),
      brings: [fresh],
    },
    { order: "write the list backwards", apply: (words) => [...words].reverse(), brings: [] },
  ];
  // A list of two would lose what makes it a list.
  if (list.length > 2) {
    edits.push(
      { order: "drop the first word", apply: (words) => words.slice(1), brings: [] },
      { order: "drop the last word", apply: (words) => words.slice(0, -1), brings: [] },
      { order: `drop the word ${old}`, apply: (words) => words.filter((word) => word !== old), brings: [] },
    );
  }
  return random.pick(edits);
}

/** Edits of lists of three to five different words; turn 2 edits the result. */
export const edits: Skill = {
  category: "edits",
  make(random): Draft {
    const list = random.some(things, random.int(3, 5));
    const first = edit(random, list);
    const middle = first.apply(list);
    const second = edit(random, middle);
    return [
      turn(
        random,
        random.pick([
          `${first.order}: ${commas(list)}.`,
          `please ${first.order}: ${commas(list)}.`,
          `here is a list: ${commas(list)}. ${first.order}.`,
        ]),
        middle,
      ),
      turn(
        random,
        random.pick([`now ${second.order}.`, `and now ${second.order}.`, `now please ${second.order}.`]),
        second.apply(middle),
      ),
    ];
  },
};

function turn(random: Random, prompt: string, result: readonly string[]): Turn {
  return {
    prompt,
    answer: random.pick([`${commas(result)}.`, `${commas(result)}.`, `the list is now ${commas(result)}.`]),
    accept: {
      value: { kind: "list", items: result, classes: thingClasses },
      format: { kind: "list" },
      maxWords: result.length + 8,
      subjects: [],
    },
  };
}
