import { hash, Random } from "./random";
import { arithmetic } from "./skills/arithmetic";
import { conversion } from "./skills/conversion";
import { counting } from "./skills/counting";
import { edits } from "./skills/edits";
import { format } from "./skills/format";
import { refusal } from "./skills/refusal";
import { sorting } from "./skills/sorting";
import { tables } from "./skills/tables";
import { type Category, categories, type Skill, type Task } from "./types";

export const skills: Readonly<Record<Category, Skill>> = {
  arithmetic,
  sorting,
  counting,
  conversion,
  edits,
  tables,
  format,
  refusal,
};

export type Split = "train" | "pairs" | "heldout";

export interface TaskOptions {
  seed: number;
  split: Split;
  /** Total number of tasks, dealt to the categories in turn. */
  count?: number;
  /** Tasks of each category; instead of `count`. */
  perCategory?: number;
  /** Default: all eight. */
  only?: readonly Category[];
}

/** The form in which two prompts count as the same: lower-case words and digits, single spaces, no marks. */
export function canonical(prompt: string): string {
  return (prompt.toLowerCase().match(/[a-z0-9]+/g) ?? []).join(" ");
}

/**
 * The split a first prompt belongs to, decided by its hash alone: 10 % held out, 20 % pairs, 70 % train.
 * So no seed and no count can bring a held-out prompt into training.
 */
export function splitOf(firstPrompt: string): Split {
  const bucket = hash(canonical(firstPrompt)) % 10;
  return bucket === 0 ? "heldout" : bucket <= 2 ? "pairs" : "train";
}

/** A first prompt that the category has already is drawn again, this many times at most. */
const patience = 10_000;

/**
 * Tasks of one split, no first prompt twice in a category. The n-th task of a category depends on seed, split and n only,
 * so a larger count extends a smaller one. Ids are derived from the prompts.
 */
export function makeTasks(options: TaskOptions): Task[] {
  const chosen = options.only ?? categories;
  const total = options.perCategory === undefined ? (options.count ?? 0) : options.perCategory * chosen.length;
  const streams = chosen.map((category) => ({
    category,
    random: new Random(options.seed, `tasks/${options.split}/${category}`),
    seen: new Set<string>(),
  }));
  const tasks: Task[] = [];
  for (let i = 0; i < total; i++) {
    const stream = streams[i % streams.length]!;
    tasks.push(next(stream, options.split));
  }
  return tasks;
}

function next(stream: { category: Category; random: Random; seen: Set<string> }, split: Split): Task {
  for (let attempt = 0; attempt < patience; attempt++) {
    const turns = skills[stream.category].make(stream.random);
    const key = canonical(turns[0].prompt);
    if (splitOf(turns[0].prompt) !== split || stream.seen.has(key)) continue;
    stream.seen.add(key);
    const mark = hash(`${key}|${canonical(turns[1].prompt)}`)
      .toString(16)
      .padStart(8, "0");
    return { id: `${stream.category}-${mark}`, category: stream.category, turns };
  }
  throw new RangeError(
    `makeTasks: ${stream.category} has no more than ${stream.seen.size} different prompts in split "${split}"; ask for fewer.`,
  );
}
