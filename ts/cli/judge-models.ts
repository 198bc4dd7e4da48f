import type { ChatModel } from "../client";
import { chatModels } from "./chat-models";

/** Models by name that stand ready in this process; they win over what a flag would open. */
export const readyModels = new Map<string, ChatModel>();

/** The model that a flag names: it answers, or judges. */
export async function judgeModel(flag: string, name: string): Promise<ChatModel> {
  const ready = readyModels.get(name);
  return ready ?? chatModels(flag, [name])[0]!;
}
