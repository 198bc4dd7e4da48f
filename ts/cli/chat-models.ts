import type { ChatModel } from "../client";
import { isOfflineName, offlineModel } from "../distill/offline";
import { usageProblem } from "./config-options";

/** The models that a flag names. */
export function chatModels(flag: string, names: readonly string[]): ChatModel[] {
  return names.map((name) => {
    if (isOfflineName(name)) return offlineModel(name);
    throw usageProblem(
      flag,
      `there is no model "${name}"`,
      "Give offline, or offline:<flaw> (careless, wordy, sloppy, poor).",
    );
  });
}
