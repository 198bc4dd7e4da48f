import { formatSlip, isCut, repetition } from "./form";
import { type Reading, read, sentences, words } from "./reading";
import { canonical } from "./tasks";
import type { Accept, Message, Task, Value, WordClass } from "./types";
import { vocabulary } from "./vocabulary";

/**
 * The offline judge: scores one answer 1–10 by rules, in MT-Bench's form ("... Rating: [[7.5]]").
 *
 * It reads what the answer states (numbers in words or digits, the order of items, `key: value` lines, refusals) and
 * compares that with the task's facts; it never compares with the teacher's sentence and does not know who answered.
 *
 * Start, by content: right 10; list or pairs partly right and wrong values 3.5–5.5 by closeness; two different claims
 * 4.5; invention where the text is silent 3; false refusal or no value 2.5; off topic 2; empty or garbage 1.
 * Deductions then: form, length, repetition, unfinished, speaking of the wrong person or of things nobody named.
 *
 * Turn 2 is held to the task's truth for turn 2. Consistency rule: in number tasks where turn 2 adds to or takes from
 * turn 1's result, an answer that carries a wrong turn 1 on correctly is not right, but earns at least 5 for content.
 * Repeating turn 1 (its words or its value) where turn 2 asks for something else is capped at 3.
 */
export interface JudgeInput {
  task: Task;
  turn: 0 | 1;
  /** The messages before the answer; for turn 2 they hold the writer's own first answer. */
  history: readonly Message[];
  answer: string;
}

export type FindingCode =
  | Exclude<Reading["verdict"], "none">
  | "no-value"
  | "off-topic"
  | "empty"
  | "garbage"
  | "format"
  | "long"
  | "very-long"
  | "repeats"
  | "cut"
  | "markup"
  | "stranger"
  | "wrong-subject"
  | "misquotes"
  | "consistent"
  | "ignores-turn-1";

export interface Finding {
  code: FindingCode;
  /** Points that this finding gives (the content) or takes (negative). */
  points: number;
  detail: string;
}

export interface Judgement {
  /** 1 to 10 in steps of one half. */
  score: number;
  rationale: string;
  findings: readonly Finding[];
}

/** Classes whose words must have been brought up by the conversation. */
const named: readonly WordClass[] = ["name", "colour", "item", "animal", "food", "place", "day", "unit"];

export function judge(input: JudgeInput): Judgement {
  const { task, turn, answer } = input;
  const { accept } = task.turns[turn];
  if (answer.trim() === "") return conclude([{ code: "empty", points: 1, detail: "there is no answer" }]);
  const reading = read(answer, accept);
  const content = contentOf(input, reading);
  if (content.code === "garbage") return conclude([content]);
  const right = content.code === "right";
  const findings = [content];
  const take = (code: FindingCode, points: number, otherwise: number, detail: string) => {
    findings.push({ code, points: -(right ? points : otherwise), detail });
  };
  const slip = formatSlip(answer, accept.format);
  if (slip !== undefined) take("format", 2.5, 0.5, slip);
  judgeLength(answer, accept, take);
  const repeated = repetition(answer);
  if (repeated !== undefined) take("repeats", 2, 1, `it repeats "${repeated}"`);
  if (isCut(answer, accept.format)) take("cut", 1.5, 0.5, "it does not end properly");
  if (/<\||\|>|<\/?s>/.test(answer)) take("markup", 2, 1, "it holds marks of the chat format");
  judgeSubjects(input, take);
  if (reading.misquoted.length > 0)
    take("misquotes", 1.5, 0.5, `nobody spoke of ${reading.misquoted.slice(0, 4).join(", ")}`);
  return conclude(findings, ignoresFirstTurn(input, right) ? 3 : 10);
}

type Take = (code: FindingCode, points: number, otherwise: number, detail: string) => void;

function contentOf(input: JudgeInput, reading: Reading): Finding {
  const { said, wanted, degree } = reading;
  switch (reading.verdict) {
    case "right":
      return { code: "right", points: 10, detail: `the content is right (${wanted})` };
    case "partial":
      return {
        code: "partial",
        points: 3.5 + 2 * degree,
        detail: `the content is partly right (read: ${said}; truth: ${wanted})`,
      };
    case "contradicts":
      return {
        code: "contradicts",
        points: 4.5,
        detail: `it says more than one thing (read: ${said}; truth: ${wanted})`,
      };
    case "refuses":
      return { code: "refuses", points: 2.5, detail: `it refuses although the answer is known (${wanted})` };
    case "invents":
      return { code: "invents", points: 3, detail: `it makes something up (${said}) where the text is silent` };
    case "wrong": {
      if (continuesOwnError(input, reading)) {
        return {
          code: "consistent",
          points: 5,
          detail: `it carries its own wrong first answer on correctly (read: ${said}; truth: ${wanted})`,
        };
      }
      return {
        code: "wrong",
        points: 3.5 + 2 * degree,
        detail: `the content is wrong (read: ${said}; truth: ${wanted})`,
      };
    }
    case "none":
      return withoutValue(input, reading);
  }
}

function withoutValue({ task, turn, answer }: JudgeInput, reading: Reading): Finding {
  const found = words(answer);
  const known = found.filter(
    (word) => vocabulary.has(word.text) || word.class !== undefined || word.number !== undefined,
  );
  if (found.length === 0 || known.length * 3 < found.length) {
    return { code: "garbage", points: 1, detail: "it cannot be understood" };
  }
  const topic = conversationWords(task, turn);
  const onTopic = found.some((word) => (word.class !== undefined || word.number !== undefined) && topic.has(word.base));
  return onTopic
    ? {
        code: "no-value",
        points: 2.5,
        detail: `it does not answer the question (read: ${reading.said}; truth: ${reading.wanted})`,
      }
    : { code: "off-topic", points: 2, detail: `it speaks of something else (truth: ${reading.wanted})` };
}

/** Base forms of all words of the prompts so far and of the truth. */
function conversationWords(task: Task, turn: 0 | 1): Set<string> {
  const text = task.turns
    .slice(0, turn + 1)
    .map((one) => one.prompt)
    .join("\n");
  const known = new Set(words(text).map((word) => word.base));
  for (const one of task.turns.slice(0, turn + 1)) for (const word of truthWords(one.accept.value)) known.add(word);
  return known;
}

function truthWords(value: Value): readonly string[] {
  switch (value.kind) {
    case "list":
    case "sequence":
      return value.items;
    case "word":
      return [value.word];
    case "pairs":
      return value.pairs.map(([, word]) => word);
    default:
      return [];
  }
}

function judgeLength(answer: string, accept: Accept, take: Take): void {
  // A one-word answer that is too long is a slip of form first; only rambling counts here.
  const limit = Math.max(accept.maxWords, 8);
  const count = words(answer).length;
  if (count <= limit) return;
  const ratio = count / limit;
  const detail = `it is too long (${count} words, ${limit} are enough)`;
  if (ratio > 2) take("very-long", 3, 1.5, detail);
  else take("long", ratio > 1.5 ? 2.5 : 1.5, 1, detail);
}

function judgeSubjects({ task, turn, answer }: JudgeInput, take: Take): void {
  const { subjects } = task.turns[turn].accept;
  const found = words(answer);
  // The first sentence with content bears the answer; whoever rambles later is taken to task for length.
  const bearing = words(sentences(answer).find((part) => words(part).some((word) => word.class ?? word.number)) ?? "");
  for (const subject of subjects) {
    const said = bearing
      .filter((word) => word.class !== undefined && subject.classes.includes(word.class))
      .map((word) => word.base);
    if (said.length > 0 && !said.some((word) => subject.words.includes(word))) {
      take("wrong-subject", 3, 1, `it speaks of ${said[0]} instead of ${subject.words[0]}`);
    }
  }
  const topic = conversationWords(task, turn);
  const strangers = found.filter(
    (word) => word.class !== undefined && named.includes(word.class) && !topic.has(word.base),
  );
  if (strangers.length > 0) take("stranger", 1.5, 0.5, `nobody spoke of ${strangers[0]!.base}`);
}

function firstAnswer(history: readonly Message[]): string | undefined {
  return history.find((message) => message.role === "assistant")?.content;
}

function continuesOwnError({ task, turn, history }: JudgeInput, reading: Reading): boolean {
  const plus = task.turns[turn].accept.plus;
  const before = firstAnswer(history);
  if (turn === 0 || plus === undefined || before === undefined || reading.number === undefined) return false;
  const claimed = read(before, task.turns[0].accept);
  return claimed.verdict === "wrong" && claimed.number !== undefined && claimed.number + plus === reading.number;
}

function ignoresFirstTurn({ task, turn, history, answer }: JudgeInput, right: boolean): boolean {
  if (turn === 0 || right) return false;
  const before = firstAnswer(history);
  if (before !== undefined && canonical(before) === canonical(answer)) return true;
  // A refusal is not the repetition of a value, and two open questions have the same right answer.
  return task.turns[0].accept.value.kind !== "missing" && read(answer, task.turns[0].accept).verdict === "right";
}

function conclude(findings: Finding[], cap = 10): Judgement {
  const sum = findings.reduce((total, finding) => total + finding.points, 0);
  if (cap < 10)
    findings.push({
      code: "ignores-turn-1",
      points: Math.min(0, cap - sum),
      detail: "it gives the first answer again",
    });
  const score = Math.min(cap, 10, Math.max(1, Math.round(sum * 2) / 2));
  const text = findings.map((finding, i) => (i === 0 ? capitalised(finding.detail) : finding.detail)).join("; ");
  return { score, rationale: `${text}. Rating: [[${score}]]`, findings };
}

function capitalised(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
