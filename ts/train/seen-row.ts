/**
 * What training sees of a row: every token of it, whose it is, whether it is learnt, and whether it was cut. Made by the
 * functions that the trainers use, so that what is shown is what is trained.
 */
import type { Message, PairRow, SftRow, UnpairedRow } from "../data";
import { DataError, type Place } from "../errors";
import { type TokenPiece, tokenPieces } from "../model/token-text";
import type { EncodedPair, EncodedRow, EncodeOptions, Tokenizer } from "../model/tokenizer";
import {
  encodePair,
  encodeSft,
  fitPair,
  fitSft,
  fittedOrRefusal,
  type PairExampleOptions,
  pairOfOne,
  type SftExampleOptions,
} from "./examples";
import { type Fitted, keepCompletion, keepStart } from "./truncate";

/** How rows are encoded and fitted, whatever they hold. */
export type SeenOptions = SftExampleOptions & PairExampleOptions;

/** What a token is to the loss. `end` is an end token that is learnt. */
export type TokenClass = "learnt" | "end" | "template" | "content" | "cut";

/** One sequence as training would see it: a conversation, an answer behind its prompt, or one side of a pair. */
export interface SeenSequence {
  /** Of a pair, which answer it is. */
  side?: "chosen" | "rejected";
  /** All tokens, cut ones included. */
  ids: Uint32Array;
  /** 1 where the loss sees the token. */
  supervised: Uint8Array;
  /** 1 where maxLength leaves the token out. */
  cut: Uint8Array;
  /** Index of the message that each token belongs to, −1 for the template; none for plain text. */
  owners?: Int32Array;
}

/** A row as training would see it. */
export interface SeenRow {
  sequences: SeenSequence[];
  /** Tokens that hold the end of the template and the start of a content, or the other way round. */
  straddling: number;
  /** Tokens left out. */
  cut: number;
}

/** The row as a trainer of its kind sees it, or why it cannot be trained on. */
export function seenRow(
  row: SftRow | PairRow | UnpairedRow,
  place: Place,
  tokenizer: Tokenizer,
  options: SeenOptions,
): SeenRow | DataError {
  if ("chosen" in row) return seenPair(row, place, tokenizer, options);
  return "completion" in row && "label" in row
    ? seenAnswer(row, place, tokenizer, options)
    : seenConversation(row, place, tokenizer, options);
}

function seenConversation(row: SftRow, place: Place, tokenizer: Tokenizer, options: SeenOptions): SeenRow | DataError {
  let whole: EncodedRow = empty;
  const fitted = fittedOrRefusal(place, options, () => {
    whole = encodeSft(row, tokenizer, options);
    return fitSft(row.kind, numbered(whole), options);
  });
  if (fitted instanceof DataError) return fitted;
  const { owners, straddling } = chatOf(whole) ?? {};
  return { sequences: [sequence(whole, fitted.row, owners)], straddling: straddling ?? 0, cut: fitted.cut };
}

function seenPair(row: PairRow, place: Place, tokenizer: Tokenizer, options: SeenOptions): SeenRow | DataError {
  let pair: EncodedPair = { promptLength: 0, chosen: empty, rejected: empty };
  const fitted = fittedOrRefusal(place, options, () => {
    pair = encodePair(row, tokenizer, options);
    return fitPair({ ...pair, chosen: numbered(pair.chosen), rejected: numbered(pair.rejected) }, options);
  });
  if (fitted instanceof DataError) return fitted;
  let straddling = 0;
  const sequences = (["chosen", "rejected"] as const).map((side) => {
    const found = row.kind === "chat" ? ownersOf(pair[side], [...row.prompt, ...row[side]], tokenizer, options) : {};
    straddling += found.straddling ?? 0;
    return { side, ...sequence(pair[side], fitted.row[side], found.owners) };
  });
  return { sequences, straddling, cut: fitted.cut };
}

function seenAnswer(row: UnpairedRow, place: Place, tokenizer: Tokenizer, options: SeenOptions): SeenRow | DataError {
  let whole: EncodedRow = empty;
  const fitted = fittedOrRefusal(place, options, () => {
    whole = encodePair(pairOfOne(row), tokenizer, options).chosen;
    const keep = options.truncation === "keep-start" ? keepStart : keepCompletion;
    return keep(numbered(whole), options.maxLength);
  });
  if (fitted instanceof DataError) return fitted;
  const found = row.kind === "chat" ? ownersOf(whole, [...row.prompt, ...row.completion], tokenizer, options) : {};
  return {
    sequences: [sequence(whole, fitted.row, found.owners)],
    straddling: found.straddling ?? 0,
    cut: fitted.cut,
  };
}

const empty: EncodedRow = { ids: new Uint32Array(), supervised: new Uint8Array() };

/** The row with its tokens' positions in the place of their ids: fitted, it says which were kept. */
function numbered<T extends EncodedRow>(row: T): T {
  return { ...row, ids: Uint32Array.from(row.ids, (_, position) => position) };
}

function sequence(whole: EncodedRow, kept: Fitted<EncodedRow>["row"], owners: Int32Array | undefined): SeenSequence {
  const supervised = new Uint8Array(whole.ids.length);
  const cut = new Uint8Array(whole.ids.length).fill(1);
  kept.ids.forEach((position, index) => {
    cut[position] = 0;
    supervised[position] = kept.supervised[index]!;
  });
  return { ids: whole.ids, supervised, cut, ...(owners ? { owners } : {}) };
}

function chatOf(row: EncodedRow): { owners: Int32Array; straddling: number } | undefined {
  return "owners" in row ? (row as EncodedRow & { owners: Int32Array; straddling: number }) : undefined;
}

/** Whose each token of one side is: its tokens are those of the whole conversation, which may go on behind the answer. */
function ownersOf(
  { ids }: EncodedRow,
  messages: readonly Message[],
  tokenizer: Tokenizer,
  options: EncodeOptions,
): { owners?: Int32Array; straddling?: number } {
  const whole = tokenizer.encodeChat(messages, options);
  const same = ids.length <= whole.ids.length && ids.every((id, position) => id === whole.ids[position]);
  return { straddling: whole.straddling, ...(same ? { owners: whole.owners.subarray(0, ids.length) } : {}) };
}

/** A stretch of text that stands for one token, or for a few that share a character. */
export interface ClassedPiece extends TokenPiece {
  class: TokenClass;
}

/** The sequence as text, token by token, each with its class. */
export function classedPieces(sequence: SeenSequence, tokenizer: Tokenizer): ClassedPiece[] {
  const template = (position: number) => (sequence.owners ? sequence.owners[position] === -1 : true);
  const classOf = (position: number): TokenClass => {
    if (sequence.cut[position]) return "cut";
    const end = template(position) && sequence.ids[position] === tokenizer.eosTokenId;
    if (sequence.supervised[position]) return end ? "end" : "learnt";
    return template(position) && sequence.owners ? "template" : "content";
  };
  return tokenPieces(tokenizer, sequence.ids).map((piece) => ({ ...piece, class: classOf(piece.start) }));
}

/** What is not cut. */
export function keptPart({ ids, supervised, cut, owners, side }: SeenSequence): SeenSequence {
  const kept = (_: number, position: number) => cut[position] === 0;
  return {
    ...(side ? { side } : {}),
    ids: ids.filter(kept),
    supervised: supervised.filter(kept),
    cut: cut.filter(kept),
    ...(owners ? { owners: owners.filter(kept) } : {}),
  };
}
