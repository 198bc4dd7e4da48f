import { say } from "../numbers";
import type { Random } from "../random";
import type { Accept, Draft, Skill, Turn } from "../types";
import { commas, thingClasses, things } from "../vocabulary";

/** "two times", "one time" */
export function times(count: number): string {
  return `${say(count)} ${count === 1 ? "time" : "times"}`;
}

/** A list of four to seven words, two or three of them different, none more than five times. */
export function countable(random: Random): { kinds: string[]; list: string[]; count: (word: string) => number } {
  const kinds = random.some(things, random.int(2, 3));
  const counts = kinds.map(() => random.int(1, 3));
  if (random.chance(0.3)) counts[0] = random.int(3, 5);
  while (counts.reduce((sum, n) => sum + n, 0) > 7) counts[counts.indexOf(Math.max(...counts))]! -= 1;
  while (counts.reduce((sum, n) => sum + n, 0) < 4) counts[0]! += 1;
  const list = random.shuffle(kinds.flatMap((word, i) => Array.from({ length: counts[i]! }, () => word)));
  return { kinds, list, count: (word) => list.filter((entry) => entry === word).length };
}

/** How often a word stands in a short list; turn 2 asks for another word, one more of it, the length or the most frequent. */
export const counting: Skill = {
  category: "counting",
  make(random): Draft {
    const { kinds, list, count } = countable(random);
    const word = random.pick(kinds);
    const first: Turn = {
      prompt: random.pick([
        `how often does ${word} appear in this list: ${commas(list)}?`,
        `how many times does ${word} appear: ${commas(list)}?`,
        `count the word ${word} in this list: ${commas(list)}.`,
        `count how often ${word} appears: ${commas(list)}.`,
      ]),
      answer: appears(random, word, count(word)),
      accept: counted(word, count(word), list.length),
    };
    return [first, follow(random, kinds, list, word, count)];
  },
};

function appears(random: Random, word: string, count: number): string {
  return random.pick([`${word} appears ${times(count)}.`, `the word ${word} appears ${times(count)}.`]);
}

function counted(word: string, count: number, length: number): Accept {
  return {
    value: { kind: "number", number: count, given: [length], unit: ["time", "times"] },
    format: { kind: "sentence" },
    maxWords: 14,
    subjects: [{ classes: thingClasses, words: [word] }],
  };
}

function follow(
  random: Random,
  kinds: readonly string[],
  list: readonly string[],
  word: string,
  count: (word: string) => number,
): Turn {
  const most = Math.max(...kinds.map(count));
  const leaders = kinds.filter((kind) => count(kind) === most);
  const choice = random.int(0, 9);
  if (choice < 2 && leaders.length === 1) {
    return {
      prompt: random.pick(["which word appears most?", "and which word appears most?"]),
      answer: `${leaders[0]} appears most.`,
      accept: {
        value: { kind: "word", word: leaders[0]!, classes: thingClasses },
        format: { kind: "sentence" },
        maxWords: 12,
        subjects: [],
      },
    };
  }
  if (choice < 4) {
    return {
      prompt: random.pick(["how many words are in the list?", "and how many words are in the list?"]),
      answer: `the list has ${say(list.length)} words.`,
      accept: {
        value: { kind: "number", number: list.length, given: [], unit: ["words"] },
        format: { kind: "sentence" },
        maxWords: 14,
        subjects: [],
      },
    };
  }
  if (choice < 6) {
    return {
      prompt: random.pick([`and with one more ${word}?`, `now with one more ${word}.`]),
      answer: `then ${word} appears ${times(count(word) + 1)}.`,
      accept: { ...counted(word, count(word) + 1, list.length + 1), plus: 1 },
    };
  }
  const other = random.pick(
    random.chance(0.15) ? things.filter((thing) => !kinds.includes(thing)) : kinds.filter((kind) => kind !== word),
  );
  const oneWord = random.chance(0.25);
  return {
    prompt: oneWord
      ? `and ${other}? answer with one word.`
      : random.pick([`and ${other}?`, `and how often does ${other} appear?`]),
    answer: oneWord ? `${say(count(other))}.` : appears(random, other, count(other)),
    accept: {
      ...counted(other, count(other), list.length),
      ...(oneWord && { format: { kind: "word" }, maxWords: 1 }),
    },
  };
}
