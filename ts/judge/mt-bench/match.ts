/** What is judged: a turn of a question with its answers, and the prompts that the judge gets for it. */
import type { Message } from "../../data";
import { JudgeError } from "../../errors";
import type { Answer } from "./answers";
import { turnsOf } from "./answers";
import type { JudgePrompt, MtBench, Question } from "./bench";
import { pythonFormat } from "./python-format";

/** Categories whose judge sees a reference answer (`NEED_REF_CATS`). */
export const referenceCategories: readonly string[] = ["math", "reasoning", "coding", "arena-hard-200"];

/** Answers of one model. */
export interface Contestant {
  /** As FastChat's files name it. */
  name: string;
  answers: ReadonlyMap<number | string, Answer>;
  /** File that the answers were read from, or written to. */
  file?: string | undefined;
  /** Whether they were generated in this run. @default false */
  generated?: boolean | undefined;
}

/** One prompt for the judge. */
export interface Game {
  /** Whose answer stands first; null where answers are graded alone. */
  first: "model" | "opponent" | null;
  userPrompt: string;
}

/** A turn to be judged: one game when an answer is graded alone, two with the places swapped when two are compared. */
export interface Match {
  question: Question;
  turn: 1 | 2;
  /** Counted from 0. */
  repeat: number;
  model: string;
  opponent: string | null;
  prompt: JudgePrompt;
  reference: string | null;
  answer: string;
  opponentAnswer: string | null;
  games: readonly Game[];
}

/** The name of the judge's prompt, as `gen_judgment.py` chooses it. */
export function promptName(type: "single" | "pairwise", category: string, turn: 1 | 2): string {
  const withReference = referenceCategories.includes(category);
  const base =
    type === "single" ? (withReference ? "single-math-v1" : "single-v1") : withReference ? "pair-math-v1" : "pair-v2";
  return turn === 1 ? base : `${base}-multi-turn`;
}

/**
 * Every turn of every question, in FastChat's order within a question, `repeats` times over.
 *
 * @throws JudgeError `ZA_JUDGE_JOIN` when an answer or a reference is missing, `ZA_JUDGE_FILES` for a missing prompt.
 */
export function matchesOf(bench: MtBench, model: Contestant, opponent: Contestant | null, repeats = 1): Match[] {
  const once = bench.questions.flatMap((question) =>
    question.turns.map((_, index) => matchOf(bench, question, (index + 1) as 1 | 2, model, opponent)),
  );
  return Array.from({ length: repeats }, (_, repeat) => once.map((match) => ({ ...match, repeat }))).flat();
}

/** One turn of one question. */
export function matchOf(
  bench: MtBench,
  question: Question,
  turn: 1 | 2,
  model: Contestant,
  opponent: Contestant | null,
): Match {
  const prompt = promptOf(bench, promptName(opponent ? "pairwise" : "single", question.category, turn));
  const references = referencesOf(bench, question, turn);
  const mine = turnsOf(model.answers, question, model.name);
  const theirs = opponent ? turnsOf(opponent.answers, question, opponent.name) : null;
  const filled = (values: Record<string, string>) =>
    pythonFormat(prompt.prompt_template, { ...questionValues(question, turn), ...references, ...values }, prompt.name);
  const games: Game[] =
    theirs === null
      ? [{ first: null, userPrompt: filled(answerValues("answer", mine, turn)) }]
      : [
          {
            first: "model",
            userPrompt: filled({ ...answerValues("answer_a", mine, turn), ...answerValues("answer_b", theirs, turn) }),
          },
          {
            first: "opponent",
            userPrompt: filled({ ...answerValues("answer_a", theirs, turn), ...answerValues("answer_b", mine, turn) }),
          },
        ];
  return {
    question,
    turn,
    repeat: 0,
    model: model.name,
    opponent: opponent?.name ?? null,
    prompt,
    reference: references[`ref_answer_${turn}`] ?? null,
    answer: mine[turn - 1]!,
    opponentAnswer: theirs?.[turn - 1] ?? null,
    games,
  };
}

/** `answer` in turn 1; `answer_1` and `answer_2` in turn 2. */
function answerValues(name: string, turns: readonly string[], turn: 1 | 2): Record<string, string> {
  return turn === 1 ? { [name]: turns[0]! } : { [`${name}_1`]: turns[0]!, [`${name}_2`]: turns[1]! };
}

function questionValues(question: Question, turn: 1 | 2): Record<string, string> {
  const [first = "", second = ""] = question.turns;
  return turn === 1 ? { question: first } : { question_1: first, question_2: second };
}

function referencesOf(bench: MtBench, question: Question, turn: 1 | 2): Record<string, string> {
  if (!referenceCategories.includes(question.category)) return {};
  const turns = bench.references.get(question.question_id)?.choices[0]?.turns;
  if (!turns || turns.length < turn) {
    throw new JudgeError(
      "ZA_JUDGE_JOIN",
      `question ${question.question_id} (${question.category}) has no reference answer`,
      {
        place: { file: bench.folder },
        remedy: "Give the file of the reference answers; questions of this category are not judged without.",
      },
    );
  }
  return turn === 1 ? { ref_answer_1: turns[0]! } : { ref_answer_1: turns[0]!, ref_answer_2: turns[1]! };
}

function promptOf(bench: MtBench, name: string): JudgePrompt {
  const prompt = bench.prompts.get(name);
  if (prompt) return prompt;
  throw new JudgeError("ZA_JUDGE_FILES", `judge_prompts.jsonl has no prompt ${name}`, {
    place: { file: bench.folder },
    remedy: `It has ${[...bench.prompts.keys()].join(", ")}. Take FastChat's own file.`,
  });
}

/** The conversation of a game. A judge without system messages gets the text as FastChat gives it to Anthropic's models. */
export function messagesOf(prompt: JudgePrompt, game: Game, system: boolean): Message[] {
  const { system_prompt } = prompt;
  if (system) {
    return [
      { role: "system", content: system_prompt },
      { role: "user", content: game.userPrompt },
    ];
  }
  const instruction = system_prompt === "You are a helpful assistant." ? "" : `[Instruction]\n${system_prompt}\n\n`;
  return [{ role: "user", content: `${instruction}${game.userPrompt}` }];
}
