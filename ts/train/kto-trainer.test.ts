import { describe, expect, it } from "vitest";
import type { EncodedAnswer } from "./examples";
import { mismatched } from "./kto-trainer";

const answer = (prompt: number[], completion: number[]): EncodedAnswer => ({
  ids: Uint32Array.of(...prompt, ...completion),
  supervised: Uint8Array.of(...prompt.map(() => 0), ...completion.map(() => 1)),
  promptLength: prompt.length,
  desirable: true,
});

describe("mismatched", () => {
  const answers = [answer([1, 2], [10, 11, 12]), answer([3], [20]), answer([4, 5, 6], [30, 31])];

  it("puts each prompt before the answer that precedes it, the first before the last", () => {
    const rows = mismatched(answers, { lossType: "kto", maxLength: 100 });
    expect(rows.map(({ ids }) => [...ids])).toEqual([
      [1, 2, 30, 31],
      [3, 10, 11, 12],
      [4, 5, 6, 20],
    ]);
    expect(rows.map(({ supervised }) => [...supervised])).toEqual([
      [0, 0, 1, 1],
      [0, 1, 1, 1],
      [0, 0, 0, 1],
    ]);
  });

  it("cuts to maxLength and keeps an answer's token", () => {
    const rows = mismatched(answers, { lossType: "kto", maxLength: 3 });
    expect(rows.map(({ ids }) => [...ids])).toEqual([
      [1, 2, 30],
      [3, 10, 11],
      [4, 5, 20],
    ]);
  });

  it("is empty where nothing is estimated", () => {
    expect(mismatched(answers, { lossType: "apo_zero_unpaired", maxLength: 9 })).toEqual([]);
  });
});
