/** Means with what belongs to them: how many, and how sure. */

/** A mean with its 95 % interval. */
export interface Estimate {
  mean: number;
  low: number;
  high: number;
  n: number;
}

/** Resamples of a bootstrap. */
const resamples = 2000;

/** Uniform numbers in [0, 1), a pure function of the seed (mulberry32). */
function uniform(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/**
 * Mean of all scores with a 95 % percentile-bootstrap interval over *questions*: the turns of one question are drawn
 * together, because they are not independent.
 *
 * @param questions the scores of each question
 */
export function bootstrapMean(questions: readonly (readonly number[])[], seed = 1): Estimate {
  const sums = questions.map((scores) => scores.reduce((sum, score) => sum + score, 0));
  const counts = questions.map((scores) => scores.length);
  const n = counts.reduce((sum, count) => sum + count, 0);
  if (n === 0) return { mean: Number.NaN, low: Number.NaN, high: Number.NaN, n: 0 };
  const random = uniform(seed);
  const means = Array.from({ length: resamples }, () => {
    let sum = 0;
    let count = 0;
    for (let draw = 0; draw < questions.length; draw++) {
      const question = Math.floor(random() * questions.length);
      sum += sums[question]!;
      count += counts[question]!;
    }
    return sum / count;
  }).sort((a, b) => a - b);
  return {
    mean: sums.reduce((sum, value) => sum + value, 0) / n,
    low: means[Math.floor(0.025 * resamples)]!,
    high: means[Math.ceil(0.975 * resamples) - 1]!,
    n,
  };
}

/** Mean and its standard error (sample deviation over √n); the error of one value is NaN, not 0. */
export function standardError(values: readonly number[]): { mean: number; error: number; n: number } {
  const n = values.length;
  const mean = values.reduce((sum, value) => sum + value, 0) / n;
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (n - 1);
  return { mean, error: Math.sqrt(variance / n), n };
}

/** How often the first of two paired scores is higher; ties count half. Interval by bootstrap over pairs. */
export function winRate(first: readonly number[], second: readonly number[], seed = 1) {
  const outcomes = first.map((score, index) => {
    const other = second[index]!;
    return score > other ? 1 : score < other ? 0 : 0.5;
  });
  const count = (value: number) => outcomes.filter((outcome) => outcome === value).length;
  const { mean, low, high } = bootstrapMean(
    outcomes.map((outcome) => [outcome]),
    seed,
  );
  return { wins: count(1), ties: count(0.5), losses: count(0), rate: mean, low, high };
}
