/** Against scikit-learn: length-control.reference.json is written by the script beside it. */
import { expect, it } from "vitest";
import { fitLengthControlled, lengthControlledFromWeights } from "./length-control";
import reference from "./length-control.reference.json";
import { fitLogistic } from "./logistic";

const rows = reference.rows.difficulty.map((difficulty, i) => ({
  difficulty,
  preference: reference.rows.preference[i]!,
  baselineLength: 5000 + reference.rows.delta[i]!,
  modelLength: 5000,
}));
const gamed = reference.gamed.difficulty.map((difficulty, i) => ({
  difficulty,
  preference: reference.gamed.preference[i]!,
  standardisedLength: reference.gamed.standardisedLength[i]!,
}));

const closeTo = (found: readonly number[], expected: readonly number[], digits: number) => {
  expect(found.length).toBe(expected.length);
  for (const [i, value] of expected.entries()) expect(found[i]).toBeCloseTo(value, digits);
};

it("the fit is scikit-learn's at a tight tolerance, and within liblinear's own tolerance of its default", () => {
  const { weights, C, scores, ...rate } = fitLengthControlled(rows, { gamed });
  const found = [weights.length, weights.difficulty, weights.model];
  const { tight, upstream } = reference;
  expect(C).toBeCloseTo(tight.C, 9);
  closeTo(found, tight.coefficients, 8);
  closeTo(
    scores.map(({ score }) => score),
    tight.scores,
    9,
  );
  expect(rate.length_controlled_winrate).toBeCloseTo(tight.length_controlled_winrate, 6);
  expect(rate.lc_standard_error).toBeCloseTo(tight.lc_standard_error, 8);
  expect(C).toBeCloseTo(upstream.C, 9);
  closeTo(found, upstream.coefficients, 3);
  expect(rate.length_controlled_winrate).toBeCloseTo(upstream.length_controlled_winrate, 2);
});

it("a strong penalty empties the coefficients, a weak one frees them, as in scikit-learn", () => {
  const training = fitTraining();
  for (const { C, coefficients } of reference.single) closeTo(fitLogistic(training, C), coefficients, 7);
});

it("a fit and its weights give one rate", () => {
  const fit = fitLengthControlled(rows, { gamed });
  const again = lengthControlledFromWeights(
    fit.weights,
    rows.map(({ difficulty }) => difficulty),
  );
  expect(again.length_controlled_winrate).toBeCloseTo(fit.length_controlled_winrate, 12);
  const itself = lengthControlledFromWeights(fit.weights, [0.5, -2], fit.weights);
  expect(itself.length_controlled_winrate).toBe(50);
});

it("rows without a preference are predicted, not fitted; what cannot be fitted is refused", () => {
  const holed = rows.map((row, i) => (i % 10 === 0 ? { ...row, preference: null } : row));
  expect(fitLengthControlled(holed, { gamed }).predictions.length).toBe(rows.length);
  expect(() => fitLengthControlled(rows.slice(0, 5))).toThrow(/5 rows are too few/);
  expect(() => fitLengthControlled(rows.map((row) => ({ ...row, modelLength: row.baselineLength - 7 })))).toThrow(
    /differ from the baseline's by the same length/,
  );
});

function fitTraining() {
  const deltas = reference.rows.delta;
  const average = deltas.reduce((a, b) => a + b) / deltas.length;
  const deviation = Math.sqrt(deltas.reduce((total, d) => total + (d - average) ** 2, 0) / (deltas.length - 1));
  const all = [
    ...gamed.map((row) => ({ x: [Math.tanh(row.standardisedLength), row.difficulty, 0], p: row.preference, w: 0.1 })),
    ...rows.map((row, i) => ({ x: [Math.tanh(deltas[i]! / deviation), row.difficulty, 1], p: row.preference, w: 1 })),
  ];
  return { features: all.map(({ x }) => x), weights: all.map(({ p, w }) => [w * p, w * (1 - p)] as const) };
}
