/**
 * The alignment handbook's packing (TRL 0.9's ConstantLengthDataset): documents laid end to end, an end token behind
 * each, and the stream cut every `maxLength` tokens. Documents begin anywhere and attention crosses their borders: it is
 * here to repeat what Zephyr's authors ran. Best fit (`packing: true`) wastes little more and isolates documents.
 */
import type { EncodedRow } from "../model/tokenizer";
import { predictedTokens } from "./examples";

/** A stream of documents, cut. */
export interface Wrapped {
  /** Pieces of `maxLength` tokens; the last one may be shorter (the handbook dropped it). */
  pieces: EncodedRow[];
  /** Tokens of the pieces, with the end tokens between documents. */
  tokens: number;
  /** Tokens of the pieces that the loss sees. */
  supervisedTokens: number;
  /** Share of the room of all pieces that is filled, 0 to 1. */
  fillRate: number;
  /** Pieces left out because they hold no token to learn, for example the middle of a long question. */
  emptyPieces: number;
}

/**
 * Lays documents end to end and cuts the stream.
 *
 * @param endToken put behind a document that does not end with it; learnt when the document's last token is
 */
export function wrap(documents: Iterable<EncodedRow>, maxLength: number, endToken: number | undefined): Wrapped {
  const pieces: EncodedRow[] = [];
  const ids = new Uint32Array(maxLength);
  const supervised = new Uint8Array(maxLength);
  let filled = 0;
  let emptyPieces = 0;
  const close = () => {
    const piece = { ids: ids.slice(0, filled), supervised: supervised.slice(0, filled) };
    if (predictedTokens(piece) > 0) pieces.push(piece);
    else emptyPieces++;
    filled = 0;
  };
  const add = (more: EncodedRow) => {
    for (let start = 0; start < more.ids.length; ) {
      const taken = Math.min(maxLength - filled, more.ids.length - start);
      ids.set(more.ids.subarray(start, start + taken), filled);
      supervised.set(more.supervised.subarray(start, start + taken), filled);
      start += taken;
      filled += taken;
      if (filled === maxLength) close();
    }
  };
  for (const document of documents) {
    add(document);
    if (endToken === undefined || document.ids.at(-1) === endToken) continue;
    add({ ids: Uint32Array.of(endToken), supervised: document.supervised.slice(-1) });
  }
  if (filled > 0) close();
  const tokens = pieces.reduce((sum, piece) => sum + piece.ids.length, 0);
  return {
    pieces,
    tokens,
    supervisedTokens: pieces.reduce((sum, piece) => sum + predictedTokens(piece), 0),
    fillRate: pieces.length === 0 ? 0 : tokens / (pieces.length * maxLength),
    emptyPieces,
  };
}
