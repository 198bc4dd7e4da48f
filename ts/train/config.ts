import { z } from "zod";
import type { ConfigProblem } from "../errors";
import type { DeviceName } from "../native/devices";
import {
  type DpoLoss,
  dpoFields,
  type loraFields,
  type packingFields,
  type pairFields,
  type referenceFields,
  sftFields,
  type sharedFields,
} from "./config-fields";
import { configError, problemsOf } from "./config-problems";
import { type Surroundings, surroundingProblems } from "./config-surroundings";

export { type DpoLoss, dpoLosses } from "./config-fields";

/** What a user writes for an object of fields. */
export type InputOf<Fields extends z.ZodRawShape> = z.input<z.ZodObject<Fields>>;

type SharedInput = InputOf<typeof sharedFields>;
/** What trainers read that can pack. */
type PackingInput = InputOf<typeof packingFields> & { packing?: boolean | "wrapped" | undefined };
type PairInput = InputOf<typeof pairFields>;
type ReferenceInput = InputOf<typeof referenceFields>;

/** Options of supervised fine-tuning as a user writes them; every key may be left out. */
export type SftConfigInput = z.input<z.ZodObject<typeof sftFields>>;

/** Options of direct preference optimisation as a user writes them; every key may be left out. */
export type DpoConfigInput = z.input<z.ZodObject<typeof dpoFields>>;

/** Keys that stay open when resolved: at most one of each pair is set, the other is null. */
interface Alternatives {
  warmupSteps: number | null;
  warmupRatio: number | null;
  epochs: number | null;
  maxSteps: number | null;
}

/** Options of a low-rank adapter as a user writes them. */
export type LoraOptions = z.input<z.ZodObject<typeof loraFields>>;

/** Complete options of a low-rank adapter. */
export type LoraSettings = { readonly [Key in keyof LoraOptions]-?: Exclude<LoraOptions[Key], undefined> };

/** What an input is when every key is filled in. */
export type Resolved<Input> = {
  readonly [Key in keyof Omit<Input, keyof Alternatives | "lora">]-?: Exclude<Input[Key], undefined>;
} & Readonly<Alternatives> & { readonly lora: LoraSettings | null };

/** A complete configuration of supervised fine-tuning. */
export type SftConfig = Resolved<SftConfigInput>;

/** A complete configuration of direct preference optimisation; `lossType` and `lossWeights` are lists of one length. */
export type DpoConfig = Omit<Resolved<DpoConfigInput>, "lossType" | "lossWeights"> & {
  readonly lossType: readonly DpoLoss[];
  readonly lossWeights: readonly number[];
};

/** A schema with the rules that span several keys and the defaults. */
export interface ConfigSchema<Input extends object, Output> {
  /** Type, range and presence of single keys; unknown keys are refused. */
  readonly schema: z.ZodObject;
  /** Combinations that cannot be honoured; sees the raw input, whose keys may be of wrong type. */
  combinations(input: Partial<Input>): ConfigProblem[];
  /** Fills in what was left out. */
  complete(input: Input): Output;
}

export const sharedDefaults = {
  lrScheduler: "linear",
  minLr: null,
  minLrRate: null,
  lrDecaySteps: null,
  lrDecayType: null,
  lrWarmupType: null,
  lrPower: null,
  optimizer: "adamw",
  batchSize: 8,
  gradientAccumulation: 1,
  maxLength: 1024,
  weightDecay: 0,
  adamBeta1: 0.9,
  adamBeta2: 0.999,
  adamEpsilon: 1e-8,
  maxGradNorm: 1,
  seed: 42,
  shuffle: true,
  logSteps: 10,
  saveSteps: 500,
  evalSteps: 0,
  sampleSteps: 0,
  logTo: [] as "tensorboard"[],
  outputDir: null,
  recompute: "auto",
  precision: "bfloat16",
  measurePeak: true,
  device: "auto" as DeviceName,
  threads: null,
  template: "model",
  answerEnd: "eos",
  specialsInContent: "text",
  truncation: "keep-answer",
  onBadRow: "error",
  resume: false,
  resumeForce: false,
  keepCheckpoints: 2,
  maxSkippedUpdates: 3,
  skipZScore: null,
  stepTimeoutSeconds: null,
} as const;

/** Fills in what was left out of an adapter's options. */
export function loraSettings(input: LoraOptions): LoraSettings {
  const rank = input.rank ?? 16;
  return { rank, alpha: rank, dropout: 0, targetModules: "all-linear", useRslora: false, ...input };
}

/** What depends on whether an adapter is trained: its options, and by default a learning rate ten times as high. */
export function adapting(input: { lora?: LoraOptions | null; learningRate?: number }, usual: number) {
  const lora = input.lora ? loraSettings(input.lora) : null;
  // Not 10 · 2e-5, which is 2.0000000000000001e-4.
  const learningRate = input.learningRate ?? (lora ? Number((10 * usual).toPrecision(3)) : usual);
  return { learningRate, lora };
}

/** Of every trainer that can pack. */
const packingDefaults = { packing: false, packingWindow: null } as const;

const sftDefaults = { ...sharedDefaults, ...packingDefaults, lossOn: "assistant", neftuneNoiseAlpha: null } as const;

/** Of every trainer on pairs. */
export const pairDefaults = {
  ...sharedDefaults,
  ...packingDefaults,
  packLength: null,
  maxPromptLength: null,
  sharedPrompt: true,
} as const;

/** Of every trainer with a reference. */
export const referenceDefaults = {
  referenceCache: null,
  refBatchSize: null,
  syncRefModel: false,
  refModelMixupAlpha: 0.6,
  refModelSyncSteps: 512,
} as const;

const dpoDefaults = {
  ...pairDefaults,
  ...referenceDefaults,
  beta: 0.1,
  labelSmoothing: 0,
  fDivergence: "reverse_kl",
  fAlpha: 0.5,
  ipoNormalisation: "tokens",
  discopopTau: 0.05,
  ldAlpha: null,
  useWeighting: false,
} as const;

/** Supervised fine-tuning; defaults are TRL's `SFTConfig` where it has the key. */
export const sftConfig: ConfigSchema<SftConfigInput, SftConfig> = {
  schema: z.strictObject(sftFields),
  combinations: (input) => [
    ...sharedCombinations(input),
    ...packingCombinations(input),
    ...sftTruncationCombinations(input),
  ],
  complete: (input) => ({
    ...sftDefaults,
    // Where all tokens are learnt no answer can be kept: what is done is what is written down.
    ...(input.lossOn === "all" ? { truncation: "keep-start" } : {}),
    ...input,
    ...alternatives(input),
    ...resuming(input),
    ...adapting(input, 2e-5),
  }),
};

/** Direct preference optimisation; defaults are TRL's `DPOConfig` where it has the key. */
export const dpoConfig: ConfigSchema<DpoConfigInput, DpoConfig> = {
  schema: z.strictObject(dpoFields),
  combinations: (input) => [
    ...pairCombinations(input),
    ...referenceCombinations(input),
    ...lossCombinations(input),
    ...modifierCombinations(input),
  ],
  complete: (input) => {
    const lossType = lossList(input.lossType);
    const lossWeights = input.lossWeights ?? lossType.map(() => 1);
    const own = { lossType, lossWeights, precomputeRefLogps: precomputing(input) };
    return { ...dpoDefaults, ...input, ...alternatives(input), ...resuming(input), ...adapting(input, 1e-6), ...own };
  },
};

/**
 * Checks a configuration and fills in the defaults. Keys that are undefined count as left out.
 *
 * @param beside what the options are to be used with, where that is known
 * @returns the complete configuration, frozen
 * @throws ConfigError `ZA_CONFIG_INVALID` with all problems at once
 */
export function resolveConfig<Input extends object, Output>(
  config: ConfigSchema<Input, Output>,
  input: Input,
  beside?: Surroundings,
): Output {
  const given = Object.fromEntries(Object.entries(input).filter(([, value]) => value !== undefined));
  const parsed = config.schema.safeParse(given);
  const problems = [
    ...(parsed.error?.issues.flatMap((issue) => problemsOf(issue, config.schema)) ?? []),
    ...config.combinations(given as Partial<Input>),
    ...(beside ? surroundingProblems(given, beside) : []),
  ];
  if (problems.length > 0) throw configError(problems);
  return deepFreeze(config.complete(parsed.data as Input));
}

/** Of two keys that exclude each other, the one that is not given is null. */
export function alternatives(input: Partial<Alternatives> | SftConfigInput): Alternatives {
  const ratio = input.warmupRatio ?? null;
  const maxSteps = input.maxSteps ?? null;
  return {
    warmupRatio: ratio,
    warmupSteps: ratio === null ? (input.warmupSteps ?? 0) : null,
    maxSteps,
    epochs: maxSteps === null ? (input.epochs ?? 3) : null,
  };
}

/** Forcing a resume is resuming. */
export function resuming({ resume = false, resumeForce = false }: { resume?: boolean; resumeForce?: boolean }): {
  resume: boolean;
} {
  return { resume: resume || resumeForce };
}

/** A reference that moves cannot be computed beforehand. */
export function precomputing(input: ReferenceInput): boolean {
  return input.precomputeRefLogps ?? input.syncRefModel !== true;
}

/** Rules of every trainer. */
export function sharedCombinations(input: Partial<SharedInput>): ConfigProblem[] {
  const problems: ConfigProblem[] = scheduleCombinations(input);
  const warm = input.warmupSteps !== undefined || input.warmupRatio !== undefined;
  if (input.warmupSteps !== undefined && input.warmupRatio !== undefined) {
    problems.push({
      field: "warmupRatio",
      problem: "warmupSteps is given as well",
      remedy: "Give one of the two.",
    });
  }
  if (warm && input.lrScheduler === "constant") {
    problems.push({
      field: "lrScheduler",
      problem: "a constant learning rate has no warm-up",
      remedy: 'Choose "constant_with_warmup", or remove the warm-up.',
    });
  }
  if (input.epochs !== undefined && input.maxSteps !== undefined) {
    problems.push({ field: "maxSteps", problem: "epochs is given as well", remedy: "Give one of the two." });
  }
  if (Array.isArray(input.logTo) && input.logTo.length > 0 && input.outputDir == null) {
    const remedy = "Give outputDir, or the logger tensorBoard(folder).";
    problems.push({ field: "logTo", problem: "there is no run folder to write to", remedy });
  }
  for (const key of ["saveSteps", "keepCheckpoints"] as const) {
    if (!input[key] || input[key] === sharedDefaults[key] || input.outputDir != null) continue;
    problems.push({
      field: key,
      problem: "there is no run folder to save into",
      remedy: "Give outputDir, or remove it.",
    });
  }
  const resumes = input.resumeForce === true ? "resumeForce" : input.resume === true ? "resume" : undefined;
  if (resumes && (input.outputDir === undefined || input.outputDir === null)) {
    problems.push({
      field: resumes,
      problem: "there is no folder to resume from",
      remedy: "Give outputDir, the folder of the run.",
    });
  }
  return problems;
}

function packingCombinations({ packing, packingWindow }: Partial<PackingInput>): ConfigProblem[] {
  if (packingWindow == null || packing === true) return [];
  const problem = packing === "wrapped" ? "a wrapped stream has no window" : "packing is off";
  return [{ field: "packingWindow", problem, remedy: "Set packing to true, or remove it." }];
}

/** How documents are cut is asked for nothing where they are cut otherwise. */
function sftTruncationCombinations({ truncation, packing, lossOn }: Partial<SftConfigInput>): ConfigProblem[] {
  const refused = (problem: string, remedy: string) => [{ field: "truncation", problem, remedy }];
  if (truncation === undefined) return [];
  if (packing === "wrapped") {
    return refused("a wrapped stream is cut every maxLength tokens", "Remove it, or set packing to true or false.");
  }
  if (truncation === "keep-answer" && lossOn === "all") {
    return refused(
      "with lossOn all every token is learnt, no answer is told apart",
      'Take "keep-start", or remove it.',
    );
  }
  return [];
}

/** What only some courses of the learning rate read (crates/align/schedule). */
const scheduleReads: Partial<Record<string, readonly (keyof SharedInput)[]>> = {
  cosine_with_min_lr: ["minLr", "minLrRate"],
  warmup_stable_decay: ["minLrRate", "lrDecaySteps", "lrDecayType", "lrWarmupType"],
  polynomial: ["minLr", "lrPower"],
};

function scheduleCombinations(input: Partial<SharedInput>): ConfigProblem[] {
  const problems: ConfigProblem[] = [];
  const add = (field: string, problem: string, remedy: string) => problems.push({ field, problem, remedy });
  const scheduler = input.lrScheduler ?? sharedDefaults.lrScheduler;
  const read = scheduleReads[scheduler] ?? [];
  for (const key of new Set(Object.values(scheduleReads).flatMap((keys) => keys ?? []))) {
    if (input[key] != null && !read.includes(key)) add(key, `the schedule ${scheduler} does not read it`, "Remove it.");
  }
  if (scheduler === "cosine_with_min_lr" && (input.minLr == null) === (input.minLrRate == null)) {
    const problem = input.minLr == null ? "cosine_with_min_lr needs minLr or minLrRate" : "minLrRate is given as well";
    add("minLr", problem, "Give one of the two.");
  }
  if (scheduler === "warmup_stable_decay" && input.lrDecaySteps == null) {
    add("lrDecaySteps", "warmup_stable_decay needs it", "Give the steps of the decay at the end.");
  }
  return problems;
}

/** Rules of every trainer on pairs. */
export function pairCombinations(input: Partial<PairInput>): ConfigProblem[] {
  const problems = [...sharedCombinations(input), ...packingCombinations(input), ...packLengthCombinations(input)];
  if (input.maxPromptLength != null && input.truncation === "keep-start") {
    const problem = 'truncation "keep-start" cuts answers, not prompts';
    problems.push({ field: "maxPromptLength", problem, remedy: 'Set truncation to "keep-answer", or remove it.' });
  }
  if (input.maxPromptLength != null && input.maxPromptLength >= (input.maxLength ?? sharedDefaults.maxLength)) {
    const problem = "it leaves no room for an answer in maxLength";
    problems.push({ field: "maxPromptLength", problem, remedy: "Give a value below maxLength." });
  }
  return problems;
}

/** Rules of every trainer with a reference. */
export function referenceCombinations(input: Partial<ReferenceInput & SharedInput>): ConfigProblem[] {
  const problems: ConfigProblem[] = [];
  const add = (field: string, problem: string, remedy: string) => problems.push({ field, problem, remedy });
  for (const key of ["refBatchSize", "referenceCache"] as const) {
    if (input[key] == null || input.precomputeRefLogps !== false) continue;
    add(key, "it belongs to precomputeRefLogps, which is off", "Remove one of the two.");
  }
  if (input.syncRefModel === true) {
    if (input.precomputeRefLogps === true) {
      add("syncRefModel", "a reference that follows the policy cannot be precomputed", "Turn one of the two off.");
    }
    if (input.refBatchSize != null && input.precomputeRefLogps === undefined) {
      add("refBatchSize", "it belongs to precomputeRefLogps, which syncRefModel turns off", "Remove one of the two.");
    }
    if (input.referenceCache != null && input.precomputeRefLogps === undefined) {
      add("referenceCache", "it belongs to precomputeRefLogps, which syncRefModel turns off", "Remove one of the two.");
    }
    if (input.lora != null) {
      add(
        "syncRefModel",
        "under an adapter the reference is the frozen base, which cannot follow",
        "Remove one of the two.",
      );
    }
  } else {
    for (const key of ["refModelMixupAlpha", "refModelSyncSteps"] as const) {
      if (input[key] !== undefined) add(key, "it belongs to syncRefModel, which is off", "Turn it on, or remove this.");
    }
  }
  return problems;
}

function packLengthCombinations(input: Partial<PairInput>): ConfigProblem[] {
  const { packLength, maxLength = sharedDefaults.maxLength, packing } = input;
  if (packLength == null) return [];
  const refused = (problem: string, remedy: string) => [{ field: "packLength", problem, remedy }];
  if (packing !== true) return refused("packing is off", "Set packing to true, or remove it.");
  if (packLength >= 2 * maxLength) return [];
  return refused(`a pair of twice maxLength ${maxLength} does not fit`, `Give at least ${2 * maxLength}.`);
}

/** Losses that read labelSmoothing (crates/align/losses/table.rs); `sft` stands beside them without reading it. */
const smoothedLosses: readonly DpoLoss[] = ["sigmoid", "exo_pair", "robust", "aot", "aot_unpaired", "sigmoid_norm"];

/** Losses that look at the difference of scores, so that a divergence other than reverse KL fits. */
const divergenceLosses: readonly DpoLoss[] = [
  "sigmoid",
  "hinge",
  "ipo",
  "exo_pair",
  "robust",
  "discopop",
  "sft",
  "sigmoid_norm",
];

function lossList(lossType: DpoConfigInput["lossType"]): DpoLoss[] {
  return lossType === undefined ? ["sigmoid"] : typeof lossType === "string" ? [lossType] : [...lossType];
}

function lossCombinations(input: Partial<DpoConfigInput>): ConfigProblem[] {
  const problems: ConfigProblem[] = [];
  const losses = lossList(input.lossType);
  const smoothing = input.labelSmoothing ?? 0;
  const add = (field: string, problem: string, remedy: string) => problems.push({ field, problem, remedy });
  if (Array.isArray(input.lossWeights)) {
    if (input.lossWeights.length !== losses.length) {
      const problem = `${input.lossWeights.length} weights for ${losses.length} losses`;
      add("lossWeights", problem, "Give one weight for each loss of lossType.");
    } else if (input.lossWeights.every((weight) => weight === 0)) {
      add("lossWeights", "all weights are 0", "Give one loss a weight above 0.");
    }
  }
  for (const loss of losses) {
    if (smoothing > 0 && loss !== "sft" && !smoothedLosses.includes(loss)) {
      add("labelSmoothing", `the loss ${loss} has no label smoothing`, "Set it to 0, or leave this loss out.");
    }
    if (loss === "exo_pair" && smoothing === 0) {
      add("labelSmoothing", "the loss exo_pair is infinite at 0", "Give a small value; the EXO paper uses 1e-3.");
    }
    if (loss === "robust" && smoothing === 0.5) {
      add("labelSmoothing", "the loss robust divides by 1 − 2·labelSmoothing", "Give a value below 0.5.");
    }
    if (input.fDivergence !== undefined && input.fDivergence !== "reverse_kl" && !divergenceLosses.includes(loss)) {
      const remedy = `Choose "reverse_kl", or losses of ${divergenceLosses.join(", ")}.`;
      add("fDivergence", `${input.fDivergence} does not fit the loss ${loss}`, remedy);
    }
  }
  if (smoothing > 0 && losses.every((loss) => loss === "sft")) {
    add("labelSmoothing", "the loss sft does not read it", "Set it to 0.");
  }
  const diverges = input.fDivergence !== undefined && input.fDivergence !== "reverse_kl";
  if (diverges && losses.every((loss) => loss === "sft")) {
    add("fDivergence", "the loss sft does not read it", 'Set it to "reverse_kl".');
  }
  if (input.fAlpha !== undefined && input.fDivergence !== "alpha_divergence") {
    add("fAlpha", "only the alpha divergence reads it", 'Set fDivergence to "alpha_divergence", or remove it.');
  }
  if (input.ipoNormalisation !== undefined && !losses.includes("ipo")) {
    add("ipoNormalisation", "only the loss ipo reads it", 'Set lossType to "ipo", or remove it.');
  }
  if (input.discopopTau !== undefined && !losses.includes("discopop")) {
    add("discopopTau", "only the loss discopop reads it", 'Set lossType to "discopop", or remove it.');
  }
  return problems;
}

/** LD-DPO and WPO change a pair's sums and weight: what is no mean over pairs cannot honour them. */
function modifierCombinations(input: Partial<DpoConfigInput>): ConfigProblem[] {
  const problems: ConfigProblem[] = [];
  for (const loss of lossList(input.lossType)) {
    if (input.ldAlpha != null && loss === "sft") {
      const problem = "the loss sft learns every token alike";
      problems.push({ field: "ldAlpha", problem, remedy: "Remove it, or leave this loss out." });
    }
    if (input.useWeighting === true && (loss === "sft" || loss.startsWith("aot"))) {
      const problem = `the loss ${loss} is not a mean over pairs that stand alone`;
      problems.push({ field: "useWeighting", problem, remedy: "Set it to false, or leave this loss out." });
    }
  }
  return problems;
}

function deepFreeze<T>(value: T): T {
  if (typeof value === "object" && value !== null) {
    for (const part of Object.values(value)) deepFreeze(part);
    Object.freeze(value);
  }
  return value;
}
