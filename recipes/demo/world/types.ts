import type { Random } from "./random";

/** The shapes that skills, writers and judge share. */

export const categories = [
  "arithmetic",
  "sorting",
  "counting",
  "conversion",
  "edits",
  "tables",
  "format",
  "refusal",
] as const;
export type Category = (typeof categories)[number];

/** Kinds of content words; everything else is a function word. */
export type WordClass =
  | "name"
  | "colour"
  | "item"
  | "animal"
  | "food"
  | "place"
  | "day"
  | "size"
  | "unit"
  | "number"
  | "key";

/** What must be said, in a form a program can check. Words are in their base form, lower-case (names: "anna"). */
export type Value =
  /** A number. `given`: numbers an answer may restate. `unit`: a number that stands right before one of these words is the claim. */
  | { kind: "number"; number: number; given: readonly number[]; unit?: readonly string[] }
  /** Items in this order. The answer's longest run of words of these classes is read. */
  | { kind: "list"; items: readonly string[]; classes: readonly WordClass[] }
  /** All words of these classes in this order, wherever they stand ("Anna has a red hat. ..."). */
  | { kind: "sequence"; items: readonly string[]; classes: readonly WordClass[] }
  /** One word of a class: a colour, a person, a place ... */
  | { kind: "word"; word: string; classes: readonly WordClass[] }
  /** The text does not say. A word of `classes` that is not in `asked` is an invention. */
  | { kind: "missing"; asked: readonly string[]; classes: readonly WordClass[] }
  /** Lines `key: value`. */
  | { kind: "pairs"; pairs: readonly (readonly [key: string, value: string])[] };

/** The form the prompt asks for. "sentence" is plain prose; a bare value with a full stop also passes. */
export type Format =
  | { kind: "sentence" }
  | { kind: "word" }
  | { kind: "list" }
  | { kind: "pairs" }
  | { kind: "numbered" }
  | { kind: "dashes" }
  | { kind: "capitals" }
  | { kind: "sentences"; count: number };

/** If the answer names any word of `classes`, one of `words` must be among them ("Ben has it" must not become "Carl has it"). */
export interface Subject {
  classes: readonly WordClass[];
  words: readonly string[];
}

/** Facts the judge needs; nothing in it is a sentence to compare with. */
export interface Accept {
  value: Value;
  format: Format;
  maxWords: number;
  subjects: readonly Subject[];
  /** Turn 2 of a number task: truth = turn 1 + plus. A wrong turn 1 consistently continued earns part marks. */
  plus?: number;
}

export interface Turn {
  prompt: string;
  /** The teacher's correct, well-formed answer. The judge never reads it. */
  answer: string;
  accept: Accept;
}

export interface Task {
  id: string;
  category: Category;
  turns: readonly [Turn, Turn];
}

/** What a skill makes: a task without its id, which is derived from the prompts. */
export type Draft = readonly [Turn, Turn];

export interface Skill {
  category: Category;
  make(random: Random): Draft;
}

export interface Message {
  role: "user" | "assistant";
  content: string;
}
