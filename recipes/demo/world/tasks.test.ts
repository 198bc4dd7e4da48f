import { describe, expect, it } from "vitest";
import {
  canonical,
  categories,
  converse,
  corpus,
  forms,
  makeTasks,
  Random,
  type Split,
  skills,
  splitOf,
  type Task,
  vocabulary,
} from "./index";

const perCategory = 6_250;
const train = makeTasks({ seed: 1, split: "train", perCategory });
const firstKeys = (tasks: readonly Task[]) => tasks.map((task) => canonical(task.turns[0].prompt));

describe("splits", () => {
  it("share no first prompt, over 50,000 training tasks and other seeds", () => {
    expect(train).toHaveLength(50_000);
    const heldout = new Set(firstKeys(makeTasks({ seed: 2, split: "heldout", perCategory: 500 })));
    // Tables and refusal may meet in a prompt; within a category none comes twice.
    const pairs = new Set(firstKeys(makeTasks({ seed: 3, split: "pairs", perCategory: 500 })));
    expect(heldout.size).toBeGreaterThan(3_900);
    const others = [...firstKeys(train), ...firstKeys(makeTasks({ seed: 7, split: "train", perCategory: 1_000 }))];
    expect(others.filter((key) => heldout.has(key) || pairs.has(key))).toEqual([]);
    expect([...pairs].filter((key) => heldout.has(key))).toEqual([]);
  });

  it("are decided by the canonical prompt alone and are of the planned sizes", () => {
    expect(splitOf("What is  two plus two?")).toBe(splitOf("what is two plus two"));
    const random = new Random(4);
    const seen: Record<Split, number> = { train: 0, pairs: 0, heldout: 0 };
    for (let i = 0; i < 8_000; i++) {
      seen[splitOf(skills[random.pick(categories)].make(random)[0].prompt)] += 1;
    }
    expect(seen.heldout / 8_000).toBeGreaterThan(0.08);
    expect(seen.heldout / 8_000).toBeLessThan(0.12);
    expect(seen.pairs / 8_000).toBeGreaterThan(0.17);
    expect(seen.pairs / 8_000).toBeLessThan(0.23);
  });
});

describe("makeTasks", () => {
  it("is deterministic, and a larger count extends a smaller one", () => {
    const small = makeTasks({ seed: 5, split: "heldout", count: 40 });
    const large = makeTasks({ seed: 5, split: "heldout", count: 400 });
    expect(large.slice(0, 40)).toEqual(small);
    expect(makeTasks({ seed: 6, split: "heldout", count: 40 })).not.toEqual(small);
  });

  it("gives every task its own id", () => {
    expect(new Set(train.map((task) => task.id)).size).toBe(train.length);
  });

  it("deals the tasks to the categories evenly", () => {
    const tasks = makeTasks({ seed: 5, split: "pairs", count: 80 });
    for (const category of categories) expect(tasks.filter((task) => task.category === category)).toHaveLength(10);
  });

  it("says so when a category has no more prompts", () => {
    const fewer = { seed: 1, split: "heldout" as const, only: ["conversion" as const] };
    expect(() => makeTasks({ ...fewer, count: 50_000 })).toThrow(/conversion has no more than \d+ different prompts/);
  });
});

describe("tasks", () => {
  it.each(categories)("%s has at least 2,000 different first prompts", (category) => {
    const random = new Random(11, category);
    const seen = new Set<string>();
    for (let i = 0; i < 20_000; i++) seen.add(canonical(skills[category].make(random)[0].prompt));
    expect(seen.size).toBeGreaterThanOrEqual(2_000);
  });

  it.each(categories)("%s keeps prompts within 45 and answers within 25 words", (category) => {
    const count = (text: string) => text.split(/\s+/).length;
    for (const task of train.filter((one) => one.category === category).slice(0, 2_000)) {
      for (const message of converse(task)) {
        expect(count(message.content)).toBeLessThanOrEqual(message.role === "user" ? 45 : 25);
      }
    }
  });

  it.each(categories)("%s: turn 2 wants something else than turn 1 in nearly every task", (category) => {
    const some = train.filter((one) => one.category === category).slice(0, 1_000);
    const facts = (task: Task, turn: 0 | 1) =>
      JSON.stringify([task.turns[turn].accept.value, task.turns[turn].accept.format]);
    const different = some.filter((task) => facts(task, 0) !== facts(task, 1));
    expect(different.length / some.length).toBeGreaterThan(0.85);
  });
});

describe("vocabulary", () => {
  it("is closed over corpus, prompts and the teacher's answers, and small", () => {
    const seen = new Set<string>();
    for (const text of corpus({ seed: 8, documents: 5_000 })) for (const form of forms(text)) seen.add(form);
    for (const task of train)
      for (const message of converse(task)) for (const form of forms(message.content)) seen.add(form);
    expect([...seen].filter((form) => !vocabulary.has(form))).toEqual([]);
    console.info(`vocabulary: ${vocabulary.size} forms, ${seen.size} of them seen`);
    expect(vocabulary.size).toBeLessThanOrEqual(600);
    expect(seen.size).toBe(vocabulary.size);
  });
});

describe("corpus", () => {
  const documents = [...corpus({ seed: 9, documents: 3_000 })];

  it("depends on seed and number only", () => {
    expect([...corpus({ seed: 9, documents: 50 })]).toEqual(documents.slice(0, 50));
    expect([...corpus({ seed: 10, documents: 50 })]).not.toEqual(documents.slice(0, 50));
  });

  it("has documents of 40 to 150 words without roles and questions", () => {
    for (const text of documents) {
      const length = text.split(/\s+/).length;
      expect(length).toBeGreaterThanOrEqual(40);
      expect(length).toBeLessThanOrEqual(150);
      expect(text).not.toMatch(/user|assistant|<\||\?/);
    }
  });

  it("holds no first prompt of any held-out task", () => {
    const text = documents.map(canonical).join("\n");
    const prompts = firstKeys(makeTasks({ seed: 2, split: "heldout", perCategory: 500 }));
    expect(prompts.filter((prompt) => text.includes(prompt))).toEqual([]);
  });
});

describe("Random", () => {
  it("is even over its range and reproducible", () => {
    const counts = new Array<number>(10).fill(0);
    const random = new Random(1);
    for (let i = 0; i < 100_000; i++) counts[random.int(0, 9)]! += 1;
    for (const count of counts) expect(Math.abs(count - 10_000)).toBeLessThan(500);
    const [a, b, c] = [new Random(3, "x"), new Random(3, "x"), new Random(3, "y")];
    const five = (one: Random) => Array.from({ length: 5 }, () => one.next());
    const first = five(a);
    expect(five(b)).toEqual(first);
    expect(five(c)).not.toEqual(first);
  });
});
