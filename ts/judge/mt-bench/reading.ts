/** What a judgment row says: read again from the judge's words, or taken as FastChat stored it. */
import { type GameWinner, isPair, type Judgment, modelBehind, type PairJudgment } from "./judgments";
import { strictRating, strictWinner } from "./verdict";

/** A row's score: 1–10, or the share of a win of `model_1` (1, 0.5, 0). */
export interface Reading {
  score: number | null;
  problem: string | null;
  /** The game scores of a pair, from the view of `model_1`; null where a game cannot be read. */
  games: (number | null)[];
}

/** Reads a row: strictly from the judge's text, or in `compat` mode as it is stored. */
export function readingOf(row: Judgment, mode: "strict" | "compat"): Reading {
  if (row.problem !== undefined) return { score: null, problem: row.problem, games: [] };
  if (isPair(row)) return pairReading(row, mode);
  if (mode === "compat") {
    const rated = row.score !== -1;
    return { score: rated ? row.score : null, problem: rated ? null : "the rating is -1", games: [] };
  }
  const { value, problem } = strictRating(row.judgment);
  return { score: value, problem, games: [] };
}

/** FastChat's rule: a tie in game 1, or two games that disagree, is a tie of both. */
function pairReading(row: PairJudgment, mode: "strict" | "compat"): Reading {
  const read = [winnerOf(row, 1, mode), winnerOf(row, 2, mode)] as const;
  const games = read.map(({ winner }) => (winner === "error" ? null : shareOf(winner)));
  const problem = read.find((each) => each.problem !== null)?.problem ?? null;
  if (problem !== null) return { score: null, problem, games };
  const [one, two] = read;
  const score = one.winner === two.winner ? shareOf(one.winner) : 0.5;
  return { score, problem: null, games };
}

function winnerOf(row: PairJudgment, game: 1 | 2, mode: "strict" | "compat") {
  if (mode === "compat") {
    const winner = game === 1 ? row.g1_winner : row.g2_winner;
    return { winner, problem: winner === "error" ? `game ${game} has no verdict` : null };
  }
  const { value, problem } = strictWinner(game === 1 ? row.g1_judgment : row.g2_judgment);
  if (value === null) return { winner: "error" as GameWinner, problem: `game ${game}: ${problem}` };
  const [a, b] = game === 1 ? (["model_1", "model_2"] as const) : (["model_2", "model_1"] as const);
  return { winner: modelBehind(value, a, b), problem: null };
}

function shareOf(winner: GameWinner): number {
  return winner === "model_1" ? 1 : winner === "model_2" ? 0 : 0.5;
}
