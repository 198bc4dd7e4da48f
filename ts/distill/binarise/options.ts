import { z } from "zod";
import type { ConfigProblem } from "../../errors";
import { configError } from "../../train/config-problems";
import { resolved } from "../options";
import type { OverlapFilter } from "./overlap";

/** Plain options of the binariser; every key may be left out. */
export const binariseFields = {
  /**
   * By what answers are compared: the critique's overall score (1–10), or the mean of the aspects' ratings (1–5).
   * @default "mean"
   */
  score: z.enum(["overall", "mean"]),
  /** Which of the other answers is rejected: the lowest, or one at random. @default "random" */
  rejected: z.enum(["lowest", "random"]),
  /** Whether pairs of equal scores are made. @default "drop" */
  ties: z.enum(["drop", "keep"]),
  /** Least difference of the scores. @default 0 */
  minMargin: z.number().min(0).max(9),
  /** @default 42 */
  seed: z.int().nonnegative(),
  /** Share of the prompts for the test splits. @default 0.03 */
  testShare: z.number().min(0).max(1),
  /** Rows of these sources are dropped. @default [] */
  excludeSources: z.array(z.string()),
  /**
   * Raw UltraFeedback before its repair holds overall scores of 10 that were 1, times ten: `"repair"` makes a 10 a 1 where
   * the ratings' mean is at most 2 and drops the score where it is between 2 and 4, as OpenBMB's repair did before it
   * asked again; `"keep"` leaves them. Without effect on `score: "mean"`. @default "repair"
   */
  tens: z.enum(["repair", "keep"]),
};

/** Options with nothing left out. */
export type BinariseSettings = z.output<z.ZodObject<typeof binariseFields>>;

/** Options as a user writes them. */
export type BinariseSettingsInput = { [Key in keyof BinariseSettings]?: BinariseSettings[Key] | undefined } & {
  /** Settings to start from. @default "paper" */
  preset?: BinarisePreset | undefined;
};

const paper: BinariseSettings = {
  score: "mean",
  rejected: "random",
  ties: "drop",
  minMargin: 0,
  seed: 42,
  testShare: 0.03,
  excludeSources: [],
  tens: "repair",
};

/**
 * - `paper`: Zephyr's paper. The best mean rating is chosen, one of the lower ones at random is rejected.
 * - `h4-current`: ultrafeedback_binarized as it is now. The best overall score as it stands in the data, any other answer
 *   at random, ties kept, prompts of TruthfulQA dropped. (Their random numbers are numpy's: the choice is not theirs row by row.)
 * - `argilla-clean`: ultrafeedback-binarized-preferences-cleaned. Mean ratings, a lower one at random, TruthfulQA dropped.
 */
export const binarisePresets = {
  paper,
  "h4-current": { ...paper, score: "overall", ties: "keep", excludeSources: ["truthful_qa"], tens: "keep" },
  "argilla-clean": { ...paper, excludeSources: ["truthful_qa"] },
} as const satisfies Record<string, BinariseSettings>;

/** Name of a preset. */
export type BinarisePreset = keyof typeof binarisePresets;

/** What the binariser is given beside the rows. */
export interface BinariseOptions extends BinariseSettingsInput {
  /** Prompts that overlap with its texts are dropped. */
  overlap?: OverlapFilter | undefined;
}

const schema = z.strictObject(binariseFields).partial();

/** Checks the plain options, on top of the preset's. Throws `ZA_CONFIG_INVALID` with all problems. */
export function binariseSettings({ preset = "paper", ...input }: BinariseSettingsInput): BinariseSettings {
  const problems: ConfigProblem[] = [];
  const base: BinariseSettings | undefined = binarisePresets[preset];
  if (!base) {
    const remedy = `Known are ${Object.keys(binarisePresets).join(", ")}.`;
    throw configError([{ field: "preset", problem: `there is no preset "${preset}"`, remedy }]);
  }
  const given = Object.entries(resolved(schema, input)).filter(([, value]) => value !== undefined);
  const settings: BinariseSettings = { ...base, ...Object.fromEntries(given) };
  if (settings.ties === "keep" && settings.minMargin > 0) {
    const problem = "equal scores have no margin";
    problems.push({ field: "minMargin", problem, remedy: 'Leave it out, or drop ties (ties: "drop").' });
  }
  if (problems.length > 0) throw configError(problems);
  return settings;
}
