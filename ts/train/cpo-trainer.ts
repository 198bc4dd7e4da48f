import type { DatasetInput } from "../data";
import { EventStream, type TrainerEvent } from "./events";
import { fitPolicyPairs, type PolicyPairsInput } from "./policy-pairs";
import { type CpoConfig, type CpoConfigInput, cpoConfig } from "./preference-config";
import type { TrainResult } from "./trainer";
import { configOf } from "./trainer-options";

/** What a {@link CpoTrainer} is made of: a policy, pairs, and any option of {@link CpoConfigInput}. */
export interface CpoTrainerOptions extends CpoConfigInput, PolicyPairsInput {}

/**
 * Contrastive preference optimisation (CPO; Xu et al. 2024): DPO's margin without a reference, and cross-entropy on the
 * chosen answers (`cpoAlpha`). `lossType` and `alpha` (AlphaPO) as in TRL.
 *
 * @example
 * const { model } = await new CpoTrainer({ policy, beta: 0.1, cpoAlpha: 1 }).fit("pairs.jsonl");
 */
export class CpoTrainer implements AsyncIterable<TrainerEvent> {
  readonly config: CpoConfig;
  readonly #input: PolicyPairsInput;
  readonly #events = new EventStream();

  /** @throws ConfigError with all problems of the configuration at once, before any work */
  constructor(options: CpoTrainerOptions) {
    this.config = configOf(cpoConfig, options, ["policy"]);
    this.#input = options;
  }

  /** The events of the run; iterating does not start it. */
  [Symbol.asyncIterator](): AsyncIterator<TrainerEvent> {
    return this.#events[Symbol.asyncIterator]();
  }

  /** Runs the whole training. */
  fit(pairs: DatasetInput | undefined = this.#input.dataset): Promise<TrainResult> {
    const input = pairs === undefined ? this.#input : { ...this.#input, dataset: pairs };
    return fitPolicyPairs({ method: "cpo", config: this.config }, input, this.#events);
  }
}
