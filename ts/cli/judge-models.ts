import type { ChatModel } from "../client";
import { usageProblem } from "./config-options";

/** Models by name that stand ready in this process. */
export const readyModels = new Map<string, ChatModel>();

/** The model that a flag names: it answers, or judges. */
export async function judgeModel(flag: string, name: string): Promise<ChatModel> {
  const ready = readyModels.get(name);
  if (ready) return ready;
  throw usageProblem(flag, `there is no model "${name}"`, "Give the name of a model, or files that hold its answers.");
}
