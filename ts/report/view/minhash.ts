/**
 * How alike two prompts are, from a small signature of each: the share of equal minima of 64 hash functions estimates the
 * similarity of their word runs, with a standard error of at most 1/16.
 */
import { leastRun, wordRuns, wordsOf } from "../../data/word-runs";

/** Numbers of a signature. */
export const signatureLength = 64;

/** The runs of a prompt; one without words is compared as it is. */
export function promptRuns(text: string): Uint32Array {
  const words = wordsOf(text);
  return wordRuns(words.length > 0 ? words : [text.trim()]);
}

/** Writes the signature of a prompt at a position of the table. 16 bits of each minimum are kept. */
export function writeSignature(runs: Uint32Array, table: Uint16Array, position: number): void {
  for (let key = 0; key < signatureLength; key++) table[position + key] = leastRun(runs, key) & 0xffff;
}

/** Estimated similarity of two signatures of a table. */
export function similarity(table: Uint16Array, a: number, b: number): number {
  let same = 0;
  for (let i = 0; i < signatureLength; i++) if (table[a + i] === table[b + i]) same++;
  return same / signatureLength;
}
