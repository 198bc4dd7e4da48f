/** Token sequences as the core takes them: laid end to end. */
import type { NativeBatch } from "../../bindings/node/index";
import type { EncodedPair, EncodedRow } from "../model/tokenizer";
import { native } from "../native/load";

/** Sequences as the native core takes them. */
export function nativeBatch(sequences: readonly EncodedRow[]): NativeBatch {
  return new (native().NativeBatch)(...endToEnd(sequences));
}

/** How pairs are laid out. */
export interface PairLayout {
  /** The prompt of each is computed once, for both answers. */
  sharedPrompt: boolean;
  /** What tokens of the longer answer count that the shorter one does not have (LD-DPO). */
  ldAlpha?: number | null;
  /** Prompts of the chosen side are learnt too (ORPO). */
  chosenPrompts?: boolean;
}

/** Pairs as the native core takes them. */
export function nativePairs(pairs: readonly EncodedPair[], layout: PairLayout): NativeBatch {
  const sequences = pairs.flatMap(({ chosen, rejected }) => [chosen, rejected]);
  const prompts = Uint32Array.from(pairs, ({ promptLength }) => promptLength);
  const { sharedPrompt, chosenPrompts = false, ldAlpha } = layout;
  return native().NativeBatch.pairs(...endToEnd(sequences), prompts, sharedPrompt, chosenPrompts, ldAlpha ?? null);
}

function endToEnd(sequences: readonly EncodedRow[]): [ids: Uint32Array, supervised: Uint8Array, lengths: Uint32Array] {
  const total = sequences.reduce((sum, { ids }) => sum + ids.length, 0);
  const ids = new Uint32Array(total);
  const supervised = new Uint8Array(total);
  const lengths = Uint32Array.from(sequences, (sequence) => sequence.ids.length);
  let start = 0;
  for (const sequence of sequences) {
    ids.set(sequence.ids, start);
    supervised.set(sequence.supervised, start);
    start += sequence.ids.length;
  }
  return [ids, supervised, lengths];
}
