/** Raw UltraFeedback: a prompt with several answers, each rated from 1 to 5 under four aspects. */
import type { Place } from "../errors";
import { checkOrder, type Message, messagesAt, rowError, stringAt, typeName } from "./messages";
import type { PairRow } from "./preference";

/** UltraFeedback's aspects, as its files spell them. */
const aspects = ["instruction_following", "honesty", "truthfulness", "helpfulness"];

interface Rated {
  response: string;
  /** Mean of the ratings that are numbers, 1 to 5. */
  score: number;
}

/**
 * A pair by the rule that needs no choice: the answer with the highest mean of its aspects' ratings (the paper's score)
 * against that with the lowest; the first of equals. The overall score is not used: it is on another scale, and in the
 * published file some of its tens were ones. Other rules (random rejected, margins, overlap filters) make files:
 * `zephyr-align binarise`.
 *
 * Answers without ratings are left out; a row whose answers are all rated alike is refused.
 */
export function pairFromRatedAnswers(row: Record<string, unknown>, place: Place): PairRow {
  const instruction = stringAt(row.instruction, place, "instruction");
  const history = Array.isArray(row.history) && row.history.length > 0 ? messagesAt(row.history, place, "history") : [];
  const prompt: Message[] = [...history, { role: "user", content: instruction }];
  checkOrder(prompt, place, { field: history.length > 0 ? "history" : "instruction", first: "user", last: "user" });
  if (!Array.isArray(row.completions)) {
    const found = `expected a list of rated answers, found ${typeName(row.completions)}`;
    throw rowError("ZA_DATA_ROW", place, "completions", found, "Give {response, annotations} for each answer.");
  }
  const rated = row.completions.flatMap((each, index) => ratedAnswer(each, place, `completions[${index}]`));
  if (rated.length < 2) {
    const problem = `${rated.length} of ${row.completions.length} answers have ratings and a text, a pair needs two`;
    throw rowError("ZA_DATA_ROW", place, "completions", problem, leaveOut);
  }
  const best = rated.reduce((high, each) => (each.score > high.score ? each : high));
  const worst = rated.reduce((low, each) => (each.score < low.score ? each : low));
  if (best.score === worst.score) {
    const problem = `all ${rated.length} answers are rated alike (${best.score})`;
    throw rowError("ZA_DATA_ROW", place, "completions", problem, leaveOut);
  }
  const answer = (content: string): Message[] => [{ role: "assistant", content }];
  return { kind: "chat", prompt, chosen: answer(best.response), rejected: answer(worst.response) };
}

const leaveOut = 'Remove the row, or pass onBadRow: "skip" to leave such rows out and have them counted.';

function ratedAnswer(value: unknown, place: Place, field: string): Rated[] {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    const problem = `expected an answer {response, annotations}, found ${typeName(value)}`;
    throw rowError("ZA_DATA_ROW", place, field, problem, "Give every answer as an object.");
  }
  const { response, annotations, "fine-grained_score": mean } = value as Record<string, unknown>;
  const text = stringAt(response, place, `${field}.response`);
  const ratings = aspects.flatMap((aspect) => {
    const given = (annotations as Record<string, { Rating?: unknown } | null> | null | undefined)?.[aspect]?.Rating;
    return ratingAt(given, place, `${field}.annotations.${aspect}.Rating`);
  });
  // Files without the ratings themselves may have their mean.
  if (ratings.length === 0) ratings.push(...ratingAt(mean, place, `${field}.fine-grained_score`));
  if (ratings.length === 0 || text.trim() === "") return [];
  return [{ response: text, score: ratings.reduce((sum, each) => sum + each, 0) / ratings.length }];
}

/** A rating from 1 to 5, as a number or as text; none for N/A. */
function ratingAt(value: unknown, place: Place, field: string): number[] {
  if (value === undefined || value === null || value === "N/A" || value === "") return [];
  const number = typeof value === "string" ? Number(value) : value;
  if (typeof number === "number" && number >= 1 && number <= 5) return [number];
  const problem = `${JSON.stringify(value)} is no rating from 1 to 5`;
  throw rowError("ZA_DATA_ROW", place, field, problem, "Repair or remove the row.");
}
