import { say } from "./numbers";
import type { Random } from "./random";
import { step } from "./skills/arithmetic";
import { amount, back, equal } from "./skills/conversion";
import { countable, times } from "./skills/counting";
import { edit } from "./skills/edits";
import { dashed, lines, numbered } from "./skills/format";
import { type Aspect, ask, askMissing, aspects, has, people, scene, stranger } from "./skills/scene";
import { scales, sorted } from "./skills/sorting";
import { andList, commas, days, items, names, plural, things, units } from "./vocabulary";

/**
 * The kinds of prose that the corpus is made of. Each passage returns its sentences in order; nobody speaks to anybody,
 * nobody asks the reader anything: the base model learns the facts and patterns, not to answer.
 */
export type Passage = (random: Random) => string[];

/** Chains of sums and differences: "seven plus five is twelve. twelve minus three is nine." */
const sums: Passage = (random) => {
  const out: string[] = [];
  let from: number | undefined;
  for (let i = random.int(4, 8); i > 0; i--) {
    const { a, b, sign, result } = step(random, from);
    const equation = `${say(a)} ${sign > 0 ? "plus" : "minus"} ${say(b)}`;
    out.push(
      random.pick([
        `${equation} is ${say(result)}.`,
        `${equation} is ${say(result)}.`,
        `${equation} makes ${say(result)}.`,
        sign > 0
          ? `the sum of ${say(a)} and ${say(b)} is ${say(result)}.`
          : `${say(b)} taken from ${say(a)} is ${say(result)}.`,
        sign > 0 ? `add ${say(b)} to ${say(a)} and that is ${say(result)}.` : `${equation} is ${say(result)}.`,
      ]),
    );
    from = random.chance(0.6) ? result : undefined;
  }
  return out;
};

/** A person gets and gives things; after each step the count. */
const sumStory: Passage = (random) => {
  const [name, other] = random.some(names, 2) as [string, string];
  const item = random.pick(items);
  const count = (n: number) => `${say(n)} ${plural(item, n)}`;
  const out: string[] = [];
  let from: number | undefined;
  for (let i = random.int(2, 4); i > 0; i--) {
    const { a, b, sign, result } = step(random, from);
    const change = sign > 0 ? `gets ${say(b)} more` : `gives ${say(b)} to ${other}`;
    out.push(from === undefined ? `${name} has ${count(a)} and ${change}.` : `then ${name} ${change}.`);
    const equation = `${say(a)} ${sign > 0 ? "plus" : "minus"} ${say(b)} is ${say(result)}`;
    out.push(
      random.pick([
        `${equation}, so ${name} has ${count(result)}.`,
        `now ${name} has ${count(result)}, for ${equation}.`,
      ]),
    );
    from = result;
  }
  return out;
};

/** A few numbers, days or sizes, in order and turned round. */
const order: Passage = (random) => {
  const scale = scales[[0, 0, 0, 1, 1, 2][random.int(0, 5)]!]!;
  const list = random.some(scale.order, scale.class === "size" ? 3 : random.int(3, 4));
  const up = sorted(scale, list);
  const down = [...up].reverse();
  const out = [`the ${scale.plural} are ${commas(list)}.`];
  const wayUp = random.pick([
    `${scale.up}: ${commas(up)}.`,
    `${scale.up} they are ${commas(up)}.`,
    `sorted ${scale.up}: ${commas(up)}.`,
  ]);
  const wayDown = random.pick([
    `${scale.down}: ${commas(down)}.`,
    `the other way round, ${scale.down}: ${commas(down)}.`,
  ]);
  out.push(...(random.chance(0.6) ? [wayUp, wayDown] : [wayDown, wayUp]));
  const word = random.pick(list);
  const fresh = random.pick(scale.order.filter((candidate) => !list.includes(candidate)));
  const facts = [
    `${up[0]} ${scale.first}.`,
    `${up[up.length - 1]} ${scale.last}.`,
    `without ${word}: ${commas(up.filter((candidate) => candidate !== word))}.`,
    `with ${fresh} in order: ${commas(sorted(scale, [...list, fresh]))}.`,
  ];
  return [...out, ...random.some(facts, random.int(2, 4))];
};

/** A list with repeated words and how often each appears. */
const counts: Passage = (random) => {
  const { kinds, list, count } = countable(random);
  const absent = random.pick(things.filter((thing) => !kinds.includes(thing)));
  const facts = kinds.map((kind) =>
    random.pick([`${kind} appears ${times(count(kind))}.`, `the word ${kind} appears ${times(count(kind))}.`]),
  );
  const more = random.pick(kinds);
  const extras = [
    `the list has ${say(list.length)} words.`,
    `with one more ${more}, ${more} appears ${times(count(more) + 1)}.`,
    `${absent} appears zero times.`,
  ];
  const most = Math.max(...kinds.map(count));
  const leaders = kinds.filter((kind) => count(kind) === most);
  if (leaders.length === 1) extras.push(`${leaders[0]} appears most.`);
  return [
    `${random.pick(["the list is", "here is a list:"])} ${commas(list)}.`,
    ...random.shuffle(facts),
    ...random.some(extras, 2),
  ];
};

/** A conversion table, or somebody who needs an amount. */
const conversions: Passage = (random) => {
  const unit = random.pick(units);
  const numbers = random.some(
    Array.from({ length: unit.most }, (_, n) => n + 1),
    random.int(2, 4),
  );
  if (random.chance(0.4)) numbers.sort((a, b) => a - b);
  return numbers.flatMap((n) => {
    const truth = n * unit.rate;
    const name = random.pick(names);
    return random.pick([
      [`${equal(n, unit)}.`],
      [`${equal(n, unit)}.`, `${back(n, unit)}.`],
      [
        `${name} ${random.pick(["needs", "has", "counts"])} ${amount(n, unit.from)}.`,
        `that is ${amount(truth, unit.to)}.`,
      ],
      [`${equal(n, unit)}.`, `one ${unit.to[0]} more, and that is ${amount(truth + 1, unit.to)}.`],
    ]);
  });
};

/** A list that is edited again and again. */
const editing: Passage = (random) => {
  let list = random.some(things, random.int(3, 5));
  const out = [`the list is ${commas(list)}.`];
  for (let i = random.int(3, 5); i > 0; i--) {
    const change = edit(random, list);
    const before = list;
    list = change.apply(list);
    out.push(
      random.pick([
        `${change.order}, and that gives ${commas(list)}.`,
        `${change.order} and the list is now ${commas(list)}.`,
        `to ${change.order} of ${commas(before)} is to write ${commas(list)}.`,
      ]),
    );
    // A list of two or six is set back to a fresh one now and then, so that lengths stay those of the tasks.
    if (list.length > 5 || (list.length < 3 && random.chance(0.5))) {
      list = random.some(things, random.int(3, 5));
      out.push(`the next list is ${commas(list)}.`);
    }
  }
  return out;
};

/** Who asks what, told in the third person. */
function told(aspect: Aspect, person: { name: string; item: string; place: string }): string {
  return {
    colour: `what colour the ${person.item} is`,
    owner: `who has the ${person.item}`,
    thing: `what ${person.name} has`,
    where: `where ${person.name} is`,
    who: `who is at the ${person.place}`,
  }[aspect];
}

/** A scene and statements about it; some of them that it does not say a thing. */
const scenes: Passage = (random) => {
  const { people: all, topic, text } = scene(random);
  const out = [text];
  for (let i = random.int(3, 5); i > 0; i--) {
    const aspect = random.pick(aspects(topic));
    const missing = random.chance(0.35);
    const person = missing ? stranger(random, all) : random.pick(all);
    const question = missing ? askMissing(aspect, person) : ask(aspect, person);
    const answer = random.pick(question.answers);
    out.push(
      random.chance(0.5)
        ? `${random.pick(names)} asks ${told(aspect, person)}. ${answer}`
        : missing
          ? question.answers[1]!
          : answer,
    );
  }
  return out;
};

/** Notes and lists in the forms that the format tasks ask for. */
const notes: Passage = (random) => {
  const [a, b] = people(random, 2) as [Parameters<typeof has>[0], Parameters<typeof has>[0]];
  const list = random.some(things, random.int(3, 4));
  const note = (who: typeof a) =>
    lines([
      ["name", who.name],
      ["colour", who.colour],
      ["item", who.item],
      ...(random.chance(0.3) ? [["place", who.place] as [string, string]] : []),
    ]);
  const blocks: (() => string)[] = [
    () => `${has(a)}. as a note with key: value lines:\n${note(a)}\n`,
    () => `${has(b)}. the note on ${b.name}:\n${note(b)}\n`,
    () => `${andList(list)} as a numbered list:\n${numbered(list)}\n`,
    () => `${commas(list)} as a list with dashes:\n${dashed(list)}\n`,
    () =>
      `${has(a)}. in capital letters the colour is ${a.colour.toUpperCase()} and the item is ${a.item.toUpperCase()}.`,
    () =>
      `${b.colour} in capital letters: ${b.colour.toUpperCase()}\n${b.item} in capital letters: ${b.item.toUpperCase()}\n`,
    () => `in two sentences: ${has(a)}. ${has(b)}. in one sentence: ${has(a)} and ${has(b)}.`,
    () => `${a.name}: ${a.colour} ${a.item}, ${b.name}: ${b.colour} ${b.item}. so ${has(a)} and ${has(b)}.`,
  ];
  return random.some(blocks, random.int(2, 3)).map((block) => block());
};

/** Small talk that binds the rest together. */
export const talk: Passage = (random) => {
  const [a, b] = random.some(names, 2) as [string, string];
  const day = random.int(0, 5);
  const person = people(random, 1)[0]!;
  return random.some(
    [
      `after ${days[day]} comes ${days[day + 1]}.`,
      `${a} says please and ${b} says sure.`,
      `${a} can answer with one word, and ${b} can write a list.`,
      `the ${person.place} is near the market.`,
      `${person.name} likes the ${person.place}.`,
      `${a} can tell ${b} much on the ${person.item}, but not now.`,
      `this is a good question, says ${a}.`,
      `if the text does not say it, ${b} cannot know it.`,
    ],
    random.int(2, 4),
  );
};

/** Passages with their weights in the corpus. */
export const passages: readonly (readonly [weight: number, passage: Passage])[] = [
  [4, sums],
  [3, sumStory],
  [5, order],
  [5, counts],
  [4, conversions],
  [7, editing],
  [7, scenes],
  [4, notes],
  [1, talk],
];
