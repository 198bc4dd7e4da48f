/**
 * Log-probs of the frozen reference for every row, computed once before the first step. They lie beside the run (or in
 * `referenceCache`), so that a resumed or a second run reads them.
 */
import { rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { NativeBatch, NativeSession } from "../../bindings/node/index";
import { fromNative } from "../errors";
import type { Mistral } from "../model/mistral";
import type { EncodedPair, EncodedRow } from "../model/tokenizer";
import type { DpoConfig } from "./config";
import type { KtoConfig } from "./preference-config";
import { hashRows, ReferenceCache } from "./reference-cache";
import { nativePairs, poll, type Run } from "./run";

/** Sums of log-probs of the answers under the reference, one entry a pair. */
export interface ReferenceLogps {
  chosen: Float64Array;
  rejected: Float64Array;
}

/** Files in a run folder: of the rows, of the held-out rows, and of the mismatched answers of KTO's estimate. */
export const referenceNames = {
  train: "reference.jsonl",
  eval: "reference-eval.jsonl",
  mismatched: "reference-mismatched.jsonl",
  evalMismatched: "reference-eval-mismatched.jsonl",
} as const;

/** What is scored: sequences in order, and how some of them are laid out. */
export interface Scored {
  sequences: readonly EncodedRow[];
  /** Sequences in a batch. */
  size: number;
  batch(start: number, end: number): NativeBatch;
}

/**
 * The reference's log-prob sums of all sequences, read from the file as far as it has them.
 *
 * @param open makes the session that scores; not called when nothing is left to compute
 */
export async function referenceSums(
  run: Run,
  use: keyof typeof referenceNames,
  reference: Mistral,
  { sequences, size, batch }: Scored,
  open: () => NativeSession,
): Promise<Float64Array> {
  const { referenceCache } = run.config as DpoConfig | KtoConfig;
  const path =
    use === "train" && referenceCache !== null
      ? referenceCache
      : run.folder && join(run.folder.path, referenceNames[use]);
  const cache = path === undefined ? undefined : await openCache(run, path, reference, sequences);
  const sums = cache?.sums ?? new Float64Array(sequences.length);
  try {
    for (let start = cache?.done ?? 0; start < sequences.length; start += size) {
      poll(run);
      const block = await open().sequenceLogps(batch(start, Math.min(start + size, sequences.length)));
      if (cache) await cache.append(block);
      else sums.set(block, start);
    }
  } finally {
    await cache?.close();
  }
  return sums;
}

/** Pairs to be scored: chosen 0, rejected 0, chosen 1, … */
export function scoredPairs(pairs: readonly EncodedPair[], config: DpoConfig): Scored {
  return {
    sequences: pairs.flatMap(({ chosen, rejected }) => [chosen, rejected]),
    size: 2 * (config.refBatchSize ?? config.batchSize),
    batch: (start, end) => nativePairs(pairs.slice(start / 2, end / 2), config),
  };
}

async function openCache(run: Run, path: string, reference: Mistral, sequences: readonly EncodedRow[]) {
  const key = {
    reference: await reference.native.fingerprint(),
    rows: hashRows(sequences),
    sequences: sequences.length,
    ldAlpha: "ldAlpha" in run.config ? run.config.ldAlpha : null,
  };
  try {
    return await ReferenceCache.open(path, key);
  } catch (error) {
    // Only the run's own file may be replaced, and only by a run that was told to go on as another one.
    const own = run.folder !== undefined && dirname(path) === run.folder.path;
    if (!own || !run.config.resumeForce || fromNative(error).code !== "ZA_REFERENCE_CACHE") throw error;
    run.warn(`${fromNative(error).problem}: they are computed again`);
    await rm(path);
    return ReferenceCache.open(path, key);
  }
}

/** Mean over all answers. */
export function meanOf({ chosen, rejected }: ReferenceLogps): number {
  return chosen.reduce((sum, logp, pair) => sum + logp + rejected[pair]!, 0) / (2 * chosen.length);
}

/** Interleaved sums taken apart: chosen 0, rejected 0, chosen 1, … */
export function split(sums: Float64Array): ReferenceLogps {
  return {
    chosen: sums.filter((_, index) => index % 2 === 0),
    rejected: sums.filter((_, index) => index % 2 === 1),
  };
}

/** Those of some pairs. */
export function pick(all: ReferenceLogps, rows: Uint32Array): ReferenceLogps {
  return {
    chosen: Float64Array.from(rows, (row) => all.chosen[row]!),
    rejected: Float64Array.from(rows, (row) => all.rejected[row]!),
  };
}
