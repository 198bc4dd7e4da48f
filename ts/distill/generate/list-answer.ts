/** Lists and texts out of a model's answer. */
import type { Parsed } from "../../client";

const item = /^\s*(?:(?:\*\*)?\(?\d{1,4}[.):](?:\*\*)?|[-*•–])\s+(\S.*)$/;

/**
 * The items of a list that a model was asked for: numbered or dashed lines, with lines that go on below, or a JSON array
 * of strings. What stands before the first item is talk. Lines without any mark are items if there are several.
 */
export function parseList(text: string): Parsed<string[]> {
  const json = jsonList(text);
  if (json) return { value: json };
  const items: string[] = [];
  let open = false;
  for (const line of text.split("\n")) {
    const found = item.exec(line);
    if (found) {
      items.push(found[1]!);
      open = true;
    } else if (line.trim() === "") open = false;
    else if (open) items[items.length - 1] += `\n${line.trim()}`;
  }
  const lines = text.split("\n").filter((line) => line.trim() !== "");
  const found = (items.length > 0 ? items : lines.length > 1 ? lines : []).map(bare).filter(hasContent);
  return found.length > 0 ? { value: found } : { problem: "there is no numbered list" };
}

/** Texts with lines of dashes between them. */
export function parseTexts(text: string): Parsed<string[]> {
  const found = text
    .split(/^\s*-{3,}\s*$/m)
    .map((part) => part.trim())
    .filter(hasContent);
  return found.length > 0 ? { value: found } : { problem: "there is no text" };
}

function jsonList(text: string): string[] | undefined {
  const inner = /^\s*(?:```(?:json)?\s*)?(\[[\s\S]*\])\s*(?:```)?\s*$/.exec(text)?.[1];
  if (inner === undefined) return undefined;
  try {
    const value: unknown = JSON.parse(inner);
    const strings = Array.isArray(value) && value.every((each) => typeof each === "string") ? value : [];
    return strings.length > 0 ? strings.map(bare).filter(hasContent) : undefined;
  } catch {
    return undefined;
  }
}

/** Without quotation marks or bold around the whole. */
export function bare(text: string): string {
  let inner = text.trim();
  for (const [open, close] of [
    ["**", "**"],
    ['"', '"'],
    ["“", "”"],
    ["'", "'"],
  ] as const) {
    const whole = inner.length > open.length + close.length && inner.startsWith(open) && inner.endsWith(close);
    const middle = inner.slice(open.length, -close.length);
    // Marks inside belong to the text: "yes" and "no".
    if (whole && !middle.includes(open) && !middle.includes(close)) inner = middle.trim();
  }
  return inner;
}

function hasContent(text: string): boolean {
  return /[\p{L}\p{N}]/u.test(text);
}
