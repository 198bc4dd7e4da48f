import type { EncodedPair } from "../model/tokenizer";

/** Documents put together into sequences of at most `maxLength` tokens. */
export interface Packing {
  /** Indices of the documents of each pack, ascending. */
  packs: Uint32Array[];
  /** Tokens in all packs. */
  tokens: number;
  /** Share of the room of all packs that is filled, 0 to 1. */
  fillRate: number;
  /** Documents longer than maxLength; the pack holds their first maxLength tokens. */
  cutDocuments: number;
  /** Tokens behind maxLength. They are counted, never packed as a document of their own. */
  cutTokens: number;
}

/**
 * Best-fit decreasing: documents from the longest to the shortest (equal ones in their order), each into the fullest
 * pack in which it still fits. TRL's `packing_strategy: "bfd"`. Documents stay whole and attention does not cross them,
 * so the order inside a pack has no effect.
 *
 * A document is whatever is trained as one: a row of SFT, or a pair (its tokens are those of both sides).
 *
 * @param lengths tokens of each document
 * @param maxLength tokens of a pack; any whole number of at least 1
 * @param window documents looked at together; the packs of one window are full before the next begins. null looks at
 *   all at once; TRL packs 1000 at a time (the batches of `datasets.map`)
 */
export function pack(lengths: ArrayLike<number>, maxLength: number, window: number | null = null): Packing {
  if (!Number.isInteger(maxLength) || maxLength < 1) throw new RangeError(`cannot pack into ${maxLength} tokens`);
  if (window !== null && !(window >= 1)) throw new RangeError(`cannot pack ${window} documents at a time`);
  const fitted = (document: number) => Math.min(lengths[document] as number, maxLength);
  const packs: number[][] = [];
  const size = window ?? Math.max(1, lengths.length);
  for (let start = 0; start < lengths.length; start += size) {
    const order = new Uint32Array(Math.min(size, lengths.length - start)).map((_, i) => start + i);
    order.sort((a, b) => fitted(b) - fitted(a) || a - b);
    const rooms = new Rooms(maxLength);
    for (const document of order) {
      const length = fitted(document);
      const room = rooms.smallestAtLeast(length);
      const pack = room === undefined ? packs.push([]) - 1 : rooms.take(room);
      packs[pack]!.push(document);
      rooms.add((room ?? maxLength) - length, pack);
    }
  }
  let tokens = 0;
  let cutDocuments = 0;
  let cutTokens = 0;
  for (let document = 0; document < lengths.length; document++) {
    const cut = (lengths[document] as number) - fitted(document);
    if (cut > 0) cutDocuments++;
    cutTokens += cut;
    tokens += fitted(document);
  }
  return {
    packs: packs.map((documents) => Uint32Array.from(documents).sort()),
    tokens,
    fillRate: packs.length === 0 ? 0 : tokens / (packs.length * maxLength),
    cutDocuments,
    cutTokens,
  };
}

/** Packs by the room they have left: a bit set over the sizes makes the best fit a search of a few words. */
class Rooms {
  readonly #packs: number[][];
  readonly #used: Uint32Array;

  constructor(maxLength: number) {
    this.#packs = Array.from({ length: maxLength + 1 }, () => []);
    this.#used = new Uint32Array((maxLength >> 5) + 1);
  }

  add(room: number, pack: number): void {
    this.#packs[room]!.push(pack);
    this.#used[room >> 5]! |= 1 << (room & 31);
  }

  take(room: number): number {
    const packs = this.#packs[room]!;
    const pack = packs.pop()!;
    if (packs.length === 0) this.#used[room >> 5]! &= ~(1 << (room & 31));
    return pack;
  }

  smallestAtLeast(length: number): number | undefined {
    for (let word = length >> 5; word < this.#used.length; word++) {
      const above = word === length >> 5 ? (~0 << (length & 31)) >>> 0 : 0xffffffff;
      const bits = (this.#used[word]! & above) >>> 0;
      if (bits !== 0) return (word << 5) + 31 - Math.clz32(bits & -bits);
    }
    return undefined;
  }
}

/** Pairs whose tokens fit packLength together, a shared prompt counted once; nothing when each stands alone. */
export function packPairs(
  pairs: readonly EncodedPair[],
  config: {
    readonly packing: boolean;
    readonly packLength: number | null;
    readonly packingWindow: number | null;
    readonly maxLength: number;
    readonly sharedPrompt: boolean;
  },
): { packs?: Uint32Array[]; packing?: { packs: number; fillRate: number } } {
  if (!config.packing) return {};
  const tokens = pairs.map(
    ({ chosen, rejected, promptLength }) =>
      chosen.ids.length + rejected.ids.length - (config.sharedPrompt ? promptLength : 0),
  );
  const { packs, fillRate } = pack(tokens, config.packLength ?? 2 * config.maxLength, config.packingWindow);
  return { packs, packing: { packs: packs.length, fillRate } };
}
