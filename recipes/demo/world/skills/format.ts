import type { Random } from "../random";
import type { Accept, Draft, Format, Skill, Turn, Value, WordClass } from "../types";
import { andList, commas, places, thingClasses, things } from "../vocabulary";
import { has, type Person, people } from "./scene";

/** Easy content, strict form: key: value lines, numbered or dashed lists, capital letters, a number of sentences. */
export const format: Skill = {
  category: "format",
  make: (random) => random.pick([pairs, list, list, capitals, sentences])(random),
};

const owned: readonly WordClass[] = ["name", "colour", "item"];

function turn(prompt: string, answer: string, value: Value, form: Format, maxWords: number): Turn {
  const accept: Accept = { value, format: form, maxWords, subjects: [] };
  return { prompt, answer, accept };
}

/** "name: Anna", one pair a line. */
export function lines(entries: readonly (readonly [string, string])[]): string {
  return entries.map(([key, value]) => `${key}: ${value}`).join("\n");
}

function pairs(random: Random): Draft {
  const [person, other] = people(random, 2) as [Person, Person];
  const entries = (who: Person) =>
    [
      ["name", who.name],
      ["colour", who.colour],
      ["item", who.item],
    ] as [string, string][];
  const make = (prompt: string, list: readonly [string, string][]) =>
    turn(
      prompt,
      lines(list),
      { kind: "pairs", pairs: list.map(([key, value]) => [key, value.toLowerCase()]) },
      { kind: "pairs" },
      list.length * 3 + 2,
    );
  const first = make(
    random.pick([
      `${has(person)}. write name, colour and item as key: value lines.`,
      `write this as lines with name, colour and item, key: value. ${has(person)}.`,
      `${has(person)}. make a note with the keys name, colour, item, one line each.`,
    ]),
    entries(person),
  );
  switch (random.int(0, 2)) {
    case 0:
      return [first, make(`now the same for ${other.name}, who has a ${other.colour} ${other.item}.`, entries(other))];
    case 1: {
      const place = random.pick(places);
      return [first, make(`now add the line place: ${place}.`, [...entries(person), ["place", place]])];
    }
    default: {
      const dropped = random.int(0, 2);
      const rest = entries(person).filter((_, i) => i !== dropped);
      return [first, make(`now without the line for ${entries(person)[dropped]![0]}.`, rest)];
    }
  }
}

export function numbered(words: readonly string[]): string {
  return words.map((word, i) => `${i + 1}. ${word}`).join("\n");
}

export function dashed(words: readonly string[]): string {
  return words.map((word) => `- ${word}`).join("\n");
}

function list(random: Random): Draft {
  const words = random.some(things, random.int(3, 4));
  const styles = [
    { name: "as a numbered list", format: { kind: "numbered" }, write: numbered },
    { name: "as a list with dashes", format: { kind: "dashes" }, write: dashed },
    { name: "in one line with commas", format: { kind: "list" }, write: (w: readonly string[]) => `${commas(w)}.` },
  ] as const;
  const make = (prompt: string, style: (typeof styles)[number], result: readonly string[]) =>
    turn(
      prompt,
      style.write(result),
      { kind: "list", items: result, classes: thingClasses },
      style.format,
      result.length + 6,
    );
  const style = random.pick(styles.slice(0, 2));
  const first = make(
    random.pick([
      `write ${andList(words)} ${style.name}.`,
      `please write this ${style.name}: ${commas(words)}.`,
      `write the words ${commas(words)} ${style.name}.`,
    ]),
    style,
    words,
  );
  if (random.chance(0.5)) {
    const next = random.pick(styles.filter((candidate) => candidate !== style));
    return [first, make(random.pick([`now ${next.name}.`, `and now ${next.name}, please.`]), next, words)];
  }
  const fresh = random.pick(things.filter((thing) => !words.includes(thing)));
  return random.chance(0.5)
    ? [first, make(`now put ${fresh} at the end.`, style, [...words, fresh])]
    : [first, make("now drop the first word.", style, words.slice(1))];
}

function capitals(random: Random): Draft {
  const person = people(random, 1)[0]!;
  const [asked, next] = random.some(["colour", "item"] as const, 2) as ["colour" | "item", "colour" | "item"];
  const make = (prompt: string, key: "colour" | "item", form: Format, answer: string) =>
    turn(prompt, answer, { kind: "word", word: person[key], classes: [key] }, form, 1);
  const first = make(
    random.pick([
      `${has(person)}. write only the ${asked} in capital letters.`,
      `${has(person)}. give me the ${asked} in capital letters, one word.`,
      `write the ${asked} as one word in capital letters. ${has(person)}.`,
    ]),
    asked,
    { kind: "capitals" },
    person[asked].toUpperCase(),
  );
  return random.chance(0.5)
    ? [first, make(`now the ${next} in capital letters.`, next, { kind: "capitals" }, person[next].toUpperCase())]
    : [first, make(`now the ${next} without capital letters, one word.`, next, { kind: "word" }, `${person[next]}.`)];
}

function sentences(random: Random): Draft {
  const [a, b, c] = people(random, 3) as [Person, Person, Person];
  const make = (prompt: string, who: readonly Person[], count: number) =>
    turn(
      prompt,
      count === 1 ? `${who.map(has).join(" and ")}.` : who.map((person) => `${has(person)}.`).join(" "),
      {
        kind: "sequence",
        items: who.flatMap((person) => [person.name.toLowerCase(), person.colour, person.item]),
        classes: owned,
      },
      { kind: "sentences", count },
      who.length * 7 + 2,
    );
  const note = `${a.name}: ${a.colour} ${a.item}, ${b.name}: ${b.colour} ${b.item}`;
  const split = random.chance(0.5);
  const first = make(
    random.pick([
      `${note}. say who has what in exactly ${split ? "two sentences" : "one sentence"}.`,
      `say in ${split ? "two sentences" : "one sentence"} who has what. ${note}.`,
      `write ${split ? "two sentences" : "one sentence"} from this note. ${note}.`,
    ]),
    [a, b],
    split ? 2 : 1,
  );
  const second =
    split && random.chance(0.4)
      ? make(`now add that ${has(c)}, in three sentences.`, [a, b, c], 3)
      : make(`now in ${split ? "one sentence" : "two sentences"}.`, [a, b], split ? 1 : 2);
  return [first, second];
}
