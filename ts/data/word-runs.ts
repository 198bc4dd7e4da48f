/**
 * How alike two texts are by their words: the runs of three words that they share, over all runs (Jaccard similarity).
 * Case, marks and spaces do not count.
 */
import { mix } from "./shuffle";

/** Words in a run; a text of fewer words is one run. */
const runLength = 3;

/** Words and numbers of a text, lower-case. Scripts that write no spaces give a word for each character. */
export function wordsOf(text: string): string[] {
  return text.toLowerCase().normalize("NFKC").match(wordPattern) ?? [];
}

const wordPattern =
  /[\p{sc=Han}\p{sc=Hiragana}\p{sc=Katakana}\p{sc=Thai}]|(?:(?![\p{sc=Han}\p{sc=Hiragana}\p{sc=Katakana}\p{sc=Thai}])[\p{L}\p{N}\p{M}])+/gu;

/**
 * Hashes of the runs, sorted, each once.
 *
 * @param scope runs of different scopes are different
 */
export function wordRuns(words: readonly string[], scope = ""): Uint32Array {
  const count = Math.max(1, words.length - runLength + 1);
  const hashes = new Set<number>();
  for (let at = 0; at < count; at++) hashes.add(hash(`${scope}\u0000${words.slice(at, at + runLength).join(" ")}`));
  return Uint32Array.from(hashes).sort();
}

/** Shared runs over all runs of both. */
export function jaccard(a: Uint32Array, b: Uint32Array): number {
  let shared = 0;
  for (let i = 0, j = 0; i < a.length && j < b.length; ) {
    const left = a[i] as number;
    const right = b[j] as number;
    if (left === right) shared++;
    if (left <= right) i++;
    if (right <= left) j++;
  }
  return shared / (a.length + b.length - shared);
}

/**
 * The smallest value of a hash function over the runs. Two texts have the same one with the probability of their Jaccard
 * similarity (MinHash, Broder 1997).
 *
 * @param key which of the hash functions, from 0
 */
export function leastRun(runs: Uint32Array, key: number): number {
  const offset = mix(key + 1);
  let least = 0xffffffff;
  for (const run of runs) least = Math.min(least, mix(run ^ offset));
  return least;
}

/** FNV-1a over UTF-16 units with a final mix: 32 bits. */
function hash(text: string): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  return mix(h);
}
