/**
 * The tasks that the offline teacher knows: those of the demo's world, found again by the text of a conversation. The
 * catalogue is fixed (seed and sizes below), so that any process finds what another one has asked for.
 */

import {
  type Category,
  canonical,
  categories,
  makeTasks,
  type Split,
  splitOf,
  type Task,
} from "../../../recipes/demo/world";
import type { Message } from "../../data/messages";
import type { Sector } from "../generate/sectors";
import { joins } from "../prompts/conversation";

/** Seed of the catalogue. */
const seed = 20_231_025;

/** Tasks of each category. Held-out ones are given to nobody who asks for openings. */
const sizes: Readonly<Record<Split, number>> = { train: 2000, pairs: 1000, heldout: 200 };

/** What each sector holds, by the names that the teacher gives as topics. */
export const topics: Readonly<Record<Sector, Readonly<Record<string, Category>>>> = {
  world: {
    "sums and differences": "arithmetic",
    "putting things in order": "sorting",
    "how often a word appears": "counting",
    "measures and money": "conversion",
  },
  writing: { "changing lists": "edits", "writing in a given form": "format" },
  material: { "finding things in a text": "tables", "what a text leaves open": "refusal" },
};

/** Where a conversation stands in a task. */
export interface Located {
  task: Task;
  turn: 0 | 1;
  /** The conversation from the task's first prompt to the message that waits for an answer. */
  history: Message[];
}

interface SplitCatalogue {
  tasks: readonly Task[];
  /** By {@link keyOf} of the first prompt. Two categories may have the same first prompt with different second ones. */
  byKey: ReadonlyMap<string, readonly Task[]>;
}

const built = new Map<Split, SplitCatalogue>();

function catalogue(split: Split): SplitCatalogue {
  const known = built.get(split);
  if (known) return known;
  const tasks = makeTasks({ seed, split, perCategory: sizes[split] });
  const byKey = new Map<string, Task[]>();
  for (const task of tasks) {
    const key = keyOf(task.turns[0].prompt);
    byKey.set(key, [...(byKey.get(key) ?? []), task]);
  }
  const made = { tasks, byKey };
  built.set(split, made);
  return made;
}

/** Tasks of a category of a split, the same at every call. */
export function tasksOf(category: Category, split: Split): readonly Task[] {
  return catalogue(split).tasks.filter((task) => task.category === category);
}

/** Held-out tasks as a judge's question file has them: `question_id`, `category`, `turns`. None is ever an opening. */
export function offlineQuestions(perCategory: number): { question_id: number; category: Category; turns: string[] }[] {
  return categories.flatMap((category, at) =>
    tasksOf(category, "heldout")
      .slice(0, perCategory)
      .map(({ turns }, index) => ({
        question_id: at * sizes.heldout + index + 1,
        category,
        turns: turns.map(({ prompt }) => prompt),
      })),
  );
}

/** The text of a task about a given text, and what is asked about it; undefined for other tasks. */
export function materialOf(task: Task): { passage: string; request: string } | undefined {
  if (task.category !== "tables" && task.category !== "refusal") return undefined;
  const parts = sentencesOf(task.turns[0].prompt).filter((part) => part !== "read this text.");
  const isFact = (part: string) => /^[A-Z][a-z]+ (has a|is at the) [a-z ]+\.$/.test(part);
  return { passage: parts.filter(isFact).join(" "), request: parts.filter((part) => !isFact(part)).join(" ") };
}

/** The narrower kind of a task, as the teacher names subtopics. */
export function subtopicOf(task: Task): string {
  const [{ prompt, accept }] = task.turns;
  switch (task.category) {
    case "arithmetic":
      return accept.subjects.length > 0 ? "little stories with numbers" : "plain sums and differences";
    case "sorting":
      return accept.value.kind === "list" ? `${accept.value.classes[0]}s in order` : "words in order";
    case "counting":
      return /^count/.test(prompt) ? "counting in a list when told to" : "questions how often a word appears";
    case "conversion":
      return accept.value.kind === "number"
        ? `${accept.value.unit?.[1] ?? "units"} and what they are made of`
        : "units";
    case "edits":
      return /swap|backwards/.test(prompt)
        ? "turning a list round"
        : /drop/.test(prompt)
          ? "making a list shorter"
          : /replace/.test(prompt)
            ? "exchanging words of a list"
            : "making a list longer";
    case "format":
      return {
        pairs: "notes with keys and values",
        numbered: "numbered lists",
        dashes: "lists with dashes",
        capitals: "words in capital letters",
        sentences: "a given number of sentences",
        list: "lists in one line",
        word: "single words",
        sentence: "plain sentences",
      }[accept.format.kind];
    case "tables":
    case "refusal":
      return / is at the /.test(prompt) ? "texts about places" : "texts about things and their owners";
  }
}

/**
 * Finds the task that the last user message belongs to. That is the first prompt of a task, or its second one when the
 * user message before it that begins a task begins this one.
 */
export function locate(messages: readonly Message[]): Located | undefined {
  const users = messages.flatMap((message, index) => (message.role === "user" ? [{ ...message, index }] : []));
  const last = users.at(-1);
  if (!last) return undefined;
  for (const [back, user] of users.toReversed().entries()) {
    const found = tasksAt(user.content);
    if (found.length === 0) continue;
    const history = messages.slice(user.index, last.index + 1);
    if (back === 0) return { task: found[0]!, turn: 0, history };
    const second = found.find((task) => canonical(task.turns[1].prompt) === canonical(last.content));
    return second && { task: second, turn: 1, history };
  }
  return undefined;
}

/** The tasks with this first prompt. */
export function tasksAt(prompt: string): readonly Task[] {
  const key = keyOf(prompt);
  // A prompt that was joined of its parts may be spelled otherwise than in its task, and then its split is not that of its hash.
  const order = [splitOf(prompt), "train", "pairs", "heldout"] as const;
  for (const split of new Set(order)) {
    const found = catalogue(split).byKey.get(key);
    if (found) return found;
  }
  return [];
}

/** Tasks about a given text. */
export function tasksAbout(passage: string): readonly Task[] {
  if (byPassage.size === 0) {
    for (const task of [...tasksOf("tables", "train"), ...tasksOf("refusal", "train")]) {
      const at = keyOf(materialOf(task)!.passage);
      byPassage.set(at, [...(byPassage.get(at) ?? []), task]);
    }
  }
  return byPassage.get(keyOf(passage)) ?? [];
}

const byPassage = new Map<string, Task[]>();

/** What the world and the joins of text and request put beside them. */
const fillers = new Set(
  ["read this text.", ...joins.flatMap(({ text }) => sentencesOf(text.replace(/\{\{\w+\}\}/g, "\n")))].map(canonical),
);

/** What a prompt is found by: its sentences without marks and case, in an order of their own. */
function keyOf(prompt: string): string {
  const parts = sentencesOf(prompt).map(canonical);
  return parts
    .filter((part) => part !== "" && !fillers.has(part))
    .sort()
    .join("|");
}

function sentencesOf(text: string): string[] {
  return text
    .split(/(?<=[.?!])\s+|\n+/)
    .map((part) => part.trim())
    .filter(Boolean);
}
