import { z } from "zod";
import type { DeviceName } from "../native/devices";

/** Losses of the DPO table, as TRL's `loss_type`. */
export const dpoLosses = [
  "sigmoid",
  "hinge",
  "ipo",
  "exo_pair",
  "nca_pair",
  "robust",
  "bco_pair",
  "sppo_hard",
  "aot",
  "aot_unpaired",
  "apo_zero",
  "apo_down",
  "discopop",
  "sft",
  "sigmoid_norm",
] as const;

/** Name of a DPO loss. */
export type DpoLoss = (typeof dpoLosses)[number];

const positive = z.number().positive();
const count = z.int().positive();
const steps = z.int().nonnegative();
const deviceNames = /^(auto|cpu|cuda(:\d+)?)$/;

/** Fields of a low-rank adapter (LoRA), as PEFT's LoraConfig. */
export const loraFields = {
  /** Rank of the adapter's matrices. PEFT `r`. @default 16 */
  rank: count.optional(),
  /** What is added is scaled by alpha/rank. PEFT `lora_alpha`. @default the rank */
  alpha: positive.optional(),
  /** Share of an adapted projection's inputs that is dropped in training. PEFT `lora_dropout`. @default 0 */
  dropout: z.number().min(0).lt(1).optional(),
  /**
   * Projections that are adapted: names (q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, or longer ends of
   * their paths), one pattern that a whole path must match, or "all-linear". PEFT `target_modules`. @default "all-linear"
   */
  targetModules: z.union([z.string().min(1), z.array(z.string().min(1)).nonempty()]).optional(),
  /** Scale by alpha/√rank instead. PEFT `use_rslora`. @default false */
  useRslora: z.boolean().optional(),
};

/** Courses of the learning rate, by transformers' names. */
export const schedulers = [
  "constant",
  "constant_with_warmup",
  "linear",
  "cosine",
  "cosine_with_min_lr",
  "inverse_sqrt",
  "warmup_stable_decay",
  "polynomial",
] as const;

const ramp = z.enum(["linear", "cosine", "1-sqrt"]);

/** Fields that all trainers have. Every key is optional in the input; `@default` is what resolving fills in. */
export const sharedFields = {
  /** Peak learning rate; with lora the default is ten times as high. TRL `learning_rate`. @default 2e-5 (SFT), 1e-6 (DPO), 1e-6 (KTO), 1e-6 (ORPO), 1e-6 (CPO), 1e-6 (SIMPO) */
  learningRate: z.number().nonnegative().optional(),
  /** Course of the learning rate after warm-up. TRL `lr_scheduler_type`. @default "linear" */
  lrScheduler: z.enum(schedulers).optional(),
  /** Optimiser steps of linear warm-up; not together with warmupRatio. TRL `warmup_steps`. @default 0 */
  warmupSteps: steps.optional(),
  /** Share of all steps that is warm-up, rounded up; not together with warmupSteps. TRL `warmup_ratio`. @default none */
  warmupRatio: z.number().min(0).max(1).optional(),
  /** Learning rate at the end, for cosine_with_min_lr and polynomial (1e-7 there when null). transformers `min_lr`, `lr_end`. @default null */
  minLr: z.number().nonnegative().nullable().optional(),
  /** The same as a share of learningRate, for cosine_with_min_lr and warmup_stable_decay. transformers `min_lr_rate`. @default null */
  minLrRate: z.number().min(0).max(1).nullable().optional(),
  /** Steps of the decay at the end; warmup_stable_decay needs it. transformers `num_decay_steps`. @default null */
  lrDecaySteps: count.nullable().optional(),
  /** Course of that decay; cosine when null. transformers `decay_type`. @default null */
  lrDecayType: ramp.nullable().optional(),
  /** Course of the warm-up of warmup_stable_decay; linear when null. transformers `warmup_type`. @default null */
  lrWarmupType: ramp.nullable().optional(),
  /** Power of polynomial; 1 (a straight line) when null. transformers `power`. @default null */
  lrPower: positive.nullable().optional(),
  /** Passes over the data; may be a fraction; not together with maxSteps. TRL `num_train_epochs`. @default 3 */
  epochs: positive.optional(),
  /** Optimiser steps; not together with epochs. TRL `max_steps`. @default none */
  maxSteps: count.optional(),
  /** Rows (SFT), pairs (DPO, ORPO, CPO, SimPO), answers (KTO) or packs (with packing) in a micro-batch. TRL `per_device_train_batch_size`. @default 8 */
  batchSize: count.optional(),
  /** Micro-batches in an optimiser step. TRL `gradient_accumulation_steps`. @default 1 */
  gradientAccumulation: count.optional(),
  /** Longest sequence in tokens; longer ones are cut and counted. TRL `max_length`. @default 1024 */
  maxLength: z.int().min(2).optional(),
  /**
   * How AdamW holds its state: "adamw" in f32 (8 bytes a parameter), "adamw-8bit" with block-wise 8-bit moments (2 bytes),
   * "adamw-bf16" with weights that the model sees as bf16 and their 16-bit rest, so that no small update is lost
   * (10 bytes; the memory of the weights stays that of f32). TRL `optim`. @default "adamw"
   */
  optimizer: z.enum(["adamw", "adamw-8bit", "adamw-bf16"]).optional(),
  /** Decoupled weight decay of AdamW. TRL `weight_decay`. @default 0 */
  weightDecay: z.number().nonnegative().optional(),
  /** First moment decay of AdamW. TRL `adam_beta1`. @default 0.9 */
  adamBeta1: z.number().min(0).lt(1).optional(),
  /** Second moment decay of AdamW. TRL `adam_beta2`. @default 0.999 */
  adamBeta2: z.number().min(0).lt(1).optional(),
  /** Term added to the root of the second moment. TRL `adam_epsilon`. @default 1e-8 */
  adamEpsilon: positive.optional(),
  /** Global gradient norm above which gradients are scaled down; null never clips. TRL `max_grad_norm`. @default 1 */
  maxGradNorm: positive.nullable().optional(),
  /** Seed of the shuffle and of sampling. TRL `seed`. @default 42 */
  seed: z.int().nonnegative().optional(),
  /** Visit the rows of each epoch in a new order. TRL samples at random as well. @default true */
  shuffle: z.boolean().optional(),
  /** Steps between two logged steps. TRL `logging_steps`. @default 10 */
  logSteps: count.optional(),
  /** Steps between two checkpoints; 0 saves only at the end. TRL `save_steps`. @default 500 */
  saveSteps: steps.optional(),
  /** Steps between two evaluations of the held-out rows; 0 evaluates only at the end. TRL `eval_steps`. @default 0 */
  evalSteps: steps.optional(),
  /** Steps between two answers to the prompts of the report, for events and the live page; 0 asks only before and after. @default 0 */
  sampleSteps: steps.optional(),
  /** Where the numbers go besides metrics.jsonl: "tensorboard" writes event files into the run folder. TRL `report_to`. @default none */
  logTo: z.array(z.enum(["tensorboard"])).optional(),
  /** Folder of the run; null writes nothing. TRL `output_dir`. @default null */
  outputDir: z.string().min(1).nullable().optional(),
  /**
   * What the backward computes again instead of keeping: "none" is fastest, "norms-and-swiglu" saves a third of the
   * activations, "layer" keeps only each layer's input (TRL `gradient_checkpointing`). The same bits. "auto" is the fastest
   * that fits a card; on the CPU "norms-and-swiglu", over a quantised base "layer" (as PEFT prepares one). @default "auto"
   */
  recompute: z.enum(["auto", "none", "norms-and-swiglu", "layer"]).optional(),
  /**
   * Type of weights and activations on a card; sums, and what the optimizer adds up, are float32 either way. "float32" is to
   * compare with the CPU, which always computes in it, so that "bfloat16" is refused there. @default "bfloat16"
   */
  precision: z.enum(["bfloat16", "float32"]).optional(),
  /**
   * Measure once how fast this machine multiplies matrices (half a second, kept in the cache), so that the speed of a step is
   * told as a share of it. @default true
   */
  measurePeak: z.boolean().optional(),
  /** Where it is trained: "cpu", "cuda", "cuda:1" (the second card), or "auto", where the model was loaded. @default "auto" */
  device: z
    .custom<DeviceName>((name) => typeof name === "string" && deviceNames.test(name), "it is no device")
    .optional(),
  /** Threads of the core; null takes all cores. @default null */
  threads: count.nullable().optional(),
  /** Chat template: "model" takes that of the tokenizer (Zephyr's when it has none), "zephyr" the built-in one. Other text is a Jinja template. @default "model" */
  template: z.string().min(1).optional(),
  /** Where an answer ends: "eos" at the end token, "turn" after the line break behind it (TRL's convention). @default "eos" */
  answerEnd: z.enum(["eos", "turn"]).optional(),
  /** Content that spells a special token: "text" keeps it text, "parse" makes it that token (as TRL). @default "text" */
  specialsInContent: z.enum(["text", "parse"]).optional(),
  /**
   * How long sequences are cut: "keep-answer" keeps whole answers and shortens what stands before them; "keep-start"
   * keeps the first maxLength tokens, as TRL's `keep_start`. Where no answer is told apart (plain texts, every token
   * learnt) the start is kept.
   * @default "keep-answer"
   */
  truncation: z.enum(["keep-answer", "keep-start"]).optional(),
  /** Rows that cannot be used: "error" refuses the data, "skip" leaves them out and lists them. @default "error" */
  onBadRow: z.enum(["error", "skip"]).optional(),
  /**
   * Train a low-rank adapter and leave the model's weights as they are; null trains all weights, or the adapter that the
   * model already has. TRL `peft_config`. @default null
   */
  lora: z.strictObject(loraFields).nullable().optional(),
  // A run that cannot be lost.
  /**
   * Go on from the newest checkpoint in outputDir that verifies; refused when options, data, template or version differ.
   * TRL `resume_from_checkpoint`. @default false
   */
  resume: z.boolean().optional(),
  /** Resume all the same when the saved run differs, or when none of its checkpoints can be used; it says in what. @default false */
  resumeForce: z.boolean().optional(),
  /** Checkpoints that stay; an old one goes only when a newer one has been read back. TRL `save_total_limit`. @default 2 */
  keepCheckpoints: z.int().min(2).optional(),
  /** Updates in a row that may be skipped (loss or gradient not finite, or too high) before the run stops. @default 3 */
  maxSkippedUpdates: count.optional(),
  /**
   * Skip an update whose loss or gradient norm is more than this many standard deviations above the last 128 steps
   * (OLMo-core's SkipStep uses 6); null never does. @default null
   */
  skipZScore: positive.nullable().optional(),
  /** Seconds after which a step counts as hanging and the run stops; null only warns, after ten usual steps but at least a minute. @default null */
  stepTimeoutSeconds: positive.nullable().optional(),
};

/** Fields of every trainer that can pack. */
export const packingFields = {
  /**
   * Documents looked at together when packing; null looks at all. TRL packs 1000 at a time (the batches of its map).
   * @default null
   */
  packingWindow: count.nullable().optional(),
};

/** Fields of supervised fine-tuning. */
export const sftFields = {
  ...sharedFields,
  ...packingFields,
  /** Tokens that are learnt: those of assistant turns, or all. TRL `assistant_only_loss`. @default "assistant" */
  lossOn: z.enum(["assistant", "all"]).optional(),
  /**
   * Put several documents into one sequence of maxLength tokens: best fit, documents whole and isolated. "wrapped" cuts a
   * stream of documents every maxLength tokens instead, with attention across them: only to repeat the alignment handbook.
   * TRL `packing`, strategy bfd (true) or wrapped. @default false
   */
  packing: z.union([z.boolean(), z.literal("wrapped")]).optional(),
  /**
   * Uniform noise of up to α/√(tokens·width) on the embeddings of training rows; evaluation has none. TRL
   * `neftune_noise_alpha`. @default null
   */
  neftuneNoiseAlpha: positive.nullable().optional(),
};

/** Fields of training on preference pairs. */
export const pairFields = {
  ...sharedFields,
  ...packingFields,
  /**
   * Put several pairs into one pack of packLength tokens (best fit, sequences isolated), so that every micro-batch is of
   * about the same size; the loss is divided by the pairs of the step all the same. TRL has none for pairs. @default false
   */
  packing: z.boolean().optional(),
  /** Tokens of a pack of pairs, both sides counted; at least twice maxLength; null takes just that. @default null */
  packLength: count.nullable().optional(),
  /** Prompt tokens kept (from the end) when a pair is too long; null keeps as many as fit. TRL < 0.29 `max_prompt_length`. @default null */
  maxPromptLength: count.nullable().optional(),
  /**
   * Compute the prompt of a pair once for both answers instead of once for each: the same loss and gradients, fewer
   * tokens. TRL computes it twice.
   * @default true
   */
  sharedPrompt: z.boolean().optional(),
};

/** Fields of training against a frozen reference. */
export const referenceFields = {
  /** Compute the reference's log-probs once before training. TRL `precompute_ref_log_probs`. @default true, false with syncRefModel */
  precomputeRefLogps: z.boolean().optional(),
  /** File of those log-probs, shared by runs over the same rows and reference; null keeps it in outputDir. @default null */
  referenceCache: z.string().min(1).nullable().optional(),
  /** Pairs (or answers) in a batch of that computation; null takes batchSize. TRL `precompute_ref_batch_size`. @default null */
  refBatchSize: count.nullable().optional(),
  /**
   * Let the reference follow the policy: every refModelSyncSteps it becomes refModelMixupAlpha of it and the rest of
   * itself (TR-DPO). A model given as `ref` is copied first. TRL `sync_ref_model`. @default false
   */
  syncRefModel: z.boolean().optional(),
  /** The policy's share when the reference follows it. TRL `ref_model_mixup_alpha`. @default 0.6 */
  refModelMixupAlpha: z.number().min(0).max(1).optional(),
  /** Steps after which the reference follows. TRL `ref_model_sync_steps`. @default 512 */
  refModelSyncSteps: count.optional(),
};

/** Fields of direct preference optimisation. */
export const dpoFields = {
  ...pairFields,
  ...referenceFields,
  /** Strength of the pull towards the reference. TRL `beta`. @default 0.1 */
  beta: positive.optional(),
  /** Loss, or several that are added with lossWeights. TRL `loss_type`. @default "sigmoid" */
  lossType: z.union([z.enum(dpoLosses), z.array(z.enum(dpoLosses)).nonempty()]).optional(),
  /** Weight of each loss of lossType. TRL `loss_weights`. @default 1 for each */
  lossWeights: z.array(z.number().nonnegative()).nonempty().optional(),
  /** Assumed share of wrong labels; at most ½; refused by losses that have none. TRL `label_smoothing`. @default 0 */
  labelSmoothing: z.number().min(0).max(0.5).optional(),
  /** Divergence between policy and reference. TRL `f_divergence_type`. @default "reverse_kl" */
  fDivergence: z.enum(["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"]).optional(),
  /** α of the α-divergence. TRL `f_alpha_divergence_coef`. @default 0.5 */
  fAlpha: z.number().optional(),
  /** IPO's log-ratios per token (TRL) or as sums (the paper's code). @default "tokens" */
  ipoNormalisation: z.enum(["tokens", "none"]).optional(),
  /** Temperature of the discopop loss. TRL `discopop_tau`. @default 0.05 */
  discopopTau: positive.optional(),
  /**
   * What tokens of a pair's longer answer count that the shorter one does not have, for policy and reference (LD-DPO);
   * null counts all alike. TRL `ld_alpha`. @default null
   */
  ldAlpha: z.number().min(0).max(1).nullable().optional(),
  /** Weigh each pair by how likely the policy itself would give its answers (WPO). TRL `use_weighting`. @default false */
  useWeighting: z.boolean().optional(),
};

/** Fields of odds ratio preference optimisation. */
export const orpoFields = {
  ...pairFields,
  /** Weight of the odds ratio beside the cross-entropy; λ of the paper. TRL `beta`. @default 0.1 */
  beta: positive.optional(),
};

/** Losses of CPO, as TRL's `loss_type`. */
export const cpoLosses = ["sigmoid", "hinge", "ipo", "simpo"] as const;

/** Fields of contrastive preference optimisation. */
export const cpoFields = {
  ...pairFields,
  /** Scale of the rewards; IPO's τ. TRL `beta`. @default 0.1 */
  beta: positive.optional(),
  /** Loss of the rewards' difference. "ipo" and "simpo" take means per token. TRL `loss_type`. @default "sigmoid" */
  lossType: z.enum(cpoLosses).optional(),
  /** Assumed share of wrong labels; at most ½; only for sigmoid and simpo. TRL `label_smoothing`. @default 0 */
  labelSmoothing: z.number().min(0).max(0.5).optional(),
  /** Weight of the cross-entropy on the chosen answers. TRL `cpo_alpha`. @default 1 */
  cpoAlpha: z.number().nonnegative().optional(),
  /** Margin that simpo wants between the rewards. TRL `simpo_gamma`. @default 0.5 */
  simpoGamma: z.number().optional(),
  /** Shape of the reward, (1 − p^−α)/α (AlphaPO); 0 is the log-prob. TRL `alpha`. @default 0 */
  alpha: z.number().optional(),
};

/** Fields of simple preference optimisation: CPO's simpo without the cross-entropy. */
export const simpoFields = {
  ...pairFields,
  /** Scale of the rewards, log-probs per token. The paper takes 2 to 10; TRL's CPO has 0.1, a scale for sums. @default 2 */
  beta: positive.optional(),
  /** Margin that is wanted between the rewards; the paper takes 0.3 to 1.6. TRL `simpo_gamma`. @default 0.5 */
  simpoGamma: z.number().optional(),
  /** Assumed share of wrong labels; at most ½. TRL `label_smoothing`. @default 0 */
  labelSmoothing: z.number().min(0).max(0.5).optional(),
  /** Shape of the reward, (1 − p^−α)/α (AlphaPO); 0 is the log-prob. TRL `alpha`. @default 0 */
  alpha: z.number().optional(),
};

/** Losses of KTO, as TRL's `loss_type`. */
export const ktoLosses = ["kto", "apo_zero_unpaired"] as const;

/** Fields of Kahneman-Tversky optimisation. */
export const ktoFields = {
  ...sharedFields,
  ...referenceFields,
  /** Strength of the pull towards the reference. TRL `beta`. @default 0.1 */
  beta: positive.optional(),
  /** "kto" compares with an estimate of the KL divergence, "apo_zero_unpaired" with 0. TRL `loss_type`. @default "kto" */
  lossType: z.enum(ktoLosses).optional(),
  /** Weight of wanted answers. TRL `desirable_weight`. @default 1 */
  desirableWeight: positive.optional(),
  /** Weight of unwanted answers. TRL `undesirable_weight`. @default 1 */
  undesirableWeight: positive.optional(),
};
