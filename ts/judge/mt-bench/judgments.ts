/** FastChat's judgment files, read and written. */
import { z } from "zod";
import { type Placed, readRows, sha256 } from "../rows";
import type { Match } from "./match";
import type { Winner } from "./verdict";

/** What our rows say beyond FastChat's. Its scripts ignore it; rows of FastChat do not have it. */
interface Additions {
  /** @default 0 */
  repeat?: number | undefined;
  /** The model as the server named it. */
  judge_returned?: string | undefined;
  /** sha256 of system prompt and template. */
  prompt_sha256?: string | undefined;
  tries?: number | undefined;
  /** Why the judge gave no answer at all. Such a row is never written. */
  problem?: string | undefined;
}

/** A row of `<judge>_single.jsonl`. */
export interface SingleJudgment extends Additions {
  question_id: number | string;
  model: string;
  judge: [model: string, prompt: string];
  user_prompt: string;
  judgment: string;
  /** −1 when it could not be read. */
  score: number;
  turn: 1 | 2;
  tstamp?: number | undefined;
}

/** Whom a game was given to. */
export type GameWinner = "model_1" | "model_2" | "tie" | "error";

/** A row of `<judge>_pair.jsonl`; game 2 shows `model_2` first. */
export interface PairJudgment extends Additions {
  question_id: number | string;
  model_1: string;
  model_2: string;
  g1_winner: GameWinner;
  g2_winner: GameWinner;
  judge: [model: string, prompt: string];
  g1_user_prompt: string;
  g1_judgment: string;
  g2_user_prompt: string;
  g2_judgment: string;
  turn: 1 | 2;
  tstamp?: number | undefined;
}

export type Judgment = SingleJudgment | PairJudgment;

const shared = {
  question_id: z.union([z.number(), z.string()]),
  judge: z.tuple([z.string(), z.string()]),
  turn: z.union([z.literal(1), z.literal(2)]),
  tstamp: z.number().optional(),
  repeat: z.number().optional(),
  judge_returned: z.string().optional(),
  prompt_sha256: z.string().optional(),
  tries: z.number().optional(),
};

const singleSchema: z.ZodType<SingleJudgment> = z.object({
  ...shared,
  model: z.string(),
  user_prompt: z.string(),
  judgment: z.string(),
  score: z.number(),
});

const winner = z.enum(["model_1", "model_2", "tie", "error"]);

const pairSchema: z.ZodType<PairJudgment> = z.object({
  ...shared,
  model_1: z.string(),
  model_2: z.string(),
  g1_winner: winner,
  g2_winner: winner,
  g1_user_prompt: z.string(),
  g1_judgment: z.string(),
  g2_user_prompt: z.string(),
  g2_judgment: z.string(),
});

export async function readSingleJudgments(file: string): Promise<Placed<SingleJudgment>[]> {
  return await readRows(file, singleSchema);
}

export async function readPairJudgments(file: string): Promise<Placed<PairJudgment>[]> {
  return await readRows(file, pairSchema);
}

/** FastChat's name of the file; a slash in the judge's name is no folder. */
export function judgmentFileName(judge: string, type: "single" | "pair"): string {
  return `${judge.replaceAll("/", "__")}_${type}.jsonl`;
}

/** Whether a row is about two models. */
export function isPair(row: Judgment): row is PairJudgment {
  return "model_1" in row;
}

/** The model that a letter stands for in a game. */
export function modelBehind(winner: Winner | "error", a: GameWinner, b: GameWinner): GameWinner {
  return winner === "A" ? a : winner === "B" ? b : winner;
}

/** What a judgment is about: two rows with the same one are duplicates. */
export function subjectOf(row: Judgment): string {
  const models = isPair(row) ? [row.model_1, row.model_2] : [row.model];
  return JSON.stringify([...models, row.judge, row.question_id, row.turn, row.repeat ?? 0]);
}

/**
 * The one key of all modes, by which a finished judgment is found again: what it is about, and every word that the judge
 * read. It tells other answers, other references and another prompt apart.
 */
export function keyOf(row: Judgment): string {
  const words = isPair(row) ? [row.g1_user_prompt, row.g2_user_prompt] : [row.user_prompt];
  return sha256(`${subjectOf(row)}\n${JSON.stringify(words)}`);
}

/** {@link subjectOf} of a match that a judge is to judge. */
export function subjectOfMatch(match: Match, judge: string): string {
  return subjectOf(rowOfMatch(match, judge));
}

/** {@link keyOf} of a match that a judge is to judge. */
export function keyOfMatch(match: Match, judge: string): string {
  return keyOf(rowOfMatch(match, judge));
}

/** sha256 of what a prompt consists of besides the answers. */
export function promptHash({ system_prompt, prompt_template }: Match["prompt"]): string {
  return sha256(JSON.stringify([system_prompt, prompt_template]));
}

/** The row of a match before it is judged. */
export function rowOfMatch(match: Match, judge: string): Judgment {
  const about = {
    question_id: match.question.question_id,
    judge: [judge, match.prompt.name] as [string, string],
    turn: match.turn,
    ...(match.repeat === 0 ? {} : { repeat: match.repeat }),
  };
  const [first, second] = match.games;
  if (match.opponent === null) {
    return { ...about, model: match.model, user_prompt: first!.userPrompt, judgment: "", score: -1 };
  }
  return {
    ...about,
    model_1: match.model,
    model_2: match.opponent,
    g1_winner: "error",
    g2_winner: "error",
    g1_user_prompt: first!.userPrompt,
    g1_judgment: "",
    g2_user_prompt: second!.userPrompt,
    g2_judgment: "",
  };
}
