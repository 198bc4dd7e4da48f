/** Python's `random.Random(seed)` for text seeds: the order of AlpacaEval's outputs hangs on its first number. */
import { createHash } from "node:crypto";

const size = 624;
const shift = 397;

/**
 * The generator of CPython for a text: the text's UTF-8 bytes and their sha512 as one big-endian number, which seeds the
 * Mersenne Twister (MT19937) by its 32-bit words. Returns `random()`, numbers in [0, 1) of 53 bits.
 */
export function pythonRandom(seed: string): () => number {
  const bytes = Buffer.from(seed, "utf8");
  const state = seededByArray(words(Buffer.concat([bytes, createHash("sha512").update(bytes).digest()])));
  let at = size;
  const next = (): number => {
    if (at === size) {
      twist(state);
      at = 0;
    }
    let y = state[at++]!;
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  };
  return () => {
    const high = next() >>> 5;
    const low = next() >>> 6;
    return (high * 2 ** 26 + low) / 2 ** 53;
  };
}

/** The words of a big-endian number, the least significant first; leading zeros are none of it. */
function words(bytes: Buffer): number[] {
  const first = bytes.findIndex((byte) => byte !== 0);
  const number = first < 0 ? Buffer.alloc(1) : bytes.subarray(first);
  const padded = Buffer.concat([Buffer.alloc((4 - (number.length % 4)) % 4), number]);
  return Array.from({ length: padded.length / 4 }, (_, i) => padded.readUInt32BE(padded.length - 4 * (i + 1)));
}

/** `init_by_array` of Matsumoto and Nishimura's reference code. */
function seededByArray(key: readonly number[]): Uint32Array {
  const state = new Uint32Array(size);
  state[0] = 19650218;
  for (let i = 1; i < size; i++) state[i] = Math.imul(1812433253, mixed(state, i)) + i;
  let i = 1;
  const advance = () => {
    if (++i < size) return;
    state[0] = state[size - 1]!;
    i = 1;
  };
  for (let k = 0; k < Math.max(size, key.length); k++) {
    const j = k % key.length;
    state[i] = (state[i]! ^ Math.imul(mixed(state, i), 1664525)) + key[j]! + j;
    advance();
  }
  for (let k = 0; k < size - 1; k++) {
    state[i] = (state[i]! ^ Math.imul(mixed(state, i), 1566083941)) - i;
    advance();
  }
  state[0] = 0x80000000;
  return state;
}

function mixed(state: Uint32Array, i: number): number {
  const before = state[i - 1]!;
  return before ^ (before >>> 30);
}

function twist(state: Uint32Array): void {
  for (let i = 0; i < size; i++) {
    const y = (state[i]! & 0x80000000) | (state[(i + 1) % size]! & 0x7fffffff);
    state[i] = state[(i + shift) % size]! ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
  }
}

/**
 * AlpacaEval's coin for a comparison: whether the model's output is shown first.
 *
 * @param seed of the annotator @default 0
 */
export function isSwitched(instruction: string, seed = 0): boolean {
  return pythonRandom(`is_switched_outputs${instruction}${seed}`)() >= 0.5;
}
