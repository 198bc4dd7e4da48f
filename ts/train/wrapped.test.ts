import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { EncodedRow } from "../model/tokenizer";
import { wrap } from "./wrapped";

const end = 2;
const row = (ids: number[], supervised = ids.map(() => 1)): EncodedRow => ({
  ids: Uint32Array.from(ids),
  supervised: Uint8Array.from(supervised),
});

describe("wrap", () => {
  it("every token of every document stands in the stream exactly once, in order", () => {
    const documents = fc.array(fc.array(fc.integer({ min: 3, max: 9 }), { minLength: 2, maxLength: 40 }), {
      minLength: 1,
    });
    fc.assert(
      fc.property(documents, fc.integer({ min: 2, max: 30 }), (list, maxLength) => {
        const { pieces, tokens, fillRate, supervisedTokens, emptyPieces } = wrap(
          list.map((ids) => row(ids)),
          maxLength,
          end,
        );
        const stream = list.flatMap((ids) => [...ids, end]);
        // A last piece of one token predicts nothing; it is the only one that can be empty here.
        const dropped = stream.length % maxLength === 1 ? 1 : 0;
        expect(emptyPieces).toBe(dropped);
        expect(pieces.flatMap(({ ids }) => [...ids])).toEqual(stream.slice(0, stream.length - dropped));
        for (const { ids } of pieces.slice(0, -1)) expect(ids).toHaveLength(maxLength);
        expect(tokens).toBe(stream.length - dropped);
        expect(supervisedTokens).toBe(tokens - pieces.length);
        if (pieces.length > 0) expect(fillRate).toBeCloseTo(tokens / pieces.length / maxLength, 12);
      }),
    );
  });

  it("puts no second end token behind a document that ends with one, and learns it as the token before", () => {
    const { pieces } = wrap([row([5, 6, end]), row([7, 8], [0, 1]), row([9, 9], [1, 0])], 20, end);
    expect([...pieces[0]!.ids]).toEqual([5, 6, end, 7, 8, end, 9, 9, end]);
    expect([...pieces[0]!.supervised]).toEqual([1, 1, 1, 0, 1, 1, 1, 0, 0]);
  });

  it("leaves out a piece that holds nothing to learn, and counts it", () => {
    const long = row([...Array(12).fill(4), 5], [...Array(12).fill(0), 1]);
    const { pieces, emptyPieces, tokens } = wrap([long], 4, undefined);
    // 4 + 4 + 4 of the question; the answer alone in the last piece is its first token, which is not predicted.
    expect([pieces.length, emptyPieces, tokens]).toEqual([0, 4, 0]);
    const next = wrap([long, long], 8, undefined);
    expect(next.pieces.map(({ ids }) => ids.length)).toEqual([8, 2]);
    expect(next.emptyPieces).toBe(2);
  });
});
