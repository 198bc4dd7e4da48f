import { type Permutation, shuffled, unshuffled } from "../data/shuffle";

/** What the plan of a run depends on. */
export interface PlanOptions {
  /** Rows or pairs in the data. */
  rows: number;
  /** Rows that stay together; a batch is then counted in packs. Without it every row stands alone. */
  packs?: readonly Uint32Array[] | undefined;
  /** Packs, or rows, in a micro-batch. */
  batchSize: number;
  gradientAccumulation: number;
  /** Passes over the data; null when maxSteps is given. */
  epochs: number | null;
  /** Optimiser steps; null when epochs is given. */
  maxSteps: number | null;
  seed: number;
  shuffle: boolean;
}

/** One optimiser step. */
export interface PlannedStep {
  /** 1-based. */
  step: number;
  /** The pass over the data it belongs to, 0-based. */
  epoch: number;
  /** Passes done when the step is done, as TRL logs `epoch`: 0.8 after four of five micro-batches. */
  epochsDone: number;
  /**
   * Row indices of each micro-batch. The last window of an epoch may have fewer micro-batches, and the last micro-batch
   * fewer rows: losses are divided by what the window really holds.
   */
  microBatches: Uint32Array[];
}

/** The exact course of a run, known before it starts. */
export interface BatchPlan {
  readonly rows: number;
  readonly stepsPerEpoch: number;
  readonly totalSteps: number;
  /**
   * The rows of a step; a pure function of the plan's options and the step, so that a run resumes anywhere in O(1).
   *
   * @param step 1-based
   */
  step(step: number): PlannedStep;
}

/** Plans epochs → steps → micro-batches. Every row is visited exactly once in a whole epoch; none is dropped. */
export function planBatches(options: PlanOptions): BatchPlan {
  const { rows, packs, batchSize, gradientAccumulation, seed, shuffle } = options;
  if (rows < 1 || packs?.length === 0) throw new RangeError("there are no rows to plan batches of");
  // What is shuffled and counted: packs, whose rows stay together, or rows.
  const units = packs?.length ?? rows;
  const rowsOf = (unit: number): ArrayLike<number> & Iterable<number> => packs?.[unit] ?? [unit];
  const batchesPerEpoch = Math.ceil(units / batchSize);
  const stepsPerEpoch = Math.ceil(batchesPerEpoch / gradientAccumulation);
  // The tolerance keeps 1.1 epochs of ten steps at eleven: 1.1 * 10 is a little above 11 in floating point.
  const totalSteps = options.maxSteps ?? Math.ceil((options.epochs ?? 1) * stepsPerEpoch - 1e-9);
  let cached: { epoch: number; order: Permutation } | undefined;
  const orderOf = (epoch: number) => {
    if (cached?.epoch !== epoch) cached = { epoch, order: shuffle ? shuffled(seed, epoch, units) : unshuffled(units) };
    return cached.order;
  };
  return {
    rows,
    stepsPerEpoch,
    totalSteps,
    step: (step) => {
      if (!Number.isInteger(step) || step < 1 || step > totalSteps) {
        throw new RangeError(`step ${step} lies outside a run of ${totalSteps} steps`);
      }
      const epoch = Math.floor((step - 1) / stepsPerEpoch);
      const order = orderOf(epoch);
      const first = ((step - 1) % stepsPerEpoch) * gradientAccumulation;
      const last = Math.min(first + gradientAccumulation, batchesPerEpoch);
      const microBatches: Uint32Array[] = [];
      for (let batch = first; batch < last; batch++) {
        const start = batch * batchSize;
        const size = Math.min(batchSize, units - start);
        const inBatch = Array.from({ length: size }, (_, i) => rowsOf(order(start + i)));
        microBatches.push(Uint32Array.from(inBatch.flatMap((rows) => [...rows])));
      }
      return { step, epoch, epochsDone: epoch + last / batchesPerEpoch, microBatches };
    },
  };
}
