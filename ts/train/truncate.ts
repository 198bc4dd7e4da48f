/**
 * Fitting a row into the longest sequence. Nothing is cut silently: every function says how many tokens went, and a row
 * whose answer cannot stay whole is `undefined`, for the caller to refuse or count.
 */
import type { EncodedChat, EncodedPair, EncodedRow } from "../model/tokenizer";

/** A row that fits, and what it cost. */
export interface Fitted<T> {
  row: T;
  /** Tokens left out. */
  cut: number;
}

function slice(row: EncodedRow, end: number): EncodedRow {
  return { ids: row.ids.slice(0, end), supervised: row.supervised.slice(0, end) };
}

/** Without the tokens at the given sorted positions. */
function without(row: EncodedRow, positions: readonly number[]): EncodedRow {
  const gone = new Set(positions);
  const kept = (_: number, position: number) => !gone.has(position);
  return { ids: row.ids.filter(kept), supervised: row.supervised.filter(kept) };
}

/** Keeps the first `maxLength` tokens; `undefined` when none of them is supervised. TRL's `keep_start`. */
export function keepStart(row: EncodedRow, maxLength: number): Fitted<EncodedRow> | undefined {
  const cut = Math.max(0, row.ids.length - maxLength);
  const kept = cut > 0 ? slice(row, maxLength) : row;
  // The first token of a sequence is never predicted.
  return kept.supervised.indexOf(1, 1) < 0 ? undefined : { row: kept, cut };
}

/**
 * Keeps whole answers: turns that no longer fit are left out from the end; when not even the first answer fits, the
 * contents before it are shortened, oldest tokens first. `undefined` when that answer alone is too long.
 */
export function keepAnswers(chat: EncodedChat, maxLength: number): Fitted<EncodedRow> | undefined {
  const { ids, supervised, owners } = chat;
  if (ids.length <= maxLength) return keepStart(chat, maxLength);
  let lastWhole = 0;
  for (let position = 1; position <= maxLength; position++) {
    if (supervised[position - 1] === 1 && supervised[position] !== 1) lastWhole = position;
  }
  if (lastWhole > 0) return { row: slice(chat, lastWhole), cut: ids.length - lastWhole };

  const start = supervised.indexOf(1);
  if (start < 0) return undefined;
  let end = start;
  while (supervised[end] === 1) end++;
  const contents: number[] = [];
  for (let position = 0; position < start; position++) if (owners[position]! >= 0) contents.push(position);
  const excess = end - maxLength;
  // One token of the question stays: an answer to nothing teaches nothing.
  if (excess >= contents.length) return undefined;
  return { row: without(slice(chat, end), contents.slice(0, excess)), cut: ids.length - end + excess };
}

/** Cuts the prompt from its start so that the completion stays whole; at least one prompt token stays. */
export function keepCompletion(row: EncodedRow, maxLength: number): Fitted<EncodedRow> | undefined {
  const excess = row.ids.length - maxLength;
  if (excess <= 0) return { row, cut: 0 };
  const prompt = row.supervised.indexOf(1);
  if (excess >= prompt) return undefined;
  return { row: { ids: row.ids.slice(excess), supervised: row.supervised.slice(excess) }, cut: excess };
}

function cutPrompt(side: EncodedRow, tokens: number): EncodedRow {
  return tokens === 0 ? side : { ids: side.ids.slice(tokens), supervised: side.supervised.slice(tokens) };
}

/**
 * Cuts the prompt of a pair from its start, equally for both answers, so that both stay whole. With `maxPromptLength`
 * the prompt of a pair that is too long keeps at most that many tokens (TRL < 0.29, `truncation_mode: keep_end`).
 * `undefined` when an answer does not fit beside one prompt token.
 */
export function keepBothAnswers(
  pair: EncodedPair,
  maxLength: number,
  maxPromptLength: number | null,
): Fitted<EncodedPair> | undefined {
  const excess = Math.max(pair.chosen.ids.length, pair.rejected.ids.length) - maxLength;
  if (excess <= 0) return { row: pair, cut: 0 };
  const capped = maxPromptLength === null ? 0 : pair.promptLength - maxPromptLength;
  const cut = Math.max(excess, capped);
  if (cut >= pair.promptLength) return undefined;
  const row = {
    promptLength: pair.promptLength - cut,
    chosen: cutPrompt(pair.chosen, cut),
    rejected: cutPrompt(pair.rejected, cut),
  };
  return { row, cut: 2 * cut };
}

/** Keeps the first `maxLength` tokens of both sequences; `undefined` when one has no answer left. TRL's `keep_start`. */
export function keepPairStart(pair: EncodedPair, maxLength: number): Fitted<EncodedPair> | undefined {
  const chosen = keepStart(pair.chosen, maxLength);
  const rejected = keepStart(pair.rejected, maxLength);
  if (!chosen || !rejected) return undefined;
  return {
    row: { promptLength: pair.promptLength, chosen: chosen.row, rejected: rejected.row },
    cut: chosen.cut + rejected.cut,
  };
}
