import { type Permutation, shuffled, unshuffled } from "../data/shuffle";

/** What the plan of a run depends on. */
export interface PlanOptions {
  /** Rows (or packs, or pairs) in the data. */
  rows: number;
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
  const { rows, batchSize, gradientAccumulation, seed, shuffle } = options;
  if (rows < 1) throw new RangeError("there are no rows to plan batches of");
  const batchesPerEpoch = Math.ceil(rows / batchSize);
  const stepsPerEpoch = Math.ceil(batchesPerEpoch / gradientAccumulation);
  // The tolerance keeps 1.1 epochs of ten steps at eleven: 1.1 * 10 is a little above 11 in floating point.
  const totalSteps = options.maxSteps ?? Math.ceil((options.epochs ?? 1) * stepsPerEpoch - 1e-9);
  let cached: { epoch: number; order: Permutation } | undefined;
  const orderOf = (epoch: number) => {
    if (cached?.epoch !== epoch) cached = { epoch, order: shuffle ? shuffled(seed, epoch, rows) : unshuffled(rows) };
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
        const size = Math.min(batchSize, rows - start);
        microBatches.push(Uint32Array.from({ length: size }, (_, i) => order(start + i)));
      }
      return { step, epoch, epochsDone: epoch + last / batchesPerEpoch, microBatches };
    },
  };
}
