import type { DatasetInput } from "../data";
import { EventStream, type TrainerEvent } from "./events";
import { fitPolicyPairs, type PolicyPairsInput } from "./policy-pairs";
import { type SimpoConfig, type SimpoConfigInput, simpoConfig } from "./preference-config";
import type { TrainResult } from "./trainer";
import { configOf } from "./trainer-options";

/** What a {@link SimpoTrainer} is made of: a policy, pairs, and any option of {@link SimpoConfigInput}. */
export interface SimpoTrainerOptions extends SimpoConfigInput, PolicyPairsInput {}

/**
 * Simple preference optimisation (SimPO; Meng et al. 2024): log-probs per token as rewards, a target margin `simpoGamma`,
 * no reference. With `alpha` it is AlphaPO.
 *
 * @example
 * const { model } = await new SimpoTrainer({ policy, beta: 2, simpoGamma: 0.5 }).fit("pairs.jsonl");
 */
export class SimpoTrainer implements AsyncIterable<TrainerEvent> {
  readonly config: SimpoConfig;
  readonly #input: PolicyPairsInput;
  readonly #events = new EventStream();

  /** @throws ConfigError with all problems of the configuration at once, before any work */
  constructor(options: SimpoTrainerOptions) {
    this.config = configOf(simpoConfig, options, ["policy"]);
    this.#input = options;
  }

  /** The events of the run; iterating does not start it. */
  [Symbol.asyncIterator](): AsyncIterator<TrainerEvent> {
    return this.#events[Symbol.asyncIterator]();
  }

  /** Runs the whole training. */
  fit(pairs: DatasetInput | undefined = this.#input.dataset): Promise<TrainResult> {
    const input = pairs === undefined ? this.#input : { ...this.#input, dataset: pairs };
    return fitPolicyPairs({ method: "simpo", config: this.config }, input, this.#events);
  }
}
