/**
 * Log-probs of the frozen reference for every pair, computed once before the first step. They lie beside the run (or in
 * `referenceCache`), so that a resumed or a second run reads them.
 */
import { rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { NativeSession } from "../../bindings/node/index";
import { fromNative } from "../errors";
import type { Mistral } from "../model/mistral";
import type { EncodedPair } from "../model/tokenizer";
import type { DpoConfig } from "./config";
import { hashRows, ReferenceCache } from "./reference-cache";
import { nativePairs, poll, type Run } from "./run";

/** Sums of log-probs of the answers under the reference, one entry a pair. */
export interface ReferenceLogps {
  chosen: Float64Array;
  rejected: Float64Array;
}

/** Names of the files in a run folder: of the rows, and of the held-out rows. */
export const referenceNames = { train: "reference.jsonl", eval: "reference-eval.jsonl" } as const;

/**
 * The reference's log-probs of all pairs, read from the file as far as it has them.
 *
 * @param open makes the session that scores; not called when nothing is left to compute
 */
export async function referenceLogps(
  run: Run,
  use: keyof typeof referenceNames,
  reference: Mistral,
  pairs: readonly EncodedPair[],
  open: () => NativeSession,
): Promise<ReferenceLogps> {
  const { refBatchSize, batchSize, sharedPrompt, referenceCache } = run.config as DpoConfig;
  const size = refBatchSize ?? batchSize;
  const path =
    use === "train" && referenceCache !== null
      ? referenceCache
      : run.folder && join(run.folder.path, referenceNames[use]);
  const cache = path === undefined ? undefined : await openCache(run, path, reference, pairs);
  const sums = cache?.sums ?? new Float64Array(2 * pairs.length);
  try {
    for (let start = (cache?.done ?? 0) / 2; start < pairs.length; start += size) {
      poll(run);
      const block = await open().sequenceLogps(nativePairs(pairs.slice(start, start + size), sharedPrompt));
      if (cache) await cache.append(block);
      else sums.set(block, 2 * start);
    }
  } finally {
    await cache?.close();
  }
  return split(sums);
}

async function openCache(run: Run, path: string, reference: Mistral, pairs: readonly EncodedPair[]) {
  const key = {
    reference: await reference.native.fingerprint(),
    rows: hashPairs(pairs),
    sequences: 2 * pairs.length,
    ldAlpha: null,
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

/** Hash of the token ids and masks of all pairs. */
export function hashPairs(pairs: readonly EncodedPair[]): string {
  return hashRows(pairs.flatMap(({ chosen, rejected }) => [chosen, rejected]));
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
