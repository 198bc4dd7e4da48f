/** AlpacaEval's figures (`metrics/winrate.py`). Preferences are 1 (the baseline wins) to 2 (the model wins). */
import { codePoints } from "../bias";
import { mean } from "../figures";
import { standardError } from "../statistics";

/** The figures under their names on the leaderboard; rates are in percent. */
export interface WinRate {
  win_rate: number;
  /** Sample deviation over √n; NaN for one row. */
  standard_error: number;
  n_wins: number;
  n_wins_base: number;
  n_draws: number;
  /** Rows with a usable preference. */
  n_total: number;
  /** Preferences rounded to 1 or 2 first; draws count half. */
  discrete_win_rate: number;
}

/** A preference as a share of a win, 0–1; null when it cannot be used. The old value 0 is a draw. */
export function winShare(preference: number | null): number | null {
  if (preference === 0) return 0.5;
  return preference !== null && preference >= 1 && preference <= 2 ? preference - 1 : null;
}

/** Win rate, its standard error, counts, and the discrete rate. Rows without a usable preference are out of all of them. */
export function winRate(preferences: readonly (number | null)[]): WinRate {
  const shares = preferences.map(winShare).filter((share) => share !== null);
  const count = (test: (share: number) => boolean) => shares.filter(test).length;
  return {
    win_rate: 100 * mean(shares),
    standard_error: 100 * standardError(shares).error,
    n_wins: count((share) => share > 0.5),
    n_wins_base: count((share) => share < 0.5),
    n_draws: count((share) => share === 0.5),
    n_total: shares.length,
    discrete_win_rate: 100 * mean(shares.map((share) => (share === 0.5 ? 0.5 : Math.round(share)))),
  };
}

/** `avg_length`: the mean length in code points, cut to a whole number. */
export function averageLength(outputs: readonly string[]): number {
  return Math.trunc(mean(outputs.map(codePoints)));
}
