/** The frozen model that a policy is compared with, and how it may follow the policy (TR-DPO, arXiv 2404.09656). */
import { ConfigError } from "../errors";
import type { Mistral } from "../model/mistral";
import type { Run, TrainConfig } from "./run";
import type { Reference } from "./trainer";

/** What decides about a reference. */
interface Following {
  readonly precomputeRefLogps: boolean;
  readonly syncRefModel: boolean;
  readonly refModelMixupAlpha: number;
  readonly refModelSyncSteps: number;
}

/**
 * The reference of a run: the model that was given, or the policy, as it is now: a copy, which shares the memory of its
 * original until one of the two moves. Where the log-probs are computed beforehand nothing may hold the start's weights once
 * they are there, so that no second model is in memory: the policy itself is scored then.
 */
export function referenceModel(
  policy: Mistral,
  ref: Mistral | undefined,
  { precomputeRefLogps, syncRefModel }: Following,
): Mistral {
  if (precomputeRefLogps) return ref ?? policy;
  for (const model of syncRefModel ? [policy, ref ?? policy] : []) {
    if (!model.adapter && model.storage === "float32") continue;
    throw new ConfigError("ZA_CONFIG_INVALID", "syncRefModel: a reference cannot follow an adapter or frozen weights", {
      place: { field: "syncRefModel" },
      remedy: "Merge the adapter into float32 weights first, or turn it off.",
    });
  }
  // A copy of what was given too: it may be the policy itself.
  return (ref ?? policy).frozenCopy();
}

/**
 * Moves the reference towards the policy when it is time and it has not been done: a run may have been stopped between a
 * step and this.
 */
export async function followPolicy(run: Run): Promise<void> {
  const { following, doneSteps } = run;
  const { refModelMixupAlpha, refModelSyncSteps } = run.config as TrainConfig & Following;
  if (!following || doneSteps === following.step || doneSteps % refModelSyncSteps !== 0) return;
  await run.session.fetch();
  await following.model.native.follow(run.model.native, refModelMixupAlpha);
  following.step = doneSteps;
}

/** What the policy's own start is. A new adapter changes nothing yet, so that its start is the weights under it. */
export function startOf(policy: Mistral, config: { readonly lora: unknown }): Reference {
  if (config.lora) return "adapter-off";
  return policy.adapter ? "start-adapter" : "start";
}
