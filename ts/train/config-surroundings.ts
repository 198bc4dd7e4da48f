/** Options that need something beside them: held-out rows, prompts to answer, a card. */
import type { ConfigProblem } from "../errors";

/** What stands beside the options; what is not known yet is left out, and nothing is refused for it. */
export interface Surroundings {
  /** Whether there are held-out rows. */
  evaluates: boolean;
  /** Prompts that are answered; left to the default when undefined. */
  samples?: number | undefined;
  /** Where the model is, which is where it is trained unless `device` says otherwise. */
  device?: "cpu" | "cuda" | undefined;
  /** What is wrong with models, rows and the like that were given. */
  problems?: readonly ConfigProblem[];
}

/** Options that need something; their raw values, which may be of wrong type. */
interface Needing {
  evalSteps?: number;
  sampleSteps?: number;
  outputDir?: string | null;
  precision?: string;
  device?: string;
}

/** Options that would be read by nobody. */
export function surroundingProblems(input: Needing, beside: Surroundings): ConfigProblem[] {
  const problems: ConfigProblem[] = [...(beside.problems ?? [])];
  const add = (field: string, problem: string, remedy: string) => problems.push({ field, problem, remedy });
  if ((input.evalSteps ?? 0) > 0 && !beside.evaluates) {
    add("evalSteps", "there are no held-out rows to evaluate", "Give evalDataset, or remove it.");
  }
  if ((input.sampleSteps ?? 0) > 0) {
    if (beside.samples === 0) add("sampleSteps", "samples is 0", "Set samples to 1 or more, or remove it.");
    if (beside.samples === undefined && input.outputDir == null) {
      const problem = "without outputDir no prompt is answered unless samples says how many";
      add("sampleSteps", problem, "Set samples to 1 or more, or remove it.");
    }
  }
  const named = input.device === undefined || input.device === "auto" ? beside.device : input.device;
  if (input.precision === "bfloat16" && named === "cpu") {
    add("precision", "the CPU computes in float32", "Train on a card (device), or remove it.");
  }
  return problems;
}
