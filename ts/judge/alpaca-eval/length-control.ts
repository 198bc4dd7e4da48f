/**
 * The length-controlled win rate (Dubois et al. 2024, arXiv 2404.04475; `metrics/glm_winrate.py`, `length_controlled_v1`):
 *
 *   logit P(model wins) = φ·tanh(Δ/sd(Δ)) + γ·difficulty + θ,   Δ = code points of the baseline's output − the model's
 *
 * fitted per model, and read at Δ = 0.
 */
import { JudgeError } from "../../errors";
import { mean } from "../figures";
import { standardError, sum } from "../statistics";
import { fitLogistic, type LogisticData, probabilityOf, sigmoid } from "./logistic";

/** What a model's fit amounts to; the columns of upstream's weights file. */
export interface LengthControlWeights {
  /** φ, `np.tanh(std_delta_len)`. */
  length: number;
  /** γ, `instruction_difficulty`. */
  difficulty: number;
  /** θ, `not_gamed_baseline.astype(float)`. */
  model: number;
}

/** A length-controlled rate in percent. */
export interface LengthControlled {
  length_controlled_winrate: number;
  /** Sample deviation of the predictions over √n. */
  lc_standard_error: number;
  /** The prediction of each instruction, 0–1 (`glm_preference`). */
  predictions: number[];
}

/**
 * The rate that weights predict: 100 · mean of σ(γ·difficulty + θ).
 *
 * @param baseline weights of another baseline: the difference counts
 */
export function lengthControlledFromWeights(
  weights: LengthControlWeights,
  difficulty: readonly number[],
  baseline?: LengthControlWeights,
): LengthControlled {
  const slope = weights.difficulty - (baseline?.difficulty ?? 0);
  const offset = weights.model - (baseline?.model ?? 0);
  return rateOf(difficulty.map((each) => sigmoid(slope * each + offset)));
}

function rateOf(predictions: number[]): LengthControlled {
  return {
    length_controlled_winrate: 100 * mean(predictions),
    lc_standard_error: 100 * standardError(predictions).error,
    predictions,
  };
}

/** A comparison as the fit sees it. */
export interface LengthControlRow {
  /** Share of a win, 0–1; null is left out of the fit, not of the prediction. */
  preference: number | null;
  /** Code points of the baseline's output. */
  baselineLength: number;
  /** Code points of the model's output. */
  modelLength: number;
  difficulty: number;
}

/** A comparison of one of the gamed baselines (a terse and a wordy GPT-4) with GPT-4: a row of upstream's df_gamed.csv. */
export interface GamedRow {
  preference: number | null;
  /** Δ/sd(Δ), not yet through tanh. */
  standardisedLength: number;
  difficulty: number;
}

/** What a fit found. */
export interface LengthControlFit extends LengthControlled {
  weights: LengthControlWeights;
  /** The inverse strength of the L1 penalty that cross-validation chose. */
  C: number;
  /** Mean log-loss of the folds, negated, for each C of the grid (higher is better). */
  scores: { C: number; score: number }[];
}

/** Options of {@link fitLengthControlled}. */
export interface LengthControlOptions {
  /**
   * Rows of the gamed baselines, which keep φ and γ near those of GPT-4. Without them the fit is upstream's
   * `length_controlled_noreg`.
   */
  gamed?: readonly GamedRow[];
  /** Weight of the gamed rows, shared by two baselines. @default 0.2 */
  regularisation?: number;
  /** @default 5 */
  folds?: number;
  /** @default 10 values from 1e-4 to 1e4, evenly in the logarithm */
  Cs?: readonly number[];
}

/** scikit-learn's default grid, `np.logspace(-4, 4, 10)`. */
const defaultCs = Array.from({ length: 10 }, (_, i) => 10 ** (-4 + (8 * i) / 9));

/**
 * Our own fit. As upstream: soft labels (each row counts as label 1 with weight p and as label 0 with 1 − p), L1 penalty, no
 * intercept, C by cross-validated log-loss over grouped folds.
 *
 * Folds are those of scikit-learn's `GroupKFold` for groups of one size, dealt out from the last row to the first. NumPy's
 * unstable sort may deal otherwise on another machine; only the choice of C can change by it.
 *
 * @throws JudgeError `ZA_JUDGE_FIT` when rows are too few, or all outputs differ by the same length.
 */
export function fitLengthControlled(
  rows: readonly LengthControlRow[],
  options: LengthControlOptions = {},
): LengthControlFit {
  const { gamed = [], regularisation = 0.2, folds = 5, Cs = defaultCs } = options;
  const deltas = rows.map(({ baselineLength, modelLength }) => baselineLength - modelLength);
  const deviation = Math.sqrt(sum(deltas.map((delta) => (delta - mean(deltas)) ** 2)) / (deltas.length - 1));
  if (rows.length < 2 * folds || !(deviation > 0)) {
    throw new JudgeError(
      "ZA_JUDGE_FIT",
      rows.length < 2 * folds
        ? `${rows.length} rows are too few to fit a length-controlled rate`
        : "all outputs differ from the baseline's by the same length, so that its effect cannot be told",
      { remedy: "Take the plain win rate." },
    );
  }
  // Upstream puts the gamed rows first; the order decides the folds.
  const training: TrainingRow[] = [
    ...gamed.map((row) => ({
      features: [Math.tanh(row.standardisedLength), row.difficulty, 0],
      preference: row.preference,
      weight: regularisation / 2,
    })),
    ...rows.map(({ preference, difficulty }, i) => ({
      features: [Math.tanh(deltas[i]! / deviation), difficulty, 1],
      preference,
      weight: 1,
    })),
  ].filter(({ preference }) => preference !== null);

  const foldOf = training.map((_, i) => (training.length - 1 - i) % folds);
  const scores = Cs.map((C) => ({ C, score: mean(range(folds).map((fold) => foldScore(training, foldOf, fold, C))) }));
  const best = scores.reduce((a, b) => (b.score > a.score ? b : a));
  const w = fitLogistic(dataOf(training), best.C);
  const [length = 0, difficulty = 0, model = 0] = w;
  const predictions = rows.map((row) => probabilityOf([0, row.difficulty, 1], w));
  return { ...rateOf(predictions), weights: { length, difficulty, model }, C: best.C, scores };
}

interface TrainingRow {
  features: number[];
  preference: number | null;
  weight: number;
}

function range(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i);
}

function dataOf(rows: readonly TrainingRow[]): LogisticData {
  return {
    features: rows.map(({ features }) => features),
    weights: rows.map(({ preference, weight }) => [weight * preference!, weight * (1 - preference!)] as const),
  };
}

/** The negated weighted log-loss of the rows of a fold, by the fit of the others; a mean over rows, not over weights. */
function foldScore(training: readonly TrainingRow[], foldOf: readonly number[], fold: number, C: number): number {
  const w = fitLogistic(dataOf(training.filter((_, i) => foldOf[i] !== fold)), C);
  const losses = training
    .filter((_, i) => foldOf[i] === fold)
    .map(({ features, preference, weight }) => {
      const q = Math.min(Math.max(probabilityOf(features, w), 1e-15), 1 - 1e-15);
      return weight * (preference! * Math.log(q) + (1 - preference!) * Math.log(1 - q));
    });
  return mean(losses);
}
