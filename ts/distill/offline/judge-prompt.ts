/**
 * Finds question, answers and wanted form of verdict in the prompt of a judge whose text is not ours (MT-Bench's,
 * AlpacaEval's, anyone's of their kind). What is relied on:
 *
 * 1. *Blocks*: a line that is nothing but a label in `[…]` or `<|…|>` with the word "start" or "begin" opens a block. It
 *    ends at a line with the same label but for "end", and behind which only space, another block or the prompt's end
 *    follow: so an answer that writes such a line itself does not end its block.
 * 2. *Quoted values*: `"key": """value"""`, as in a Python literal. Keys with instruction, question or prompt hold the
 *    question, keys with output, answer, response or completion an answer; its name is the last short value before it.
 * 3. A block with lines `### Name:` is a conversation; names with "user", "human" or "question" ask, others answer.
 * 4. A block whose label speaks of a reference holds the reference; its names answer for it.
 * 5. Without conversations the question stands between the last label before the first block (the first one that speaks of
 *    a question, if any) and that block.
 * 6. The form is looked for outside of all that: `[[A]]` a winner, `[[rating]]` or `[[5]]` a number, `rank` a list of ranks;
 *    else two names of one letter a bare name.
 */
import type { Message } from "../../data/messages";

/** One whose answers are to be judged. */
export interface Candidate {
  name: string;
  /** One for each question. */
  answers: string[];
}

/** What a judge is asked. */
export interface JudgePrompt {
  form: "rating" | "winner" | "ranks" | "name";
  questions: string[];
  candidates: Candidate[];
  /** One for each question, or none. */
  references: string[];
}

interface Block {
  label: string;
  start: number;
  end: number;
  body: string;
}

const labelLine = /^[ \t]*(?:\[([^[\]\n]+)\]|<\|([^|\n]+)\|>)[ \t]*$/gm;
const headingLine = /^#{1,6}[ \t]*([^\n]*?):?[ \t]*$/gm;

/** Reads a judge's prompt; undefined when there is none. */
export function readJudgePrompt(messages: readonly Message[]): JudgePrompt | undefined {
  const text = messages.map(({ content }) => content).join("\n\n");
  const blocks = blocksOf(text);
  const found = blocks.length > 0 ? fromBlocks(text, blocks) : fromQuotedValues(text);
  if (!found || found.candidates.length === 0 || found.questions.length === 0) return undefined;
  const { outside, ...rest } = found;
  const form = formOf(outside, rest.candidates);
  return form && { form, ...rest };
}

type Found = Omit<JudgePrompt, "form"> & { outside: string };

function blocksOf(text: string): Block[] {
  const lines = [...text.matchAll(labelLine)].map((match) => ({
    label: (match[1] ?? match[2])!.trim(),
    from: match.index,
    to: match.index + match[0].length,
  }));
  const blocks: Block[] = [];
  for (let at = 0; at < lines.length; at++) {
    const open = lines[at]!;
    if (!/\b(start|begin)\b/i.test(open.label)) continue;
    const name = open.label.replace(/\b(the )?(start|begin)( of)?\b/i, "").trim();
    const closes = (line: { label: string; to: number }) => {
      if (!/\bend\b/i.test(line.label) || line.label.replace(/\b(the )?end( of)?\b/i, "").trim() !== name) return false;
      const rest = text.slice(line.to).trimStart();
      return rest === "" || /^(\[|<\|)[^\n]*\b(start|begin)\b/i.test(rest);
    };
    const close = lines.findIndex((line, index) => index > at && closes(line));
    const end = close < 0 ? text.length : lines[close]!.from;
    blocks.push({ label: name, start: open.from, end, body: text.slice(open.to, end).trim() });
    if (close < 0) break;
    at = close;
  }
  return blocks;
}

function fromBlocks(text: string, blocks: readonly Block[]): Found {
  const parts = blocks.map((block) => ({
    ...block,
    turns: turnsOf(block.body),
    reference: /reference/i.test(block.label),
  }));
  const outside = parts.reduceRight((rest, { start, end }) => rest.slice(0, start) + rest.slice(end), text);
  const answers = parts.filter(({ reference }) => !reference);
  const references = parts.filter(({ reference }) => reference).flatMap((part) => part.turns?.answers ?? [part.body]);
  const talk = answers.find(({ turns }) => turns !== undefined)?.turns;
  if (talk) {
    const candidates = answers.map(({ label, turns, body }) => ({ name: label, answers: turns?.answers ?? [body] }));
    return { questions: talk.questions, candidates, references, outside };
  }
  const before = text.slice(0, blocks[0]!.start);
  const labels = [...before.matchAll(labelLine)];
  const asking = labels.find((match) => /question|prompt|task/i.test(match[0])) ?? labels.at(-1);
  const from = asking ? asking.index + asking[0].length : 0;
  return {
    questions: [before.slice(from).trim()].filter(Boolean),
    candidates: answers.map(({ label, body }) => ({ name: label, answers: [body] })),
    references,
    outside: outside.replace(before.slice(from), "\n"),
  };
}

/** The turns under headings; undefined when there are none. */
function turnsOf(body: string): { questions: string[]; answers: string[] } | undefined {
  const headings = [...body.matchAll(headingLine)].filter((match) => /:[ \t]*$/.test(match[0]));
  const first = headings[0];
  if (first?.index !== 0) return undefined;
  const asks = (name: string) => /\b(user|human|question)\b/i.test(name);
  // Headings inside an answer belong to it: only those named as the first two are turns.
  const names = [first[1]!, headings.find(({ 1: name }) => name !== first[1])?.[1]];
  const turns = headings.filter(({ 1: name }) => names.includes(name));
  const questions: string[] = [];
  const answers: string[] = [];
  for (const [index, turn] of turns.entries()) {
    const content = body.slice(turn.index + turn[0].length, turns[index + 1]?.index).trim();
    (asks(turn[1]!) ? questions : answers).push(content);
  }
  return { questions, answers };
}

const quotedValue = /(["'])([\w ]+)\1\s*:\s*(?:"""([\s\S]*?)"""(?=\s*(?:[,}\]]|$))|(["'])([^"'\n]*)\4)/g;

function fromQuotedValues(text: string): Found | undefined {
  const questions: string[] = [];
  const candidates: Candidate[] = [];
  let name = "";
  let outside = text;
  for (const match of text.matchAll(quotedValue)) {
    const key = match[2]!;
    const value = match[3];
    if (value === undefined) {
      name = match[5] ?? "";
      continue;
    }
    outside = outside.replace(value, "");
    if (/instruction|question|prompt/i.test(key)) questions.push(value.trim());
    else if (/output|answer|response|completion/i.test(key)) candidates.push({ name, answers: [value.trim()] });
  }
  return questions.length > 0 ? { questions: questions.slice(0, 1), candidates, references: [], outside } : undefined;
}

function formOf(outside: string, candidates: readonly Candidate[]): JudgePrompt["form"] | undefined {
  if (candidates.length === 1) return "rating";
  if (candidates.length !== 2) return undefined;
  if (/\[\[A\]\]/.test(outside)) return "winner";
  if (/\branks?\b['"]/i.test(outside)) return "ranks";
  return candidates.every(({ name }) => name.length === 1) ? "name" : "winner";
}
