/** What the demo trains with. The preference stage was chosen on seeds 11 and 12 and on other held-out tasks than it reports. */
import type { DpoConfigInput, SftConfigInput } from "../../ts/train/config";

/** Sizes of the demo's data. */
export interface DemoSizes {
  /** Teacher conversations for dSFT. */
  conversations: number;
  /** Tasks that preference pairs are made of. */
  preferenceTasks: number;
  /** Samples of the dSFT model for each prompt. */
  samples: number;
  /** Held-out tasks of each category. */
  heldOutPerCategory: number;
}

/** The demo as it is reported. */
export const sizes: DemoSizes = { conversations: 3200, preferenceTasks: 3000, samples: 8, heldOutPerCategory: 30 };

/** A smoke test of the same road; its scores mean nothing. */
export const quickSizes: DemoSizes = { conversations: 64, preferenceTasks: 24, samples: 2, heldOutPerCategory: 2 };

/** dSFT on the teacher's conversations. */
export const sft: SftConfigInput = {
  learningRate: 1e-3,
  lrScheduler: "cosine",
  warmupRatio: 0.1,
  epochs: 4,
  batchSize: 32,
  maxLength: 256,
  logSteps: 5,
  recompute: "none",
};

/** dDPO on the rated pairs. */
export const dpo: DpoConfigInput = {
  // The chosen answers' own likelihood keeps a model this small from unlearning them (TRL's replacement of rpo_alpha).
  lossType: ["sigmoid", "sft"],
  lossWeights: [1, 1],
  beta: 0.1,
  learningRate: 3e-4,
  lrScheduler: "cosine",
  warmupRatio: 0.1,
  epochs: 1,
  batchSize: 16,
  maxLength: 256,
  logSteps: 5,
  recompute: "none",
};

/** Sampling for the pairs, and the difference of scores that makes one. */
export const preferences = { temperature: 1, margin: 4 } as const;
