import { z } from "zod";
import { ConfigError, type ConfigProblem } from "../errors";
import { type DpoLoss, dpoFields, dpoLosses, type loraFields, sftFields } from "./config-fields";

export { type DpoLoss, dpoLosses } from "./config-fields";

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

type Resolved<Input> = {
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

const sharedDefaults = {
  lrScheduler: "linear",
  batchSize: 8,
  gradientAccumulation: 1,
  packing: false,
  packingWindow: null,
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
  recompute: "norms-and-swiglu",
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

/** What depends on whether an adapter is trained: its options, and a learning rate ten times as high. */
function adapting(input: { lora?: LoraOptions | null | undefined }, learningRate: number) {
  const lora = input.lora ? loraSettings(input.lora) : null;
  // Not 10 · 2e-5, which is 2.0000000000000001e-4.
  return { learningRate: lora ? Number((10 * learningRate).toPrecision(3)) : learningRate, lora };
}

const sftDefaults = { ...sharedDefaults, lossOn: "assistant" } as const;

const dpoDefaults = {
  ...sharedDefaults,
  packLength: null,
  beta: 0.1,
  labelSmoothing: 0,
  fDivergence: "reverse_kl",
  fAlpha: 0.5,
  ipoNormalisation: "tokens",
  discopopTau: 0.05,
  maxPromptLength: null,
  sharedPrompt: true,
  precomputeRefLogps: true,
  referenceCache: null,
  refBatchSize: null,
} as const;

/** Supervised fine-tuning; defaults are TRL's `SFTConfig` where it has the key. */
export const sftConfig: ConfigSchema<SftConfigInput, SftConfig> = {
  schema: z.strictObject(sftFields),
  combinations: sharedCombinations,
  complete: (input) => {
    const { lora, ...initial } = adapting(input, 2e-5);
    return { ...sftDefaults, ...initial, ...input, ...alternatives(input), ...resuming(input), lora };
  },
};

/** Direct preference optimisation; defaults are TRL's `DPOConfig` where it has the key. */
export const dpoConfig: ConfigSchema<DpoConfigInput, DpoConfig> = {
  schema: z.strictObject(dpoFields),
  combinations: (input) => [...sharedCombinations(input), ...packLengthCombinations(input), ...lossCombinations(input)],
  complete: (input) => {
    const lossType = lossList(input.lossType);
    const lossWeights = input.lossWeights ?? lossType.map(() => 1);
    const { lora, ...initial } = adapting(input, 1e-6);
    return {
      ...dpoDefaults,
      ...initial,
      ...input,
      ...alternatives(input),
      ...resuming(input),
      lora,
      lossType,
      lossWeights,
    };
  },
};

/**
 * Checks a configuration and fills in the defaults. Keys that are undefined count as left out.
 *
 * @returns the complete configuration, frozen
 * @throws ConfigError `ZA_CONFIG_INVALID` with all problems at once
 */
export function resolveConfig<Input extends object, Output>(config: ConfigSchema<Input, Output>, input: Input): Output {
  const given = Object.fromEntries(Object.entries(input).filter(([, value]) => value !== undefined));
  const parsed = config.schema.safeParse(given);
  const problems = [
    ...(parsed.error?.issues.flatMap((issue) => problemsOf(issue, config.schema)) ?? []),
    ...config.combinations(given as Partial<Input>),
  ];
  if (problems.length > 0) throw configError(problems);
  return deepFreeze(config.complete(parsed.data as Input));
}

function configError(problems: ConfigProblem[]): ConfigError {
  const lines = problems.map(({ field, problem, remedy }) => `\n  ${field}: ${problem}. ${remedy}`).join("");
  const count = problems.length === 1 ? "one problem" : `${problems.length} problems`;
  return new ConfigError("ZA_CONFIG_INVALID", `the configuration has ${count}:${lines}`, {
    problems,
    ...(problems.length === 1 ? { place: { field: problems[0]!.field } } : {}),
  });
}

function problemsOf(issue: z.core.$ZodIssue, schema: z.ZodObject): ConfigProblem[] {
  if (issue.code === "unrecognized_keys") {
    return issue.keys.map((field) => {
      const nearest = nearestKey(field, Object.keys(schema.shape));
      return {
        field,
        problem: "there is no such option",
        remedy: nearest ? `Did you mean ${nearest}?` : "Remove it.",
      };
    });
  }
  const field = issue.path
    .map((part, i) => (typeof part === "number" ? `[${part}]` : i > 0 ? `.${String(part)}` : String(part)))
    .join("");
  const key = String(issue.path[0]);
  const text = issue.message.replace(/^Invalid (input|option): /, "");
  // A union fails with one list of issues per member; for the losses the names are what helps.
  if (key === "lossType") {
    return [{ field, problem: "it is not a loss", remedy: `Known losses: ${dpoLosses.join(", ")}.` }];
  }
  return [{ field, problem: lowerFirst(text), remedy: remedyOf(issue) }];
}

function remedyOf(issue: z.core.$ZodIssue): string {
  switch (issue.code) {
    case "invalid_value":
      return `Choose one of ${issue.values.map((value) => JSON.stringify(value)).join(", ")}.`;
    case "too_small":
      return `Give a value ${issue.inclusive === false ? "above" : "of at least"} ${issue.minimum}.`;
    case "too_big":
      return `Give a value ${issue.inclusive === false ? "below" : "of at most"} ${issue.maximum}.`;
    case "invalid_union":
      return issue.errors
        .flat()
        .map((each) => remedyOf(each))
        .join(" Or: ");
    case "invalid_type":
      return `Give ${issue.expected === "int" ? "a whole number" : `a value of type ${issue.expected}`}.`;
    default:
      return "See the documentation of the option.";
  }
}

function lowerFirst(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1);
}

/** The known key that is closest to a mistyped one, at most a third of its letters away; snake_case counts as camelCase. */
export function nearestKey(typed: string, keys: readonly string[]): string | undefined {
  const wanted = typed.replaceAll(/[-_]/g, "").toLowerCase();
  let best: string | undefined;
  let least = Math.floor(Math.max(wanted.length, 3) / 3) + 1;
  for (const key of keys) {
    const distance = editDistance(wanted, key.toLowerCase());
    if (distance < least) {
      least = distance;
      best = key;
    }
  }
  return best;
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[b.length]!;
}

function alternatives(input: Partial<Alternatives> | SftConfigInput): Alternatives {
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
function resuming({ resume = false, resumeForce = false }: Partial<SftConfigInput | DpoConfigInput>): {
  resume: boolean;
} {
  return { resume: resume || resumeForce };
}

function sharedCombinations(input: Partial<SftConfigInput | DpoConfigInput>): ConfigProblem[] {
  const problems: ConfigProblem[] = [];
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
  if (input.packingWindow != null && input.packing !== true) {
    const problem = input.packing === "wrapped" ? "a wrapped stream has no window" : "packing is off";
    problems.push({ field: "packingWindow", problem, remedy: "Set packing to true, or remove it." });
  }
  if (Array.isArray(input.logTo) && input.logTo.length > 0 && input.outputDir == null) {
    const remedy = "Give outputDir, or the logger tensorBoard(folder).";
    problems.push({ field: "logTo", problem: "there is no run folder to write to", remedy });
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

function packLengthCombinations(input: Partial<DpoConfigInput>): ConfigProblem[] {
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
  if (input.refBatchSize != null && input.precomputeRefLogps === false) {
    add("refBatchSize", "it belongs to precomputeRefLogps, which is off", "Remove one of the two.");
  }
  if (input.maxPromptLength != null && input.maxPromptLength >= (input.maxLength ?? dpoDefaults.maxLength)) {
    add("maxPromptLength", "it leaves no room for an answer in maxLength", "Give a value below maxLength.");
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
