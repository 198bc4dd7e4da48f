/** Reading a judge's text: as FastChat does, and strictly. Pure: a stored text can be read again at any time. */

/** A verdict that was read, or why none was. */
export type Verdict<T> = { value: T; problem: null } | { value: null; problem: string };

/** Who wins a game, by the letter that the answers have in the judge's prompt. */
export type Winner = "A" | "B" | "tie";

// Python's \d takes any decimal digit of Unicode, but `literal_eval` then fails on all but ASCII ones.
const doubled = /\[\[(\d+\.?\d*)\]\]/;
const single = /\[(\d+\.?\d*)\]/;

/**
 * FastChat's rating: the first `[[number]]` anywhere, else the first `[number]`, else −1. A number that the judge quotes
 * counts, and so does one outside 1–10.
 */
export function compatRating(judgment: string): number {
  const found = doubled.exec(judgment) ?? single.exec(judgment);
  return found ? Number(found[1]) : -1;
}

/** FastChat's verdict on a pair: `[[A]]` anywhere, else `[[B]]`, else `[[C]]`, else `error`. */
export function compatWinner(judgment: string): Winner | "error" {
  if (judgment.includes("[[A]]")) return "A";
  if (judgment.includes("[[B]]")) return "B";
  return judgment.includes("[[C]]") ? "tie" : "error";
}

/**
 * The rating, read strictly: `[[number]]` with a number from 1 to 10. Where several different numbers stand there, only one
 * that ends the text is the verdict; else the text is ambiguous, and all numbers are named.
 */
export function strictRating(judgment: string): Verdict<number> {
  const read = theVerdict(judgment, /\[\[(\d+(?:\.\d+)?)\]\]/g, (text) => String(Number(text)));
  if (read.value === null) return read;
  const value = Number(read.value);
  return value >= 1 && value <= 10 ? { value, problem: null } : failed(`the rating ${value} is not from 1 to 10`);
}

/** The verdict on a pair, read strictly: `[[A]]`, `[[B]]` or `[[C]]`; of different ones only the one that ends the text. */
export function strictWinner(judgment: string): Verdict<Winner> {
  const read = theVerdict(judgment, /\[\[([ABC])\]\]/g, (letter) => letter);
  if (read.value === null) return read;
  return { value: read.value === "C" ? "tie" : (read.value as Winner), problem: null };
}

/** What a text may end with after its verdict: nothing that could close a quotation. */
const end = /^[\s.*]*$/;

function theVerdict(judgment: string, form: RegExp, normal: (text: string) => string): Verdict<string> {
  const found = [...judgment.matchAll(form)];
  const last = found.at(-1);
  if (!last) return failed("there is no verdict in double brackets");
  const different = [...new Set(found.map((match) => normal(match[1]!)))];
  if (different.length > 1 && !end.test(judgment.slice(last.index + last[0].length))) {
    return failed(`there are several verdicts (${different.join(", ")}), and none of them ends the text`);
  }
  return { value: normal(last[1]!), problem: null };
}

function failed(problem: string): { value: null; problem: string } {
  return { value: null, problem };
}
