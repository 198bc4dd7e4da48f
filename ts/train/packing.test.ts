import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { pack } from "./packing";

/** Best fit by looking at every pack: slow and obvious. */
function naive(lengths: number[], maxLength: number): number {
  const rooms: number[] = [];
  for (const length of lengths.map((each) => Math.min(each, maxLength)).sort((a, b) => b - a)) {
    let best = -1;
    for (const [i, room] of rooms.entries()) if (room >= length && (best < 0 || room < rooms[best]!)) best = i;
    if (best < 0) rooms.push(maxLength - length);
    else rooms[best]! -= length;
  }
  return rooms.length;
}

describe("pack", () => {
  it("puts every document into exactly one pack, within the length, as best fit does", () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 300 })),
        fc.integer({ min: 1, max: 260 }),
        (lengths, maxLength) => {
          const { packs, tokens, fillRate, cutTokens, cutDocuments } = pack(lengths, maxLength);
          const seen = packs.flatMap((documents) => [...documents]).sort((a, b) => a - b);
          expect(seen).toEqual(lengths.map((_, i) => i));
          const size = (documents: Uint32Array) =>
            [...documents].reduce((sum, document) => sum + Math.min(lengths[document]!, maxLength), 0);
          for (const documents of packs) expect(size(documents)).toBeLessThanOrEqual(maxLength);
          expect(tokens).toBe(packs.reduce((sum, documents) => sum + size(documents), 0));
          expect(tokens + cutTokens).toBe(lengths.reduce((sum, length) => sum + length, 0));
          expect(cutDocuments).toBe(lengths.filter((length) => length > maxLength).length);
          if (packs.length > 0) expect(fillRate).toBeCloseTo(tokens / packs.length / maxLength, 12);
          expect(packs.length).toBe(naive(lengths, maxLength));
        },
      ),
    );
  });

  it("packs window by window: the documents of one are never beside those of another", () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 90 })),
        fc.integer({ min: 1, max: 70 }),
        fc.integer({ min: 1, max: 30 }),
        (lengths, maxLength, window) => {
          const { packs, tokens, fillRate } = pack(lengths, maxLength, window);
          const seen = packs.flatMap((documents) => [...documents]);
          expect(seen.toSorted((a, b) => a - b)).toEqual(lengths.map((_, i) => i));
          let expected = 0;
          for (let start = 0; start < lengths.length; start += window) {
            expected += naive(lengths.slice(start, start + window), maxLength);
          }
          expect(packs.length).toBe(expected);
          for (const documents of packs) {
            expect(new Set(Array.from(documents, (document) => Math.floor(document / window))).size).toBe(1);
          }
          if (packs.length > 0) expect(fillRate).toBeCloseTo(tokens / packs.length / maxLength, 12);
          if (lengths.length <= window) expect(packs).toEqual(pack(lengths, maxLength).packs);
        },
      ),
    );
  });

  it("has nothing to pack", () => {
    expect(pack([], 8)).toEqual({ packs: [], tokens: 0, fillRate: 0, cutDocuments: 0, cutTokens: 0 });
  });

  it("packs a hundred thousand documents quickly", () => {
    const lengths = Uint32Array.from({ length: 100_000 }, (_, i) => 20 + ((i * 7919) % 1500));
    const start = performance.now();
    const { fillRate } = pack(lengths, 2048);
    expect(fillRate).toBeGreaterThan(0.97);
    expect(performance.now() - start).toBeLessThan(3000);
  });
});

const folder = join(process.env.ZEPHYR_CASES ?? "../shared/cases", "16-packing-at-odd-lengths");
const present = existsSync(folder);
if (!present) console.warn(`SKIPPED: case 16, ${folder} is missing`);

describe.skipIf(!present)("case 16: any maximal length", () => {
  // One token per byte, and the end token.
  const lengthsOf = (name: string) =>
    readFileSync(join(folder, name), "utf8")
      .trim()
      .split("\n")
      .map((line) => (JSON.parse(line) as { text: string }).text.length + 1);

  it("packs eight documents as the reference does, at lengths 2^k, beside them, and between", () => {
    const reference = JSON.parse(readFileSync(join(folder, "reference.json"), "utf8")) as {
      packs_by_max_length: Record<string, number>;
    };
    for (const [maxLength, packs] of Object.entries(reference.packs_by_max_length)) {
      expect(pack(lengthsOf("eight.jsonl"), Number(maxLength)).packs).toHaveLength(packs);
    }
  });

  it("cuts a long document and does not pack its rest", () => {
    const { packs, cutTokens, cutDocuments, tokens } = pack(lengthsOf("one-long.jsonl"), 64);
    expect(packs.map((documents) => [...documents])).toEqual([[0], [1, 2]]);
    expect([cutTokens, cutDocuments, tokens]).toEqual([137, 1, 64 + 42]);
  });
});
