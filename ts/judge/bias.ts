/** What pulls a judge besides quality, told from its own verdicts. */
import type { BiasFigures, JudgedRow, JudgedTurn } from "./result";
import { groupBy } from "./rows";
import { pearson } from "./statistics";

/** Length in Unicode code points, as Python's `len` counts. */
export function codePoints(text: string): number {
  let count = text.length;
  for (let i = 0; i + 1 < text.length; i++) {
    if ((text.charCodeAt(i) & 0xfc00) === 0xd800 && (text.charCodeAt(i + 1) & 0xfc00) === 0xdc00) {
      count--;
      i++;
    }
  }
  return count;
}

/** The bias figures of judged rows. */
export function biasOf(rows: readonly JudgedRow[]): BiasFigures {
  const turns = rows.flatMap((row) => row.turns);
  const games = turns.flatMap(({ verdicts }) => verdicts).filter(({ score }) => score !== null && score !== 0.5);
  const firsts = games.flatMap(({ first, score }) => (first === null ? [] : [(first === "model") === score! > 0.5]));
  const flips = turns.flatMap(flipsOf);
  const lengths = turns.flatMap(lengthAndScore);
  const decided = lengths.filter(({ compared, more, score }) => compared && more !== 0 && score !== 0.5);
  const r = pearson(lengths.map(({ more, score }) => [more, score]));
  return {
    firstPosition: rateOf(firsts),
    swapFlips: rateOf(flips),
    lengthCorrelation: Number.isFinite(r) ? { r, n: lengths.length } : null,
    longerWins: rateOf(decided.map(({ more, score }) => more > 0 === score > 0.5)),
  };
}

function rateOf(outcomes: readonly boolean[]): { rate: number; n: number } | null {
  const n = outcomes.length;
  return n > 0 ? { rate: outcomes.filter((outcome) => outcome).length / n, n } : null;
}

/** For each repeat that was judged in both orders: whether the two verdicts differ. */
function flipsOf({ verdicts }: JudgedTurn): boolean[] {
  return [...groupBy(verdicts, ({ repeat }) => repeat).values()].flatMap((games) => {
    const of = (place: "model" | "opponent") => games.find(({ first }) => first === place)?.score ?? null;
    const [first, second] = [of("model"), of("opponent")];
    return first === null || second === null ? [] : [Math.sign(first - 0.5) !== Math.sign(second - 0.5)];
  });
}

/** How much longer the answer is (than the opponent's, where there is one). */
function lengthAndScore({ answer, opponentAnswer, score }: JudgedTurn) {
  if (answer === null || score === null) return [];
  const compared = opponentAnswer !== null;
  return [{ compared, more: codePoints(answer) - (compared ? codePoints(opponentAnswer) : 0), score }];
}
