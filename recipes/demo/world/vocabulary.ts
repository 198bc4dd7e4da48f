import { numberWords } from "./numbers";
import type { WordClass } from "./types";

/** The closed word list of the world, by kind. Lower-case throughout, names and days capitalised. */
export const names = ["Anna", "Ben", "Carl", "Dora", "Emil", "Fay", "Gus", "Hana", "Ivo", "Jon", "Kim", "Lea"] as const;
export const colours = ["red", "blue", "green", "black", "white", "brown", "pink", "gold"] as const;
/** All take the article "a" and a plural in -s: fewer forms to learn. */
export const items = [
  "hat",
  "coat",
  "cup",
  "book",
  "ball",
  "lamp",
  "bag",
  "boat",
  "kite",
  "drum",
  "bell",
  "coin",
  "ring",
  "fan",
  "pen",
  "key",
] as const;
export const animals = ["cat", "dog", "fox", "hen", "cow", "pig", "owl", "bee"] as const;
export const foods = ["fig", "pear", "plum", "nut", "bean", "corn", "rice", "leek"] as const;
export const places = ["park", "lake", "shop", "farm", "school", "hill", "market", "bridge"] as const;
export const days = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"] as const;
/** From small to large. */
export const sizes = ["tiny", "small", "medium", "large", "huge"] as const;
export const keys = ["name", "colour", "item", "place"] as const;

/** One step of a conversion table: one `from` is `rate` `to`. `most`: the largest count that is asked. */
export interface Unit {
  from: readonly [one: string, many: string];
  to: readonly [one: string, many: string];
  rate: number;
  most: number;
  kind: "time" | "length" | "volume" | "money" | "amount";
}
export const units: readonly Unit[] = [
  { from: ["week", "weeks"], to: ["day", "days"], rate: 7, most: 5, kind: "time" },
  { from: ["year", "years"], to: ["month", "months"], rate: 12, most: 5, kind: "time" },
  { from: ["decade", "decades"], to: ["year", "years"], rate: 10, most: 6, kind: "time" },
  { from: ["foot", "feet"], to: ["inch", "inches"], rate: 12, most: 5, kind: "length" },
  { from: ["yard", "yards"], to: ["foot", "feet"], rate: 3, most: 10, kind: "length" },
  { from: ["gallon", "gallons"], to: ["quart", "quarts"], rate: 4, most: 10, kind: "volume" },
  { from: ["quart", "quarts"], to: ["pint", "pints"], rate: 2, most: 10, kind: "volume" },
  { from: ["nickel", "nickels"], to: ["cent", "cents"], rate: 5, most: 10, kind: "money" },
  { from: ["dime", "dimes"], to: ["cent", "cents"], rate: 10, most: 6, kind: "money" },
  { from: ["dozen", "dozens"], to: ["egg", "eggs"], rate: 12, most: 5, kind: "amount" },
  { from: ["pair", "pairs"], to: ["shoe", "shoes"], rate: 2, most: 10, kind: "amount" },
];

/** Words for lists: things one can name without an article. */
export const things: readonly string[] = [...items, ...animals, ...foods];
export const thingClasses: readonly WordClass[] = ["item", "animal", "food"];

export function plural(item: string, count: number): string {
  return count === 1 ? item : `${item}s`;
}

/** "cat, dog, fox" */
export function commas(list: readonly string[]): string {
  return list.join(", ");
}

/** "Anna, Ben and Carl" */
export function andList(list: readonly string[]): string {
  return list.length < 2 ? list.join("") : `${list.slice(0, -1).join(", ")} and ${list[list.length - 1]}`;
}

const classes = new Map<string, { class: WordClass; base: string }>();
function enter(wordClass: WordClass, base: string, ...forms: string[]): void {
  for (const form of forms) {
    if (!classes.has(form.toLowerCase()))
      classes.set(form.toLowerCase(), { class: wordClass, base: base.toLowerCase() });
  }
}
for (const word of names) enter("name", word, word);
for (const word of colours) enter("colour", word, word);
for (const word of items) enter("item", word, word, `${word}s`);
for (const word of animals) enter("animal", word, word, `${word}s`);
for (const word of foods) enter("food", word, word, `${word}s`);
for (const word of places) enter("place", word, word);
for (const word of days) enter("day", word, word);
for (const word of sizes) enter("size", word, word);
for (const unit of units) {
  enter("unit", unit.from[1], ...unit.from);
  enter("unit", unit.to[1], ...unit.to);
}

/** Kind and base form of a content word ("Hats" → item, "hat"); undefined for function words and numbers. */
export function classOf(word: string): { class: WordClass; base: string } | undefined {
  return classes.get(word.toLowerCase());
}

/** All words of a class in base form. */
export function wordsOf(wordClass: WordClass): string[] {
  return [...new Set([...classes.values()].filter((entry) => entry.class === wordClass).map((entry) => entry.base))];
}

const functionWords = `
  , - . 1 2 3 4 5 : ? a add after again and answer appear appears are as asks at backwards but by can cannot
  capital comes commas count counts dashes does drop each end exactly first for from front gets give gives good
  has have here high highest how if in is it know largest last letters likes line lines list low lowest make
  makes many me minus more most much near needs next not note now numbered numbers of often on only order other
  please plus put question read replace round same say says sentence sentences sizes smallest so sort sorted sum
  sure swap take taken tell text that the then these they this time times to value way what where which who with without
  word words write
`;

/** Every word form, digit and punctuation mark that corpus, prompts and teacher use. */
export const vocabulary: ReadonlySet<string> = new Set([
  ...names,
  ...colours,
  ...colours.map((word) => word.toUpperCase()),
  ...items,
  ...items.map((word) => `${word}s`),
  ...items.map((word) => word.toUpperCase()),
  ...animals,
  ...foods,
  ...places,
  ...days,
  ...sizes,
  ...keys,
  ...units.flatMap((unit) => [...unit.from, ...unit.to]),
  ...numberWords,
  ...functionWords.split(/\s+/).filter(Boolean),
]);

/** Splits a text into the forms that `vocabulary` lists: words, digits, marks; a hyphen is a mark of its own. */
export function forms(text: string): string[] {
  return text.match(/[A-Za-z]+|\d|[^\sA-Za-z\d]/g) ?? [];
}
