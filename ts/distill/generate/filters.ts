/**
 * What is wrong with a turn. These are our own rules, with UltraChat 200k's card as their model: its script was never
 * published. docs/distil.md lists them.
 */
import { wordsOf } from "../../data/word-runs";
import { endMark } from "../prompts/conversation";
import { loopIn } from "./loops";

/** Why a conversation or an opening is not taken. */
export const dropReasons = {
  "exact-duplicate": "the opening was there before, word for word",
  "near-duplicate": "the opening is nearly one that was there before",
  overlap: "the opening overlaps with a text to be kept out",
  "ai-disclaimer": "the assistant speaks of itself as an AI without feelings or opinions",
  "role-exchange": "a turn speaks in the other role",
  leak: "a turn repeats our own instruction",
  empty: "a turn has neither letter nor digit",
  short: "the conversation has too few rounds, or no answer of the least length",
  loop: "a turn goes round in circles, or a turn is said twice",
  cut: "an answer was cut at its longest length before the fewest rounds were reached",
  filtered: "the provider held a text back",
} as const;

/** A key of {@link dropReasons}. */
export type DropReason = keyof typeof dropReasons;

const disclaimers: readonly RegExp[] = [
  /\bas an? (?:ai|a\.i\.|artificial intelligence|(?:large |text-based )?language model|chatbot|virtual assistant|machine)\b/i,
  /\bi(?:'m| am) (?:just |only |merely |simply )?(?:an? )?(?:ai|a\.i\.|artificial intelligence|(?:large )?language model|chatbot|machine|computer program)\b/i,
  /\bi (?:do not|don't|cannot|can't|am unable to|am not able to) (?:actually |really )?(?:have|hold|possess|form|feel|experience)(?: any| my own)?(?: personal| human| real)? (?:feelings?|emotions?|opinions?|beliefs?|preferences?|consciousness|experiences?|desires?)\b/i,
  /\bmy (?:training data|knowledge cut-?off|programming)\b/i,
];

/** What assistants say and users do not. */
const assistantTalk: readonly RegExp[] = [
  /\bhow (?:can|may) i (?:help|assist) you\b/i,
  /\bi(?:'m| am) (?:here|happy|glad) to (?:help|assist)\b/i,
  /\b(?:i hope (?:this|that) helps|feel free to (?:ask|reach out)|is there anything else (?:i|you))\b/i,
  /\blet me know if you (?:have|need|would like|want)\b/i,
  /^(?:sure|certainly|of course|absolutely|great question|good question)\b[^?]{0,40}\b(?:here (?:is|are)|here's|i can|i'd be|i would be|let me)\b/i,
  /^\s*(?:assistant|ai|chatbot|answer)\s*:/im,
];

const userLabel = /^\s*(?:user|human|person)\s*:/im;

/** Words of our instruction in a row that nobody writes by chance. */
const leakLength = 8;

/** The problem of a turn, or undefined. */
export function turnProblem(
  role: "user" | "assistant",
  text: string,
  instruction: string,
): Exclude<DropReason, "exact-duplicate" | "near-duplicate"> | undefined {
  if (!/[\p{L}\p{N}]/u.test(text)) return "empty";
  if (text.includes(endMark) || sharesRun(text, instruction)) return "leak";
  if (role === "assistant") {
    if (disclaimers.some((pattern) => pattern.test(text))) return "ai-disclaimer";
    if (userLabel.test(text)) return "role-exchange";
  } else if ([...assistantTalk, ...disclaimers].some((pattern) => pattern.test(text))) return "role-exchange";
  return loopIn(text) === undefined ? undefined : "loop";
}

/** A simulated user's turn without quotation marks around it and without a name before it. */
export function withoutLabel(text: string): string {
  return text.replace(/^\s*(?:\*\*)?(?:user|human|person|me)(?:\*\*)?\s*:(?:\*\*)?\s*/i, "").trim();
}

function sharesRun(text: string, instruction: string): boolean {
  const words = wordsOf(text);
  const told = wordsOf(instruction);
  if (words.length < leakLength || told.length < leakLength) return false;
  const runs = new Set(
    told.slice(0, told.length - leakLength + 1).map((_, at) => told.slice(at, at + leakLength).join(" ")),
  );
  return words.some((_, at) => runs.has(words.slice(at, at + leakLength).join(" ")));
}
