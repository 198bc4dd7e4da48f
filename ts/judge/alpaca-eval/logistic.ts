/** L1-regularised logistic regression without intercept, the model behind the length-controlled win rate. */
import { sum } from "../statistics";

/** Rows of a regression: features, and how much each of the two labels weighs. */
export interface LogisticData {
  /** [rows × features] */
  features: readonly (readonly number[])[];
  /** Weight of label 1 and of label 0 in each row. */
  weights: readonly (readonly [one: number, zero: number])[];
}

const tolerance = 1e-12;

/**
 * The coefficients that minimise ‖w‖₁ + C·Σᵢ (w¹ᵢ·log(1 + e^(−xᵢ·w)) + w⁰ᵢ·log(1 + e^(xᵢ·w))): the objective of liblinear's
 * `L1R_LR` (scikit-learn's `penalty="l1", solver="liblinear", fit_intercept=False`), by proximal Newton steps.
 *
 * It is solved to the last digits; liblinear stops at a tolerance of 1e-4, so its coefficients differ from the fourth
 * digit on.
 */
export function fitLogistic(data: LogisticData, C: number, start?: readonly number[]): number[] {
  const size = data.features[0]?.length ?? 0;
  let w = start ? [...start] : new Array<number>(size).fill(0);
  let objective = objectiveOf(data, C, w);
  for (let step = 0; step < 200; step++) {
    const { gradient, hessian } = derivatives(data, C, w);
    const direction = newtonDirection(gradient, hessian, w);
    // Backtracking by Armijo's rule on the whole objective (Lee, Sun, Saunders 2014).
    const expected =
      sum(direction.map((d, j) => d * gradient[j]!)) +
      sum(direction.map((d, j) => Math.abs(w[j]! + d) - Math.abs(w[j]!)));
    if (expected > -tolerance * Math.max(1, objective) * 1e-3) break;
    let length = 1;
    let next = w.map((each, j) => each + direction[j]!);
    let value = objectiveOf(data, C, next);
    while (value > objective + 1e-4 * length * expected && length > 1e-10) {
      length /= 2;
      next = w.map((each, j) => each + length * direction[j]!);
      value = objectiveOf(data, C, next);
    }
    if (value >= objective) break;
    w = next;
    objective = value;
  }
  return w;
}

/** P(label 1) of a row. */
export function probabilityOf(features: readonly number[], coefficients: readonly number[]): number {
  return sigmoid(dot(features, coefficients));
}

/** 1 / (1 + e^−x) without overflow. */
export function sigmoid(x: number): number {
  return x >= 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x));
}

function objectiveOf({ features, weights }: LogisticData, C: number, w: readonly number[]): number {
  const losses = features.map((row, i) => {
    const x = dot(row, w);
    return weights[i]![0] * softplus(-x) + weights[i]![1] * softplus(x);
  });
  return sum(w.map(Math.abs)) + C * sum(losses);
}

function derivatives({ features, weights }: LogisticData, C: number, w: readonly number[]) {
  const gradient = new Array<number>(w.length).fill(0);
  const hessian = w.map(() => new Array<number>(w.length).fill(0));
  for (const [i, row] of features.entries()) {
    const [one, zero] = weights[i]!;
    const p = sigmoid(dot(row, w));
    const slope = C * ((one + zero) * p - one);
    const curve = C * (one + zero) * p * (1 - p);
    for (let j = 0; j < w.length; j++) {
      gradient[j]! += slope * row[j]!;
      for (let k = 0; k <= j; k++) hessian[j]![k]! += curve * row[j]! * row[k]!;
    }
  }
  for (let j = 0; j < w.length; j++) for (let k = 0; k < j; k++) hessian[k]![j] = hessian[j]![k]!;
  return { gradient, hessian };
}

/** Minimises the quadratic model plus ‖w + d‖₁ by coordinate descent. */
function newtonDirection(gradient: readonly number[], hessian: readonly number[][], w: readonly number[]): number[] {
  const d = new Array<number>(w.length).fill(0);
  for (let sweep = 0; sweep < 10_000; sweep++) {
    let largest = 0;
    for (let j = 0; j < w.length; j++) {
      // A feature that is 0 everywhere has no curvature, and no effect.
      const curve = Math.max(hessian[j]![j]!, 1e-12);
      const slope = gradient[j]! + dot(hessian[j]!, d);
      const at = w[j]! + d[j]!;
      const moved = softThreshold(at - slope / curve, 1 / curve) - at;
      d[j]! += moved;
      largest = Math.max(largest, Math.abs(moved));
    }
    if (largest < 1e-15) break;
  }
  return d;
}

function softThreshold(x: number, by: number): number {
  return Math.sign(x) * Math.max(0, Math.abs(x) - by);
}

function dot(a: readonly number[], b: readonly number[]): number {
  let total = 0;
  for (let j = 0; j < b.length; j++) total += a[j]! * b[j]!;
  return total;
}

/** log(1 + eˣ) without overflow. */
function softplus(x: number): number {
  return Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
}
