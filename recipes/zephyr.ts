import type { DpoConfigInput, SftConfigInput } from "../ts/train/config";

/** A supervised stage and a preference stage. */
export interface Recipe {
  readonly sft: SftConfigInput;
  readonly dpo: DpoConfigInput;
}

/**
 * Zephyr-7B-beta as the alignment handbook trains it at v0.3.0 (recipes/zephyr-7b-beta/{sft,dpo}/config_full.yaml).
 * Global batches are those of the handbook's eight devices: 128 sequences, 128 pairs. Losses stand on the assistant's
 * tokens; `handbook` below does as the handbook did.
 */
const zephyr: Recipe = {
  sft: {
    learningRate: 2e-5,
    lrScheduler: "cosine",
    warmupRatio: 0.1,
    epochs: 1,
    batchSize: 16,
    gradientAccumulation: 8,
    maxLength: 2048,
    packing: true,
    template: "zephyr",
    seed: 42,
  },
  dpo: {
    beta: 0.01,
    lossType: "sigmoid",
    learningRate: 5e-7,
    lrScheduler: "cosine",
    warmupRatio: 0.1,
    epochs: 1,
    batchSize: 8,
    gradientAccumulation: 16,
    maxLength: 1024,
    maxPromptLength: 512,
    template: "zephyr",
    seed: 42,
  },
};

/**
 * The same with the handbook's byte-level habits: the loss stands on all tokens of a conversation, the line break after
 * the end token belongs to the answer, content that spells a special token becomes that token, and documents are packed
 * as one stream that is cut every maxLength tokens.
 */
const handbook: Recipe = {
  sft: { ...zephyr.sft, packing: "wrapped", lossOn: "all", answerEnd: "turn", specialsInContent: "parse" },
  dpo: { ...zephyr.dpo, answerEnd: "turn", specialsInContent: "parse" },
};

/**
 * Zephyr-7B-beta as the paper reports it (arXiv 2310.16944; configs of November 2023): SFT at a global batch of 512,
 * DPO with β 0.1 for three epochs at a global batch of 32, linear schedule.
 */
const zephyrPaper: Recipe = {
  sft: { ...zephyr.sft, batchSize: 32, gradientAccumulation: 16, lossOn: "all" },
  dpo: {
    ...zephyr.dpo,
    beta: 0.1,
    lrScheduler: "linear",
    epochs: 3,
    batchSize: 2,
    gradientAccumulation: 16,
  },
};

/**
 * Published recipes as data, to be spread into a trainer's options.
 *
 * @example
 *   new SftTrainer({ model, dataset, ...recipes.zephyr.sft, outputDir: "runs/sft" })
 */
export const recipes = { zephyr: { ...zephyr, handbook }, zephyrPaper } as const;
