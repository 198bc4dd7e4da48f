/**
 * What keeps one bad batch from ruining a run: updates whose loss or gradient is not finite are skipped and counted;
 * with `skipZScore` also those far above the recent ones (OLMo-core's `SkipStepOptimizer`).
 */
import { TrainingError } from "../errors";
import type { SftConfig } from "./config";

/** Values that an outlier is measured against, and how many there must be (OLMo-core: 128 and half of it). */
const windowLength = 128;
const warmUp = windowLength / 2;

/** Saved with a checkpoint: a resumed run judges as the undisturbed one. */
export interface GuardState {
  /** Skipped updates of the whole run. */
  skipped: number;
  /** Skipped updates since the last one that was made. */
  inRow: number;
  /** Losses and gradient norms of the last steps; empty unless skipZScore is set. */
  losses: number[];
  gradNorms: number[];
}

type GuardConfig = Pick<SftConfig, "maxSkippedUpdates" | "skipZScore">;

/** Counts skipped updates and keeps the windows of one run. */
export class Guards {
  readonly #config: GuardConfig;
  state: GuardState = { skipped: 0, inRow: 0, losses: [], gradNorms: [] };

  constructor(config: GuardConfig) {
    this.#config = config;
  }

  /** Whether outliers are looked for. */
  get watchesOutliers(): boolean {
    return this.#config.skipZScore !== null;
  }

  /** Adds a step to the windows. Returns why its update should be skipped, or undefined. */
  judge(loss: number, gradNorm: number): string | undefined {
    const z = this.#config.skipZScore;
    if (z === null || !Number.isFinite(loss) || !Number.isFinite(gradNorm)) return undefined;
    const { losses, gradNorms } = this.state;
    // Judged by the steps before it; then it is one of them, as in OLMo-core.
    const high = tooHigh("loss", loss, losses, z) ?? tooHigh("grad_norm", gradNorm, gradNorms, z);
    for (const [window, value] of [
      [losses, loss],
      [gradNorms, gradNorm],
    ] as const) {
      window.push(value);
      if (window.length > windowLength) window.shift();
    }
    return high;
  }

  /** An update was made. */
  made(): void {
    this.state.inRow = 0;
  }

  /**
   * An update was skipped.
   *
   * @returns the end of the run, `ZA_TRAIN_NOT_FINITE`, when `maxSkippedUpdates` were skipped in a row
   */
  skipped(step: number, reason: string): TrainingError | undefined {
    this.state.skipped++;
    this.state.inRow++;
    if (this.state.inRow < this.#config.maxSkippedUpdates) return undefined;
    const count = this.state.inRow === 1 ? "an update was" : `${this.state.inRow} updates in a row were`;
    return new TrainingError("ZA_TRAIN_NOT_FINITE", `${count} skipped, the last at step ${step}: ${reason}`, {
      remedy: "Lower learningRate or check the rows of these steps; the weights are those of the last update.",
    });
  }
}

function tooHigh(name: string, value: number, window: readonly number[], z: number): string | undefined {
  if (window.length < warmUp) return undefined;
  const mean = window.reduce((sum, each) => sum + each, 0) / window.length;
  const variance = window.reduce((sum, each) => sum + (each - mean) ** 2, 0) / (window.length - 1);
  const limit = mean + z * Math.sqrt(variance);
  return value > limit ? `${name} ${value} is above ${limit} (${z} standard deviations)` : undefined;
}

/** Shortest time after which a step counts as stalled, and how many usual steps it may take. */
const leastSeconds = 60;
const usualSteps = 10;

/** Durations that the usual step is the median of. */
const timedSteps = 64;

/**
 * Times the steps. One that takes far longer than usual (`max(60 s, 10 × median)`) is told; one that takes longer than
 * `stepTimeoutSeconds`, when that is set, ends the run: a machine that hangs is better started again.
 */
export class StepWatch {
  readonly #limit: number | null;
  readonly #tell: (message: string) => void;
  #seconds: number[] = [];

  constructor(limit: number | null, tell: (message: string) => void) {
    this.#limit = limit;
    this.#tell = tell;
  }

  /** Runs a step. @throws TrainingError `ZA_TRAIN_STALLED` */
  async time<T>(step: number, work: () => Promise<T>): Promise<T> {
    const started = performance.now();
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      const seconds = this.#limit ?? Math.max(leastSeconds, usualSteps * median(this.#seconds));
      const stalled = () => {
        const problem = `step ${step} takes longer than ${Math.round(seconds * 1000) / 1000} s`;
        if (this.#limit === null) this.#tell(`${problem}; it may hang`);
        else reject(new TrainingError("ZA_TRAIN_STALLED", problem, { remedy: stalledRemedy }));
      };
      timer = setTimeout(stalled, Math.min(seconds * 1000, 2 ** 31 - 1));
    });
    try {
      return await Promise.race([work(), late]);
    } finally {
      clearTimeout(timer);
      this.#seconds.push((performance.now() - started) / 1000);
      if (this.#seconds.length > timedSteps) this.#seconds.shift();
    }
  }
}

const stalledRemedy = "End the process and resume; raise stepTimeoutSeconds when steps are meant to take that long.";

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? 0;
}
