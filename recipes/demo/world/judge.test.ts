import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  type Category,
  categories,
  converse,
  type FindingCode,
  judge,
  makeTasks,
  pool,
  Random,
  type Task,
  type WriterName,
} from "./index";
import { say } from "./numbers";

const tasks = makeTasks({ seed: 21, split: "pairs", perCategory: 150 });
const turns = [0, 1] as const;

/** Scores of one writer's answers to one turn, after the teacher's correct first turn. */
function answersOf(name: WriterName, some: readonly Task[], turn: 0 | 1) {
  const writer = pool.find((candidate) => candidate.name === name)!;
  return some.map((task) => {
    const history = converse(task).slice(0, turn * 2 + 1);
    const answer = writer.write(task, turn, history, new Random(22, `${task.id}/${turn}/${name}`));
    return { task, turn, history, answer, ...judge({ task, turn, history, answer }) };
  });
}

function mean(list: readonly { score: number }[]): number {
  return list.reduce((sum, one) => sum + one.score, 0) / list.length;
}

/** One task of a category whose turn satisfies the condition. */
function find(category: Category, condition: (task: Task) => boolean): Task {
  return makeTasks({ seed: 31, split: "train", count: 2_000, only: [category] }).find(condition)!;
}

function scoreOf(task: Task, turn: 0 | 1, answer: string, before?: string): number {
  const history = converse(task).slice(0, turn * 2 + 1);
  if (before !== undefined) history[1] = { role: "assistant", content: before };
  return judge({ task, turn, history, answer }).score;
}

describe("the teacher", () => {
  it.each(categories)("scores at least 9.5 on average in %s, both turns", (category) => {
    for (const turn of turns) {
      const judged = answersOf(
        "good",
        tasks.filter((task) => task.category === category),
        turn,
      );
      expect(mean(judged)).toBeGreaterThanOrEqual(9.5);
      expect(judged.filter((one) => one.score < 9.5).map((one) => [one.answer, one.rationale])).toEqual([]);
    }
  });
});

describe("flawed writers", () => {
  const flaws: readonly [WriterName, readonly FindingCode[]][] = [
    ["wrong-value", ["wrong", "partial", "contradicts", "invents", "no-value"]],
    ["wrong-format", ["format"]],
    ["too-long", ["very-long", "long"]],
    ["off-topic", ["off-topic", "stranger", "no-value", "wrong", "invents"]],
    ["misjudges-text", ["refuses", "invents"]],
    ["stops-early", ["cut", "no-value", "partial", "wrong", "off-topic", "garbage"]],
    ["babbles", ["repeats", "garbage"]],
  ];
  it.each(flaws)("%s falls at least 2 below the teacher, with the finding", (name, codes) => {
    for (const turn of turns) {
      const judged = answersOf(name, tasks, turn);
      expect(mean(judged)).toBeLessThanOrEqual(mean(answersOf("good", tasks, turn)) - 2);
      const shown = judged.filter((one) => one.findings.some((finding) => codes.includes(finding.code)));
      expect(shown.length / judged.length).toBeGreaterThan(0.85);
    }
  });

  it("ignores-turn-1 is as good as the teacher in turn 1 and capped in turn 2", () => {
    expect(mean(answersOf("ignores-turn-1", tasks, 0))).toBeGreaterThan(9.5);
    const second = answersOf("ignores-turn-1", tasks, 1);
    expect(mean(second)).toBeLessThan(4.5);
    const shown = second.filter((one) => one.findings.some((finding) => finding.code === "ignores-turn-1"));
    expect(shown.length / second.length).toBeGreaterThan(0.8);
  });
});

describe("the judge", () => {
  const sum = find("arithmetic", (task) => /^what is \w+ plus \w+\?$/.test(task.turns[0].prompt));
  const value = sum.turns[0].accept.value as { number: number; given: readonly number[] };
  const [a, b] = value.given as [number, number];
  const truth = say(value.number);

  it.each([
    `${truth}.`,
    `The answer is ${truth}.`,
    `Certainly! That equals ${truth}.`,
    `if you add ${say(b)} to ${say(a)} you get ${truth}.`,
    `${truth} is ${say(a)} plus ${say(b)}.`,
    `${say(a)} and ${say(b)} are ${value.number}.`,
  ])("gives full marks to any right phrasing: %s", (answer) => {
    expect(scoreOf(sum, 0, answer)).toBe(10);
  });

  it("grades: full, off by one, wrong, silent, empty", () => {
    const off = `${say(a)} plus ${say(b)} is ${say(value.number + 1)}.`;
    const wrong = `${say(a)} plus ${say(b)} is ${say(value.number + 6)}.`;
    const scores = [`${truth}.`, `${truth}`, off, wrong, "the hat of Anna is red.", ""].map((text) =>
      scoreOf(sum, 0, text),
    );
    expect(scores).toEqual([...scores].sort((x, y) => y - x));
    expect(scores[0]).toBe(10);
    expect(scores[1]).toBe(8.5);
    expect(scores[2]).toBe(4.5);
    expect(scores[3]).toBe(3.5);
    expect(scores[5]).toBe(1);
  });

  it("does not let an answer hedge", () => {
    expect(scoreOf(sum, 0, `it is ${truth} or ${say(value.number + 1)}.`)).toBeLessThanOrEqual(5);
  });

  it("gives part marks for a wrong first turn carried on correctly", () => {
    const plus = sum.turns[1].accept.plus!;
    const { format } = sum.turns[1].accept;
    const wrongFirst = value.number + 4;
    const answer = `${say(Math.max(0, wrongFirst + plus))}.`;
    expect(format.kind === "word" || format.kind === "sentence").toBe(true);
    expect(scoreOf(sum, 1, answer, `it is ${say(wrongFirst)}.`)).toBe(5);
    expect(scoreOf(sum, 1, answer)).toBeLessThan(5);
  });

  it("reads the order of lists, with any opening words and separators", () => {
    const task = find("sorting", (one) => one.turns[0].accept.value.kind === "list");
    const { items } = task.turns[0].accept.value as { items: readonly string[] };
    expect(scoreOf(task, 0, `sure, here you are: ${items.join(", ")}.`)).toBe(10);
    expect(scoreOf(task, 0, `${items.slice(0, -1).join(", ")} and ${items[items.length - 1]}.`)).toBe(10);
    expect(scoreOf(task, 0, `${[...items].reverse().join(", ")}.`)).toBeLessThanOrEqual(5.5);
    expect(scoreOf(task, 0, items.map((item) => `- ${item}`).join("\n"))).toBe(7.5);
  });

  it("notices the wrong person", () => {
    const task = find("tables", (one) => /what does (\w+) have\?/.test(one.turns[0].prompt));
    const asked = /what does (\w+) have\?/.exec(task.turns[0].prompt)![1]!;
    const right = task.turns[0].answer;
    expect(scoreOf(task, 0, right)).toBe(10);
    const other = /(\w+) has/g;
    const wrong = [...task.turns[0].prompt.matchAll(other)].map((match) => match[1]!).find((name) => name !== asked)!;
    expect(scoreOf(task, 0, right.replace(asked, wrong))).toBe(7);
  });

  it("accepts refusals in other words and no inventions", () => {
    const task = find("refusal", (one) => one.turns[0].accept.value.kind === "missing");
    for (const text of ["the text does not say.", "I don't know, the text does not mention it.", "that is unknown."]) {
      expect(scoreOf(task, 0, text)).toBe(10);
    }
    const known = find("refusal", (one) => one.turns[0].accept.value.kind === "word");
    expect(scoreOf(known, 0, "the text does not say.")).toBe(2.5);
  });

  it("holds key: value lines, numbered lists and capitals to their form", () => {
    const pairs = find("format", (one) => one.turns[0].accept.format.kind === "pairs");
    expect(scoreOf(pairs, 0, pairs.turns[0].answer.split("\n").reverse().join("\n"))).toBe(10);
    expect(scoreOf(pairs, 0, pairs.turns[0].answer.split("\n").join(", "))).toBe(7.5);
    const capitals = find("format", (one) => one.turns[0].accept.format.kind === "capitals");
    expect(scoreOf(capitals, 0, capitals.turns[0].answer.toLowerCase())).toBe(7.5);
    const numbered = find("format", (one) => one.turns[0].accept.format.kind === "numbered");
    expect(scoreOf(numbered, 0, numbered.turns[0].answer.replace("2.", "3."))).toBe(7.5);
  });

  it("is deterministic and blind: the teacher's sentence in the task does not matter", () => {
    for (const task of tasks.slice(0, 200)) {
      const masked: Task = {
        ...task,
        id: "x",
        turns: [
          { ...task.turns[0], answer: "?" },
          { ...task.turns[1], answer: "?" },
        ],
      };
      for (const turn of turns) {
        const history = converse(task).slice(0, turn * 2 + 1);
        const answer = task.turns[(1 - turn) as 0 | 1].answer;
        const once = judge({ task, turn, history, answer });
        expect(judge({ task: masked, turn, history, answer })).toEqual(once);
      }
    }
  });

  it("never throws and stays within 1 to 10 for any text", () => {
    const piece = fc.oneof(
      fc.string({ unit: "binary" }),
      fc.constantFrom(
        "red",
        "Anna",
        "five",
        "plus",
        "the text does not say.",
        "\n",
        "- ",
        "1. ",
        ":",
        ",",
        "name: ",
        "<|user|>",
      ),
      fc.constantFrom(...tasks.slice(0, 60).map((task) => task.turns[0].answer)),
    );
    const text = fc.array(piece, { maxLength: 40 }).map((parts) => parts.join(" "));
    fc.assert(
      fc.property(fc.constantFrom(...tasks), fc.constantFrom(...turns), text, text, (task, turn, answer, before) => {
        const history = converse(task).slice(0, turn * 2 + 1);
        if (turn === 1) history[1] = { role: "assistant", content: before };
        const { score, rationale } = judge({ task, turn, history, answer });
        expect(score).toBeGreaterThanOrEqual(1);
        expect(score).toBeLessThanOrEqual(10);
        expect(Number.isInteger(score * 2)).toBe(true);
        expect(rationale.endsWith(`Rating: [[${score}]]`)).toBe(true);
      }),
      { numRuns: 2_000, seed: 1 },
    );
    const endless = judge({ task: tasks[0]!, turn: 0, history: [], answer: "the cat, ".repeat(200_000) });
    expect(endless.score).toBeLessThanOrEqual(3);
  });
});
