import type { NativeModel } from "../../bindings/node/index";
import { ModelError } from "../errors";

/** Handles whose weights, or whose adapter, a run is changing. Models under several templates share one. */
const trained = new WeakSet<NativeModel>();

/** @throws ModelError `ZA_MODEL_IN_TRAINING` where a run changes the model already: two would both be something else. */
export function refuseInTraining(handle: NativeModel, source: string, wanted: string): void {
  if (!trained.has(handle)) return;
  throw new ModelError("ZA_MODEL_IN_TRAINING", `the model of ${source} is being trained and cannot be ${wanted}`, {
    remedy: "Wait for fit() to end, stop it by its signal, or load the model a second time.",
  });
}

/** Says that a run changes the model from now on. */
export function beginTraining(handle: NativeModel, source: string): void {
  refuseInTraining(handle, source, "trained by another run");
  trained.add(handle);
}

export function endTraining(handle: NativeModel): void {
  trained.delete(handle);
}
