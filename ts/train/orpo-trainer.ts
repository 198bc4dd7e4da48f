import type { DatasetInput } from "../data";
import { EventStream, type TrainerEvent } from "./events";
import { fitPolicyPairs, type PolicyPairsInput } from "./policy-pairs";
import { type OrpoConfig, type OrpoConfigInput, orpoConfig } from "./preference-config";
import type { TrainResult } from "./trainer";
import { configOf } from "./trainer-options";

/** What an {@link OrpoTrainer} is made of: a policy, pairs, and any option of {@link OrpoConfigInput}. */
export interface OrpoTrainerOptions extends OrpoConfigInput, PolicyPairsInput {}

/**
 * Odds ratio preference optimisation (ORPO; Hong et al. 2024): cross-entropy on the chosen sequences, prompts included as
 * in TRL, and the odds ratio of the two answers beside it. No reference, no supervised stage before.
 *
 * @example
 * const { model } = await new OrpoTrainer({ policy, beta: 0.1 }).fit("pairs.jsonl");
 */
export class OrpoTrainer implements AsyncIterable<TrainerEvent> {
  readonly config: OrpoConfig;
  readonly #input: PolicyPairsInput;
  readonly #events = new EventStream();

  /** @throws ConfigError with all problems of the configuration at once, before any work */
  constructor(options: OrpoTrainerOptions) {
    this.config = configOf(orpoConfig, options, ["policy"]);
    this.#input = options;
  }

  /** The events of the run; iterating does not start it. */
  [Symbol.asyncIterator](): AsyncIterator<TrainerEvent> {
    return this.#events[Symbol.asyncIterator]();
  }

  /** Runs the whole training. */
  fit(pairs: DatasetInput | undefined = this.#input.dataset): Promise<TrainResult> {
    const input = pairs === undefined ? this.#input : { ...this.#input, dataset: pairs };
    return fitPolicyPairs({ method: "orpo", config: this.config }, input, this.#events);
  }
}
