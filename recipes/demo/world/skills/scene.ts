import type { Random } from "../random";
import type { Accept, Subject, Value, WordClass } from "../types";
import { colours, items, names, places } from "../vocabulary";

/** A person of a scene. Everyone owns one thing; in a scene with places everyone is somewhere, too. */
export interface Person {
  name: string;
  colour: string;
  item: string;
  place: string;
}

/** A little text with a few people: what they own, or where they are. */
export interface Scene {
  people: readonly Person[];
  topic: "things" | "places";
  text: string;
}

/** What can be asked about a person of a scene. */
export type Aspect = "colour" | "owner" | "thing" | "where" | "who";

export interface Question {
  full: string;
  short: string;
  /** Plain answers, all true. */
  answers: readonly string[];
  oneWord: string;
  accept: Accept;
}

export function people(random: Random, count: number): Person[] {
  const chosen = {
    names: random.some(names, count),
    colours: random.some(colours, count),
    items: random.some(items, count),
    places: random.some(places, count),
  };
  return chosen.names.map((name, i) => ({
    name,
    colour: chosen.colours[i]!,
    item: chosen.items[i]!,
    place: chosen.places[i]!,
  }));
}

export function has(person: Person): string {
  return `${person.name} has a ${person.colour} ${person.item}`;
}

export function isAt(person: Person): string {
  return `${person.name} is at the ${person.place}`;
}

export function scene(random: Random, count = random.int(2, 3), topic?: Scene["topic"]): Scene {
  const all = people(random, count);
  const kind = topic ?? (random.chance(0.7) ? "things" : "places");
  const text = all.map((person) => `${kind === "things" ? has(person) : isAt(person)}.`).join(" ");
  return { people: all, topic: kind, text };
}

/** The aspects that the text of a scene answers. */
export function aspects(topic: Scene["topic"]): readonly Aspect[] {
  return topic === "things" ? ["colour", "owner", "thing"] : ["where", "who"];
}

/** A question whose answer the text holds. */
export function ask(aspect: Aspect, person: Person): Question {
  const { name, colour, item, place } = person;
  const subject = (wordClass: WordClass, word: string): Subject => ({
    classes: [wordClass],
    words: [word.toLowerCase()],
  });
  const facts = (value: Value, subjects: readonly Subject[]): Accept => ({
    value,
    format: { kind: "sentence" },
    maxWords: 14,
    subjects,
  });
  const word = (wordClass: WordClass, truth: string): Value => ({
    kind: "word",
    word: truth.toLowerCase(),
    classes: [wordClass],
  });
  switch (aspect) {
    case "colour":
      return {
        full: `what colour is the ${item}?`,
        short: `and the ${item}?`,
        answers: [`the ${item} is ${colour}.`, `the ${item} of ${name} is ${colour}.`],
        oneWord: colour,
        accept: facts(word("colour", colour), [subject("item", item), subject("name", name)]),
      };
    case "owner":
      return {
        full: `who has the ${item}?`,
        short: `and the ${item}?`,
        answers: [`${name} has the ${item}.`, `${name} has the ${colour} ${item}.`],
        oneWord: name,
        accept: facts(word("name", name), [subject("item", item), subject("colour", colour)]),
      };
    case "thing":
      return {
        full: `what does ${name} have?`,
        short: `and ${name}?`,
        answers: [`${has(person)}.`],
        oneWord: item,
        accept: facts(word("item", item), [subject("name", name), subject("colour", colour)]),
      };
    case "where":
      return {
        full: `where is ${name}?`,
        short: `and ${name}?`,
        answers: [`${isAt(person)}.`],
        oneWord: place,
        accept: facts(word("place", place), [subject("name", name)]),
      };
    case "who":
      return {
        full: `who is at the ${place}?`,
        short: `and at the ${place}?`,
        answers: [`${isAt(person)}.`],
        oneWord: name,
        accept: facts(word("name", name), [subject("place", place)]),
      };
  }
}

/** A question that the text of the scene leaves open, because it is about somebody or something it does not name. */
export function askMissing(aspect: Aspect, stranger: Person): Question {
  const base = ask(aspect, stranger);
  const { name, item, place } = stranger;
  const [asked, classes, what]: [string, WordClass[], string] = {
    colour: [item, ["colour"], `what colour the ${item} is`],
    owner: [item, ["name"], `who has the ${item}`],
    thing: [name, ["item", "colour"], `what ${name} has`],
    where: [name, ["place"], `where ${name} is`],
    who: [place, ["name"], `who is at the ${place}`],
  }[aspect] as [string, WordClass[], string];
  return {
    ...base,
    answers: ["the text does not say.", `the text does not say ${what}.`],
    accept: {
      value: { kind: "missing", asked: [asked.toLowerCase()], classes },
      format: { kind: "sentence" },
      maxWords: 14,
      subjects: [],
    },
  };
}

/** A person whose name, thing and place do not occur in the scene. */
export function stranger(random: Random, known: readonly Person[]): Person {
  const unused = <T extends string>(all: readonly T[], key: keyof Person) =>
    random.pick(all.filter((word) => known.every((person) => person[key] !== word)));
  return {
    name: unused(names, "name"),
    colour: random.pick(colours),
    item: unused(items, "item"),
    place: unused(places, "place"),
  };
}
