/** Asking the judge: what is judged already is kept, what fails is listed and asked again by the next run. */
import { existsSync } from "node:fs";
import { ask, type ChatModel, type Parsed } from "../../client";
import { concurrently } from "../../client/concurrently";
import { JudgeError, placeText, throwIfAborted } from "../../errors";
import { JsonLines } from "../json-lines";
import type { Ledger } from "../ledger";
import { failureOfOne } from "../one-call";
import type { Placed } from "../rows";
import {
  isPair,
  type Judgment,
  keyOf,
  keyOfMatch,
  modelBehind,
  promptHash,
  readPairJudgments,
  readSingleJudgments,
  rowOfMatch,
  subjectOf,
  subjectOfMatch,
} from "./judgments";
import { type Game, type Match, messagesOf } from "./match";
import { readingOf } from "./reading";
import { compatRating, compatWinner, strictRating, strictWinner, type Verdict } from "./verdict";

/** What FastChat asks of a judge. */
export const judgeSampling = { temperature: 0, maxTokens: 2048 } as const;

/** How matches are judged. */
export interface JudgeMatchesOptions {
  /**
   * `strict` re-asks what cannot be read, and keeps no failure; `compat` takes the first text and keeps it with −1 or
   * `error`, as FastChat does.
   */
  mode: "strict" | "compat";
  /** FastChat's judgment file: finished judgments are taken from it, new ones are added. */
  file?: string | undefined;
  /** Write what is new into the file; false only reads it, for a dry run. @default true */
  keep?: boolean | undefined;
  /** Matches in work at once. @default 4 */
  concurrency?: number | undefined;
  signal?: AbortSignal | undefined;
  onJudgment?: ((done: number, matches: number) => void) | undefined;
}

/**
 * Judges every match, and gives their rows in the order of the matches. A row whose text cannot be read (−1, `error`) is a
 * failure; in `strict` mode it is not written.
 *
 * @throws JudgeError `ZA_JUDGE_DUPLICATE` before any call, when the file holds other judgments of the same turns.
 */
export async function judgeMatches(
  matches: readonly Match[],
  judge: ChatModel,
  ledger: Ledger,
  options: JudgeMatchesOptions,
): Promise<Judgment[]> {
  const { mode, file, keep = true, concurrency = 4, signal, onJudgment } = options;
  const pairs = matches.some(({ opponent }) => opponent !== null);
  const lines = file === undefined || !keep ? undefined : await JsonLines.open(file);
  const rows: Judgment[] = [];
  try {
    const before = file !== undefined && existsSync(file) ? await readJudgments(file, pairs) : [];
    const finished = finishedRows(before, matches, judge.name, mode);
    let done = 0;
    for await (const row of concurrently(matches, concurrency, async (match) => {
      const kept = finished.get(keyOfMatch(match, judge.name));
      if (kept) {
        ledger.reuse(kept.judge_returned ?? judge.name);
        return { row: kept, write: false };
      }
      throwIfAborted(signal);
      const fresh = await judged(match, judge, ledger, options);
      return { row: fresh, write: mode === "compat" || readingOf(fresh, mode).problem === null };
    })) {
      if (row.write) await lines?.append(row.row);
      rows.push(row.row);
      onJudgment?.(++done, matches.length);
    }
  } finally {
    await lines?.close();
  }
  return rows;
}

/** The rows of a judgment file. */
export async function readJudgments(file: string, pairs: boolean): Promise<Placed<Judgment>[]> {
  return pairs ? await readPairJudgments(file) : await readSingleJudgments(file);
}

/** Usable rows by their key. Another usable judgment of the same turn would be averaged in by FastChat: it is refused. */
function finishedRows(
  before: readonly Placed<Judgment>[],
  matches: readonly Match[],
  judge: string,
  mode: "strict" | "compat",
): Map<string, Judgment> {
  const wanted = new Map(matches.map((match) => [subjectOfMatch(match, judge), match]));
  const finished = new Map<string, Judgment>();
  for (const { value: row, place } of before) {
    const match = wanted.get(subjectOf(row));
    if (!match || (mode === "strict" && readingOf(row, mode).problem !== null)) continue;
    const key = keyOf(row);
    const other =
      key !== keyOfMatch(match, judge) || (row.prompt_sha256 ?? promptHash(match.prompt)) !== promptHash(match.prompt);
    if (other && mode === "strict") {
      throw new JudgeError(
        "ZA_JUDGE_DUPLICATE",
        `question ${row.question_id}, turn ${row.turn} of ${match.model} is judged there already, with another answer or prompt`,
        {
          place,
          remedy: `Judge these answers into another file, or remove the rows of ${match.model} from ${placeText({ file: place.file ?? "it" })}.`,
        },
      );
    }
    if (!other) finished.set(key, row);
  }
  return finished;
}

async function judged(match: Match, judge: ChatModel, ledger: Ledger, options: JudgeMatchesOptions): Promise<Judgment> {
  const row = rowOfMatch(match, judge.name);
  const strict = options.mode === "strict";
  const additions = (said: Said) => ({
    tstamp: Date.now() / 1000,
    judge_returned: said.returned,
    prompt_sha256: promptHash(match.prompt),
    ...(said.tries > 1 ? { tries: said.tries } : {}),
    ...(strict && said.problem !== undefined ? { problem: said.problem } : {}),
  });
  if (!isPair(row)) {
    const said = await say(match, match.games[0]!, judge, ledger, options, strictRating);
    const score = strict ? (strictRating(said.text).value ?? -1) : compatRating(said.text);
    return { ...row, judgment: said.text, score, ...additions(said) };
  }
  const [first, second] = match.games;
  const one = await say(match, first!, judge, ledger, options, strictWinner);
  const two = await say(match, second!, judge, ledger, options, strictWinner);
  const winner = (text: string) => (strict ? (strictWinner(text).value ?? "error") : compatWinner(text));
  return {
    ...row,
    g1_winner: modelBehind(winner(one.text), "model_1", "model_2"),
    g2_winner: modelBehind(winner(two.text), "model_2", "model_1"),
    g1_judgment: one.text,
    g2_judgment: two.text,
    ...additions({ ...two, tries: Math.max(one.tries, two.tries), problem: one.problem ?? two.problem }),
  };
}

interface Said {
  text: string;
  returned: string;
  tries: number;
  /** Why there is no answer. */
  problem?: string | undefined;
}

/** What FastChat keeps as the text of a call that failed. */
const callFailed = "$ERROR$";

async function say<T>(
  match: Match,
  game: Game,
  judge: ChatModel,
  ledger: Ledger,
  { mode, signal }: JudgeMatchesOptions,
  read: (text: string) => Verdict<T>,
): Promise<Said> {
  const parse = (text: string): Parsed<true> => {
    const problem = mode === "compat" ? null : read(text).problem;
    return problem === null ? { value: true } : { problem };
  };
  const request = {
    messages: messagesOf(match.prompt, game, judge.capabilities.system),
    sampling: judgeSampling,
    sampleIndex: match.repeat,
    purpose: "judge mt-bench",
    ...(signal ? { signal } : {}),
  };
  const asked = await ask(judge, request, parse).catch(failureOfOne);
  if ("failure" in asked) return { text: callFailed, returned: judge.name, tries: 1, problem: asked.failure };
  for (const response of asked.tries) ledger.add(response);
  const last = asked.tries.at(-1)!;
  return { text: last.text, returned: last.model, tries: asked.tries.length };
}
