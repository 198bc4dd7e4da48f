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
 * Sum in numpy's order (pairwise over halves, eight running sums in a block): as exact as figures need, and the very digits
 * of benchmarks whose own scripts use numpy or pandas.
 */
export function sum(values: readonly number[], start = 0, length = values.length): number {
  if (length > 128) {
    const half = Math.floor(length / 2 / 8) * 8;
    return sum(values, start, half) + sum(values, start + half, length - half);
  }
  let rest = start;
  let total = 0;
  if (length >= 8) {
    const running = values.slice(start, start + 8);
    const blocks = start + length - (length % 8);
    for (let i = start + 8; i < blocks; i++) running[(i - start) % 8]! += values[i]!;
    const [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0] = running;
    total = a + b + (c + d) + (e + f + (g + h));
    rest = blocks;
  }
  for (let i = rest; i < start + length; i++) total += values[i]!;
  return total;
}

/**
 * Mean of all scores with a 95 % percentile-bootstrap interval over *questions*: the turns of one question are drawn
 * together, because they are not independent.
 *
 * @param questions the scores of each question
 */
export function bootstrapMean(questions: readonly (readonly number[])[], seed = 1): Estimate {
  const sums = questions.map((scores) => sum(scores));
  const counts = questions.map((scores) => scores.length);
  const n = sum(counts);
  if (n === 0) return { mean: Number.NaN, low: Number.NaN, high: Number.NaN, n: 0 };
  const random = uniform(seed);
  const means = Array.from({ length: resamples }, () => {
    let total = 0;
    let count = 0;
    for (let draw = 0; draw < questions.length; draw++) {
      const question = Math.floor(random() * questions.length);
      total += sums[question]!;
      count += counts[question]!;
    }
    return total / count;
  }).sort((a, b) => a - b);
  return {
    mean: sum(questions.flat()) / n,
    low: means[Math.floor(0.025 * resamples)]!,
    high: means[Math.ceil(0.975 * resamples) - 1]!,
    n,
  };
}

/** Mean and its standard error (sample deviation over √n); the error of one value is NaN, not 0. */
export function standardError(values: readonly number[]): { mean: number; error: number; n: number } {
  const n = values.length;
  const mean = sum(values) / n;
  const variance = sum(values.map((value) => (value - mean) ** 2)) / (n - 1);
  return { mean, error: Math.sqrt(variance) / Math.sqrt(n), n };
}

/** Pearson's correlation; NaN for fewer than two pairs, or when one side does not vary. */
export function pearson(pairs: readonly (readonly [x: number, y: number])[]): number {
  const n = pairs.length;
  const meanX = sum(pairs.map(([x]) => x)) / n;
  const meanY = sum(pairs.map(([, y]) => y)) / n;
  const covariance = sum(pairs.map(([x, y]) => (x - meanX) * (y - meanY)));
  const varianceX = sum(pairs.map(([x]) => (x - meanX) ** 2));
  const varianceY = sum(pairs.map(([, y]) => (y - meanY) ** 2));
  return covariance / Math.sqrt(varianceX * varianceY);
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
