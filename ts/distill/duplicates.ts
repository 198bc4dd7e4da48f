/**
 * Texts that were there before, exactly or nearly.
 *
 * Exactly: the same words in the same order; case, marks and spaces do not count. Nearly: the sets of runs of three words
 * have a Jaccard similarity of at least the threshold. Candidates are found by MinHash (80 hashes in 16 bands of 5) and
 * then compared, so that nothing is taken for a duplicate that is none; of pairs at similarity 0.7 about 5 % are not
 * found, at 0.8 0.2 %.
 */

import { mix } from "../data/shuffle";
import { jaccard, leastRun, wordRuns, wordsOf } from "../data/word-runs";

const bands = 16;
const bandRows = 5;

/** What was found. `index` is that of the earlier text. */
export interface Duplicate {
  kind: "exact" | "near";
  index: number;
}

/** Remembers texts; memory is about 1 kB a text. */
export class Duplicates {
  readonly #exact = new Map<string, number>();
  readonly #runs: Uint32Array[] = [];
  /** First text with a value of a band; the key holds band and value. Later ones follow in {@link #more}. */
  readonly #first = new Map<number, number>();
  readonly #more = new Map<number, number[]>();

  /** @param threshold similarity from which texts count as near duplicates; 1 finds exact ones only */
  constructor(readonly threshold = 0.7) {}

  /** Number of texts that are remembered. */
  get size(): number {
    return this.#runs.length;
  }

  /**
   * Remembers a text, unless it is a duplicate of an earlier one, which is returned.
   *
   * @param scope texts of different scopes are never duplicates of each other
   */
  add(text: string, scope = ""): Duplicate | undefined {
    const words = wordsOf(text);
    const key = `${scope}\u0000${words.join(" ")}`;
    const same = this.#exact.get(key);
    if (same !== undefined) return { kind: "exact", index: same };
    const runs = wordRuns(words, scope);
    const signature = this.threshold < 1 ? bandValues(runs) : [];
    const near = this.#nearest(runs, signature);
    if (near !== undefined) return { kind: "near", index: near };
    const index = this.#runs.length;
    this.#exact.set(key, index);
    this.#runs.push(runs);
    for (const value of signature) {
      if (!this.#first.has(value)) this.#first.set(value, index);
      else this.#more.set(value, [...(this.#more.get(value) ?? []), index]);
    }
    return undefined;
  }

  #nearest(runs: Uint32Array, signature: readonly number[]): number | undefined {
    const looked = new Set<number>();
    let best: number | undefined;
    let most = 0;
    const look = (index: number) => {
      if (looked.has(index)) return;
      looked.add(index);
      const similarity = jaccard(runs, this.#runs[index]!);
      if (similarity >= this.threshold && (similarity > most || (similarity === most && index < best!))) {
        best = index;
        most = similarity;
      }
    };
    for (const value of signature) {
      const first = this.#first.get(value);
      if (first === undefined) continue;
      look(first);
      for (const index of this.#more.get(value) ?? []) look(index);
    }
    return best;
  }
}

/** Similarity of two texts as {@link Duplicates} measures it. */
export function similarity(a: string, b: string): number {
  return jaccard(wordRuns(wordsOf(a)), wordRuns(wordsOf(b)));
}

/** One number for each band, made of the smallest hashes of its rows; the band is in the number. */
function bandValues(runs: Uint32Array): number[] {
  return Array.from({ length: bands }, (_, band) => {
    let value = 0;
    for (let row = 0; row < bandRows; row++) {
      value = mix(value ^ leastRun(runs, band * bandRows + row));
    }
    return band * 2 ** 32 + value;
  });
}
