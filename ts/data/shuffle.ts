/** A permutation of `[0, n)`: the row at each position. */
export type Permutation = (position: number) => number;

/** Rounds of the Feistel network; four give a pseudo-random permutation (Luby–Rackoff), the rest is margin. */
const rounds = 8;

/** Smallest half in bits. Smaller networks reach too few of the permutations of a small data set. */
const minimumHalfBits = 5;

/**
 * The full shuffle of `n` rows as a pure function of (seed, epoch, n), without a table: a keyed Feistel network over
 * the next power of four, walked until it lands inside `[0, n)` (cycle walking; four steps on average at most, more for
 * very small n). Any position can be asked for alone, so a run resumes in O(1) and memory does not grow with n.
 *
 * @param n number of rows, at most 2^52
 */
export function shuffled(seed: number, epoch: number, n: number): Permutation {
  if (!Number.isSafeInteger(n) || n < 0 || n > 2 ** 52) throw new RangeError(`cannot shuffle ${n} rows`);
  let halfBits = minimumHalfBits;
  while (2 ** (2 * halfBits) < n) halfBits++;
  const half = 2 ** halfBits;
  const keys = roundKeys(seed, epoch);
  return (position) => {
    if (!Number.isInteger(position) || position < 0 || position >= n) {
      throw new RangeError(`position ${position} lies outside a shuffle of ${n} rows`);
    }
    let value = position;
    do {
      let left = Math.floor(value / half);
      let right = value % half;
      for (let round = 0; round < rounds; round++) {
        const mixed = (left ^ (mix(right ^ (keys[round] as number)) & (half - 1))) >>> 0;
        left = right;
        right = mixed;
      }
      value = left * half + right;
    } while (value >= n);
    return value;
  };
}

/** The rows in their order, with the type of a shuffle. */
export function unshuffled(n: number): Permutation {
  return (position) => {
    if (!Number.isInteger(position) || position < 0 || position >= n) {
      throw new RangeError(`position ${position} lies outside ${n} rows`);
    }
    return position;
  };
}

/** A number of 32 bits drawn for (seed, stream, index): the same for the same three, else without relation. */
export function hash32(seed: number, stream: number, index: number): number {
  const state = mix(seedState(seed) ^ mix(stream + 0x27d4eb2f));
  return mix(mix(state ^ mix(index >>> 0)) ^ Math.floor(index / 2 ** 32));
}

function roundKeys(seed: number, epoch: number): Uint32Array {
  const keys = new Uint32Array(rounds);
  let state = mix(seedState(seed) ^ mix(epoch + 0x7f4a7c15));
  for (let round = 0; round < rounds; round++) {
    state = (state + 0x9e3779b9) >>> 0;
    keys[round] = mix(state);
  }
  return keys;
}

/** Both halves of the seed count: seeds may be larger than 32 bits. */
function seedState(seed: number): number {
  return mix((seed >>> 0) ^ 0x9e3779b9) ^ mix(Math.floor(seed / 2 ** 32) ^ 0x85ebca6b);
}

/** The finaliser of MurmurHash3 (32 bits): every input bit reaches every output bit. */
export function mix(value: number): number {
  let h = value >>> 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}
