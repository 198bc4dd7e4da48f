import { z } from "zod";

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

/** Fields that both trainers have. Every key is optional in the input; `@default` is what resolving fills in. */
export const sharedFields = {
  /** Peak learning rate; with lora the default is ten times as high. TRL `learning_rate`. @default 2e-5 (SFT), 1e-6 (DPO) */
  learningRate: z.number().nonnegative().optional(),
  /** Course of the learning rate after warm-up. TRL `lr_scheduler_type`. @default "linear" */
  lrScheduler: z.enum(["constant", "constant_with_warmup", "linear", "cosine"]).optional(),
  /** Optimiser steps of linear warm-up; not together with warmupRatio. TRL `warmup_steps`. @default 0 */
  warmupSteps: steps.optional(),
  /** Share of all steps that is warm-up, rounded up; not together with warmupSteps. TRL `warmup_ratio`. @default none */
  warmupRatio: z.number().min(0).max(1).optional(),
  /** Passes over the data; may be a fraction; not together with maxSteps. TRL `num_train_epochs`. @default 3 */
  epochs: positive.optional(),
  /** Optimiser steps; not together with epochs. TRL `max_steps`. @default none */
  maxSteps: count.optional(),
  /** Rows (SFT), pairs (DPO) or packs (with packing) in a micro-batch. TRL `per_device_train_batch_size`. @default 8 */
  batchSize: count.optional(),
  /** Micro-batches in an optimiser step. TRL `gradient_accumulation_steps`. @default 1 */
  gradientAccumulation: count.optional(),
  /**
   * Documents looked at together when packing; null looks at all. TRL packs 1000 at a time (the batches of its map).
   * @default null
   */
  packingWindow: count.nullable().optional(),
  /** Longest sequence in tokens; longer ones are cut and counted. TRL `max_length`. @default 1024 */
  maxLength: z.int().min(2).optional(),
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
  /** Steps between two evaluations; 0 evaluates only at the end. TRL `eval_steps`. @default 0 */
  evalSteps: steps.optional(),
  /** Steps between two answers to the prompts of the report, for events and the live page; 0 asks only before and after. @default 0 */
  sampleSteps: steps.optional(),
  /** Where the numbers go besides metrics.jsonl: "tensorboard" writes event files into the run folder. TRL `report_to`. @default none */
  logTo: z.array(z.enum(["tensorboard"])).optional(),
  /** Folder of the run; null writes nothing. TRL `output_dir`. @default null */
  outputDir: z.string().min(1).nullable().optional(),
  /**
   * What the backward computes again instead of keeping: "none" is fastest, "norms-and-swiglu" saves a third of the
   * activations, "layer" keeps only each layer's input (TRL `gradient_checkpointing`). The same bits. @default "norms-and-swiglu"
   */
  recompute: z.enum(["none", "norms-and-swiglu", "layer"]).optional(),
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
   * keeps the first maxLength tokens, as TRL's `keep_start`.
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

/** Fields of supervised fine-tuning. */
export const sftFields = {
  ...sharedFields,
  /** Tokens that are learnt: those of assistant turns, or all. TRL `assistant_only_loss`. @default "assistant" */
  lossOn: z.enum(["assistant", "all"]).optional(),
  /**
   * Put several documents into one sequence of maxLength tokens: best fit, documents whole and isolated. "wrapped" cuts a
   * stream of documents every maxLength tokens instead, with attention across them: only to repeat the alignment handbook.
   * TRL `packing`, strategy bfd (true) or wrapped. @default false
   */
  packing: z.union([z.boolean(), z.literal("wrapped")]).optional(),
};

/** Fields of direct preference optimisation. */
export const dpoFields = {
  ...sharedFields,
  /**
   * Put several pairs into one pack of packLength tokens (best fit, sequences isolated), so that every micro-batch is of
   * about the same size; the loss is divided by the pairs of the step all the same. TRL has none for pairs. @default false
   */
  packing: z.boolean().optional(),
  /** Tokens of a pack of pairs, both sides counted; at least twice maxLength; null takes just that. @default null */
  packLength: count.nullable().optional(),
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
  /** Prompt tokens kept (from the end) when a pair is too long; null keeps as many as fit. TRL < 0.29 `max_prompt_length`. @default null */
  maxPromptLength: count.nullable().optional(),
  /**
   * Compute the prompt of a pair once for both answers instead of once for each: the same loss and gradients, fewer
   * tokens. TRL computes it twice.
   * @default true
   */
  sharedPrompt: z.boolean().optional(),
  /** Compute the reference's log-probs once before training. TRL `precompute_ref_log_probs`. @default true */
  precomputeRefLogps: z.boolean().optional(),
  /** File of those log-probs, shared by runs over the same pairs and reference; null keeps it in outputDir. @default null */
  referenceCache: z.string().min(1).nullable().optional(),
  /** Pairs in a batch of that computation; null takes batchSize. TRL `precompute_ref_batch_size`. @default null */
  refBatchSize: count.nullable().optional(),
};
