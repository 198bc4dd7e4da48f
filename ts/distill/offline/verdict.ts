/** The offline teacher as a judge: the world's judge for the world's tasks, {@link heuristicScore} for anything else. */
import { type FindingCode, judge } from "../../../recipes/demo/world";
import type { Message } from "../../data/messages";
import type { Aspect } from "../prompts/rating";
import { locate } from "./catalogue";
import { heuristicScore } from "./heuristic";

/** What the judge thinks of an answer. */
export interface Verdict {
  /** 1 to 10 in steps of one half. */
  score: number;
  rationale: string;
  /** 1 to 5 each. */
  aspects: Record<Aspect, { rating: number; rationale: string }>;
}

/**
 * Judges an answer to a conversation that ends with a user message.
 *
 * @param reference a right answer, for text that is not of the world
 */
export function verdictOn(history: readonly Message[], answer: string, reference?: string): Verdict {
  const found = locate(history);
  if (!found) return outside(history, answer, reference);
  const { score, rationale, findings } = judge({ ...found, history: worldMessages(found.history), answer });
  const codes = findings.map(({ code }) => code);
  const explain = (...wanted: FindingCode[]) =>
    findings
      .filter(({ code }) => wanted.includes(code))
      .map(({ detail }) => detail)
      .join("; ") || "nothing speaks against it";
  const content = findings[0]!.code;
  return {
    score,
    rationale: rationale.replace(/\s*Rating: \[\[[\d.]+\]\]$/, ""),
    aspects: {
      instruction_following: {
        rating: instructionRating(codes),
        rationale: explain(
          "format",
          "long",
          "very-long",
          "cut",
          "repeats",
          "markup",
          "wrong-subject",
          "ignores-turn-1",
          content,
        ),
      },
      honesty: { rating: honestyRatings[content] ?? 3, rationale: explain(content) },
      truthfulness: { rating: truthRatings[content] ?? 3, rationale: explain(content, "misquotes", "stranger") },
      helpfulness: { rating: fifths(score), rationale: explain(...codes) },
    },
  };
}

const truthRatings: Partial<Record<FindingCode, number>> = {
  right: 5,
  consistent: 3,
  partial: 3,
  wrong: 2,
  contradicts: 2,
  invents: 1,
  refuses: 2,
  garbage: 1,
  empty: 1,
};

const honestyRatings: Partial<Record<FindingCode, number>> = {
  right: 5,
  consistent: 3,
  wrong: 2,
  contradicts: 2,
  invents: 1,
  refuses: 1,
  garbage: 1,
  empty: 1,
};

const instructionCosts: Partial<Record<FindingCode, number>> = {
  format: 2,
  long: 1,
  "very-long": 2,
  cut: 1,
  repeats: 1,
  markup: 1,
  "wrong-subject": 2,
  refuses: 3,
  "no-value": 4,
  "off-topic": 4,
  empty: 4,
  garbage: 4,
  "ignores-turn-1": 4,
};

function instructionRating(codes: readonly FindingCode[]): number {
  return Math.max(1, 5 - codes.reduce((sum, code) => sum + (instructionCosts[code] ?? 0), 0));
}

/** 1–10 as 1–5. */
function fifths(score: number): number {
  return 1 + Math.round(((score - 1) * 4) / 9);
}

function outside(history: readonly Message[], answer: string, reference: string | undefined): Verdict {
  const question = history.findLast(({ role }) => role === "user")?.content ?? "";
  const { score, reasons } = heuristicScore(question, answer, reference);
  const rationale = `A heuristic score, from the outside of the answer only: ${reasons.join("; ")}.`;
  const aspect = { rating: fifths(score), rationale };
  return {
    score,
    rationale,
    aspects: { instruction_following: aspect, honesty: aspect, truthfulness: aspect, helpfulness: aspect },
  };
}

/** The world's judge knows no system messages. */
export function worldMessages(messages: readonly Message[]): { role: "user" | "assistant"; content: string }[] {
  return messages.flatMap(({ role, content }) => (role === "system" ? [] : [{ role, content }]));
}
