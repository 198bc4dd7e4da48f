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
import { configError } from "./config-problems";
import type { EventStream } from "./events";
import { reserveMemory } from "./memory";
import { nativePairs } from "./native-batch";
import type { KtoConfig } from "./preference-config";
import { ReferenceCache } from "./reference-cache";
import { openSession, poll, type Run } from "./run";
import { referenceNames } from "./run-folder";

/** Sums of log-probs of the answers under the reference, one entry a pair. */
export interface ReferenceLogps {
  chosen: Float64Array;
  rejected: Float64Array;
}

/** What is scored: sequences in order, and how some of them are laid out. */
export interface Scored {
  sequences: readonly EncodedRow[];
  /** Hash of the sequences' ids and masks. */
  hash: string;
  /** Sequences in a batch. */
  size: number;
  batch(start: number, end: number): NativeBatch;
}

/** Pairs to be scored: chosen 0, rejected 0, chosen 1, … */
export function scoredPairs(pairs: readonly EncodedPair[], hash: string, config: DpoConfig): Scored {
  return {
    sequences: pairs.flatMap(({ chosen, rejected }) => [chosen, rejected]),
    hash,
    size: 2 * (config.refBatchSize ?? config.batchSize),
    batch: (start, end) => nativePairs(pairs.slice(start / 2, end / 2), config),
  };
}

/** Sums of log-probs of a batch's sequences. */
type Logps = (batch: NativeBatch) => Promise<Float64Array>;

/** Scores what comes from sequence `from` on, batch by batch. */
async function eachBlock(
  run: Run,
  { sequences, size, batch }: Pick<Scored, "sequences" | "size" | "batch">,
  from: number,
  logps: Logps,
  take: (sums: Float64Array, start: number) => unknown,
): Promise<void> {
  for (let start = from; start < sequences.length; start += size) {
    poll(run);
    await take(await logps(batch(start, Math.min(start + size, sequences.length))), start);
  }
}

/** Log-prob sums of all sequences, as a session's model is now. */
export async function scoreNow(
  run: Run,
  scored: Pick<Scored, "sequences" | "size" | "batch">,
  logps: Logps,
): Promise<Float64Array> {
  const sums = new Float64Array(scored.sequences.length);
  await eachBlock(run, scored, 0, logps, (block, start) => sums.set(block, start));
  return sums;
}

/** What a trainer was given as `ref`, until its run needs it no more: nothing else of the trainer may hold that model. */
export class GivenReference {
  #model: Mistral | undefined;
  #gone = false;

  constructor(model: Mistral | undefined) {
    this.#model = model;
  }

  /** @throws ConfigError once it was let go of */
  get model(): Mistral | undefined {
    if (this.#gone) {
      const problem = "the trainer has let go of its reference";
      throw configError([{ field: "ref", problem, remedy: "Make a new trainer to train again." }]);
    }
    return this.#model;
  }

  /** Lets go of it, if there is one, and says so. */
  letGo(events: EventStream): void {
    if (!this.#model) return;
    this.#model = undefined;
    this.#gone = true;
    events.push({ type: "reference" });
  }
}

/** The frozen reference of a run, and how its log-probs are had. */
export class FrozenReference {
  /** undefined once nothing is scored any more: what only a reference needs shall not stay in memory. */
  #model: Mistral | undefined;
  readonly #run: Run;
  /** Before the first step the policy is its own start: its session scores, no second workspace is needed. */
  readonly #policyScores: boolean;
  /** All log-probs are computed before the first step. */
  readonly #beforehand: boolean;
  #session: NativeSession | undefined;
  #fingerprint: Promise<string> | undefined;

  /** @param isStart whether the reference is the policy as it begins */
  constructor(run: Run, model: Mistral, isStart: boolean) {
    this.#model = model;
    this.#run = run;
    const { precomputeRefLogps, syncRefModel } = run.config as DpoConfig | KtoConfig;
    this.#beforehand = precomputeRefLogps;
    this.#policyScores = isStart && precomputeRefLogps;
    if (syncRefModel) run.following = { model, step: 0 };
  }

  /** Log-prob sums of a batch's sequences. The session is made when it is first needed. */
  readonly logps: Logps = async (batch) => {
    const { session, model, config, signal } = this.#run;
    if (this.#policyScores) return session.sequenceLogps(batch);
    if (!this.#session) {
      // No two models are on a card then: the policy makes room.
      if (this.#beforehand && model.device.kind === "cuda") await session.release();
      this.#session = openSession(this.#model!.on(model.device), config, { signal });
    }
    return this.#session.sequenceLogps(batch);
  };

  /** Log-prob sums of all sequences, read from the file as far as it has them. */
  async kept(use: keyof typeof referenceNames, scored: Scored): Promise<Float64Array> {
    const run = this.#run;
    const { referenceCache } = run.config as DpoConfig | KtoConfig;
    const path =
      use === "train" && referenceCache !== null
        ? referenceCache
        : run.folder && join(run.folder.path, referenceNames[use]);
    if (path === undefined) return scoreNow(run, scored, this.logps);
    const cache = await this.#open(path, scored);
    try {
      await eachBlock(run, scored, cache.done, this.logps, (block) => cache.append(block));
    } finally {
      await cache.close();
    }
    return cache.sums;
  }

  /** Gives the workspace back and lets go of the model; nothing is scored any more. */
  async release(): Promise<void> {
    this.#model = undefined;
    if (!this.#session) return;
    await this.#session.release();
    this.#session = undefined;
    if (this.#beforehand) await reserveMemory(this.#run);
  }

  async #open(path: string, { sequences, hash }: Scored): Promise<ReferenceCache> {
    const run = this.#run;
    this.#fingerprint ??= this.#model!.native.fingerprint();
    const key = {
      reference: await this.#fingerprint,
      rows: hash,
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
