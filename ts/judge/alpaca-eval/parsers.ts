/** AlpacaEval's two ways of reading a judge (`completion_parsers.py`). Both speak of the outputs in the order shown. */
import { type PythonValue, pythonLiteral } from "./python-literal";

/**
 * Which output is better: 1 the first shown, 2 the second, and anything between as a probability; or why nothing can be
 * read.
 */
export type Preference = { value: number; problem: null } | { value: null; problem: string };

/** A token with its log-probability. */
export interface TokenLogprob {
  token: string;
  logprob: number;
}

/**
 * `ranking_parser`: a Python list of `{'model': …, 'rank': …}`; the rank of `model_1`, which must be 1 or 2.
 *
 * @param strict the two models must also have the two ranks; upstream takes model_1's alone
 */
export function rankingParser(completion: string, strict = true): Preference {
  let value: PythonValue;
  try {
    value = pythonLiteral(completion);
  } catch (error) {
    return failed(error instanceof SyntaxError ? error.message : String(error));
  }
  if (!Array.isArray(value)) return failed("the answer is not a list");
  const ranks = new Map<PythonValue, PythonValue>();
  for (const entry of value) {
    if (!(entry instanceof Map) || !entry.has("model"))
      return failed("an entry of the list is no dictionary with 'model'");
    const model = entry.get("model")!;
    if (!ranks.has(model)) ranks.set(model, entry.get("rank") ?? null);
    else if (strict) return failed(`'${String(model)}' is ranked twice`);
  }
  if (!ranks.has("model_1")) return failed("'model_1' is not ranked");
  const rank = rankOf(ranks.get("model_1")!);
  if (rank === null) return failed(`the rank of 'model_1' is ${String(ranks.get("model_1"))}, not 1 or 2`);
  if (strict && rankOf(ranks.get("model_2") ?? null) !== 3 - rank)
    return failed("'model_2' does not have the other rank");
  return { value: rank, problem: null };
}

/** Python's `rank in [1, 2]`: 1.0 and True are 1. */
function rankOf(rank: PythonValue): 1 | 2 | null {
  if (rank === 1 || rank === true) return 1;
  return rank === 2 ? 2 : null;
}

/**
 * `logprob_parser`: 2 − P(m) / (P(m) + P(M)) over the alternatives of the first token, where `m` names the first output.
 * A missing token has probability 0; without both there is no preference.
 */
export function logprobParser(top: readonly TokenLogprob[]): Preference {
  // As in a Python dict, the last of equal tokens wins.
  const found = new Map(top.map(({ token, logprob }) => [token, logprob]));
  const first = found.get("m") ?? Number.NEGATIVE_INFINITY;
  const second = found.get("M") ?? Number.NEGATIVE_INFINITY;
  const highest = Math.max(first, second);
  if (highest === Number.NEGATIVE_INFINITY) {
    return failed(`neither m nor M is among the tokens (${top.map(({ token }) => JSON.stringify(token)).join(", ")})`);
  }
  const total = highest + Math.log(Math.exp(first - highest) + Math.exp(second - highest));
  return { value: 2 - Math.exp(first - total), problem: null };
}

function failed(problem: string): Preference {
  return { value: null, problem };
}
