/** Configurations of the preference trainers besides DPO: their rules and defaults. */
import { z } from "zod";
import type { ConfigProblem } from "../errors";
import {
  adapting,
  alternatives,
  type ConfigSchema,
  type InputOf,
  pairCombinations,
  pairDefaults,
  precomputing,
  type Resolved,
  referenceCombinations,
  referenceDefaults,
  resuming,
  sharedCombinations,
  sharedDefaults,
} from "./config";
import { cpoFields, ktoFields, orpoFields, simpoFields } from "./config-fields";

/** Options of ORPO as a user writes them; every key may be left out. */
export type OrpoConfigInput = InputOf<typeof orpoFields>;
/** Options of CPO as a user writes them; every key may be left out. */
export type CpoConfigInput = InputOf<typeof cpoFields>;
/** Options of SimPO as a user writes them; every key may be left out. */
export type SimpoConfigInput = InputOf<typeof simpoFields>;
/** Options of KTO as a user writes them; every key may be left out. */
export type KtoConfigInput = InputOf<typeof ktoFields>;

/** A complete configuration of ORPO. */
export type OrpoConfig = Resolved<OrpoConfigInput>;
/** A complete configuration of CPO. */
export type CpoConfig = Resolved<CpoConfigInput>;
/** A complete configuration of SimPO. */
export type SimpoConfig = Resolved<SimpoConfigInput>;
/** A complete configuration of KTO. */
export type KtoConfig = Resolved<KtoConfigInput>;

/** Odds ratio preference optimisation; defaults are TRL's `ORPOConfig` where it has the key. */
export const orpoConfig: ConfigSchema<OrpoConfigInput, OrpoConfig> = {
  schema: z.strictObject(orpoFields),
  combinations: pairCombinations,
  complete: (input) => ({
    ...pairDefaults,
    beta: 0.1,
    ...input,
    ...alternatives(input),
    ...resuming(input),
    ...adapting(input, 1e-6),
  }),
};

const cpoDefaults = {
  ...pairDefaults,
  beta: 0.1,
  lossType: "sigmoid",
  labelSmoothing: 0,
  cpoAlpha: 1,
  simpoGamma: 0.5,
  alpha: 0,
} as const;

/** Contrastive preference optimisation; defaults are TRL's `CPOConfig` where it has the key. */
export const cpoConfig: ConfigSchema<CpoConfigInput, CpoConfig> = {
  schema: z.strictObject(cpoFields),
  combinations: (input) => [...pairCombinations(input), ...cpoCombinations(input)],
  complete: (input) => ({
    ...cpoDefaults,
    ...input,
    ...alternatives(input),
    ...resuming(input),
    ...adapting(input, 1e-6),
  }),
};

function cpoCombinations(input: Partial<CpoConfigInput>): ConfigProblem[] {
  const problems: ConfigProblem[] = [];
  const loss = input.lossType ?? cpoDefaults.lossType;
  if ((input.labelSmoothing ?? 0) > 0 && loss !== "sigmoid" && loss !== "simpo") {
    const problem = `the loss ${loss} has no label smoothing`;
    problems.push({ field: "labelSmoothing", problem, remedy: "Set it to 0, or take sigmoid or simpo." });
  }
  if (input.simpoGamma !== undefined && loss !== "simpo") {
    const problem = "only the loss simpo reads it";
    problems.push({ field: "simpoGamma", problem, remedy: 'Set lossType to "simpo", or remove it.' });
  }
  return problems;
}

const simpoDefaults = { ...pairDefaults, beta: 2, simpoGamma: 0.5, labelSmoothing: 0, alpha: 0 } as const;

/** Simple preference optimisation: CPO's loss simpo without the cross-entropy. */
export const simpoConfig: ConfigSchema<SimpoConfigInput, SimpoConfig> = {
  schema: z.strictObject(simpoFields),
  combinations: pairCombinations,
  complete: (input) => ({
    ...simpoDefaults,
    ...input,
    ...alternatives(input),
    ...resuming(input),
    ...adapting(input, 1e-6),
  }),
};

const ktoDefaults = {
  ...sharedDefaults,
  ...referenceDefaults,
  beta: 0.1,
  lossType: "kto",
  desirableWeight: 1,
  undesirableWeight: 1,
} as const;

/** Kahneman-Tversky optimisation; defaults are TRL's `KTOConfig` where it has the key. */
export const ktoConfig: ConfigSchema<KtoConfigInput, KtoConfig> = {
  schema: z.strictObject(ktoFields),
  combinations: (input) => [...sharedCombinations(input), ...referenceCombinations(input), ...ktoCombinations(input)],
  complete: (input) => ({
    ...ktoDefaults,
    ...input,
    ...alternatives(input),
    ...resuming(input),
    ...adapting(input, 1e-6),
    precomputeRefLogps: precomputing(input),
  }),
};

function ktoCombinations(input: Partial<KtoConfigInput>): ConfigProblem[] {
  const { batchSize = sharedDefaults.batchSize, gradientAccumulation = 1, lossType = ktoDefaults.lossType } = input;
  if (lossType !== "kto" || batchSize * gradientAccumulation !== 1) return [];
  const problem = "the KL estimate pairs the prompt of one answer with another answer: a step needs at least two";
  return [{ field: "batchSize", problem, remedy: 'Give at least 2, or take lossType "apo_zero_unpaired".' }];
}
