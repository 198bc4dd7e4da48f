import type { Tokenizer } from "./tokenizer";

/** Tokens that together make whole characters: several when a character's bytes lie in more than one token. */
export interface TokenPiece {
  /** Positions [start, end). */
  start: number;
  end: number;
  text: string;
}

const replacement = "\uFFFD";

/** A character has at most four bytes. */
const longestCharacter = 4;

/**
 * The text of each token. Decoders treat the first token of a text specially (a leading space), so each is decoded
 * behind the one before it and that one's text taken off.
 */
export function tokenPieces(tokenizer: Tokenizer, ids: Uint32Array): TokenPiece[] {
  const pieces: TokenPiece[] = [];
  let start = 0;
  while (start < ids.length) {
    let end = start + 1;
    let text = textBehind(tokenizer, ids, start, end);
    while (text.endsWith(replacement) && end < ids.length && end - start < longestCharacter) {
      const longer = textBehind(tokenizer, ids, start, end + 1);
      end++;
      text = longer;
    }
    pieces.push({ start, end, text });
    start = end;
  }
  return pieces;
}

function textBehind(tokenizer: Tokenizer, ids: Uint32Array, start: number, end: number): string {
  const before = start === 0 ? undefined : (ids[start - 1] as number);
  return textAfter(tokenizer, before, ids.subarray(start, end));
}

/** The text that tokens add behind another one; without one, their text at the beginning. */
export function textAfter(
  tokenizer: Tokenizer,
  before: number | undefined,
  ids: Uint32Array | readonly number[],
  options: { skipSpecialTokens?: boolean } = {},
): string {
  if (before === undefined) return tokenizer.decode(ids, options);
  const alone = tokenizer.decode([before], options);
  const both = tokenizer.decode([before, ...ids], options);
  return both.startsWith(alone) ? both.slice(alone.length) : tokenizer.decode(ids, options);
}
