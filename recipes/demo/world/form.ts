import { sentences, words } from "./reading";
import type { Format } from "./types";

/** What is wrong with the form of an answer, in words; undefined when the form is as asked. Never throws. */
export function formatSlip(answer: string, format: Format): string | undefined {
  const text = answer.trim();
  const lines = text.split(/\n+/).map((line) => line.trim());
  const each = (pattern: RegExp) => lines.every((line) => pattern.test(line));
  const shouts = /[A-Z]{3}/.test(text) && !/[a-z]/.test(text);
  switch (format.kind) {
    case "sentence":
      if (lines.length > 1) return "it should be plain prose in one line";
      if (/^(?:[-*]|\d+[.)])\s/.test(text) || /^[A-Za-z]+:(?:\s|$)/.test(text))
        return "it should be a plain sentence, not a list or a note";
      return shouts ? "capital letters were not asked for" : undefined;
    case "word":
      if (words(text).length !== 1 || lines.length > 1) return "it should be one word";
      return shouts ? "capital letters were not asked for" : undefined;
    case "list":
      if (lines.length > 1 || /^(?:[-*]|\d+[.)])\s/.test(text)) return "it should be one line with commas";
      return shouts ? "capital letters were not asked for" : undefined;
    case "capitals":
      if (words(text).length !== 1) return "it should be one word";
      return /[a-z]/.test(text) ? "it should be in capital letters" : undefined;
    case "pairs":
      return each(/^[A-Za-z]+: [A-Za-z0-9-]+$/) ? undefined : "each line should read key: value";
    case "numbered":
      return each(/^\d+[.)] [A-Za-z0-9-]+[.,]?$/) && lines.every((line, i) => Number.parseInt(line, 10) === i + 1)
        ? undefined
        : "it should be a numbered list, one word a line";
    case "dashes":
      return each(/^[-*] [A-Za-z0-9-]+[.,]?$/) ? undefined : "it should be a list with dashes, one word a line";
    case "sentences": {
      const count = sentences(text).length;
      if (lines.length > 1) return "it should be plain prose in one line";
      return count === format.count ? undefined : `it should be ${format.count} sentence(s), not ${count}`;
    }
  }
}

/** True when the answer stops before its end: prose without a closing mark, a list that ends in a comma. */
export function isCut(answer: string, format: Format): boolean {
  const text = answer.trim();
  const prose = format.kind === "sentence" || format.kind === "list" || format.kind === "sentences";
  // Lines where prose was asked for are a slip of form already.
  return prose && !text.includes("\n") ? !/[.!?]["')]?$/.test(text) : /[,:;-]$/.test(text);
}

/** The repeated piece of a degenerate answer: a sentence said twice or three words said three times. */
export function repetition(answer: string): string | undefined {
  const said = new Set<string>();
  for (const sentence of sentences(answer)) {
    const key = words(sentence)
      .map((word) => word.text)
      .join(" ");
    if (key !== "" && said.has(key)) return key.slice(0, 60);
    said.add(key);
  }
  const all = words(answer).map((word) => word.text);
  const counts = new Map<string, number>();
  for (let i = 0; i + 3 <= all.length; i++) {
    const piece = all.slice(i, i + 3).join(" ");
    const count = (counts.get(piece) ?? 0) + 1;
    if (count >= 3) return piece;
    counts.set(piece, count);
  }
  return undefined;
}
