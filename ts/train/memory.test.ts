import { expect, it } from "vitest";
import type { EncodedPair, EncodedRow } from "../model/tokenizer";
import { planBatches } from "./batches";
import { largestBatch, type MemoryPlan, memoryText, sizeOfPair, sizeOfRow } from "./memory";

/** A row of which the last tokens are supervised. */
function row(tokens: number, supervised: number): EncodedRow {
  return { ids: new Uint32Array(tokens), supervised: new Uint8Array(tokens).fill(1, tokens - supervised) };
}

const plan = (rows: number, batchSize: number) =>
  planBatches({ rows, batchSize, gradientAccumulation: 1, epochs: 2, maxSteps: null, seed: 1, shuffle: false });

it("the largest batch of a run is that of its plan, each measure by itself, and of the evaluation", () => {
  const rows = [row(10, 1), row(4, 3), row(5, 3), row(5, 3), row(2, 1)];
  expect(largestBatch(plan(5, 2), rows, [], sizeOfRow)).toEqual({ tokens: 14, predictions: 6 });
  const held = [row(3, 1), row(3, 1), row(20, 2)];
  expect(largestBatch(plan(5, 2), rows, [{ rows: held, size: 2 }], sizeOfRow)).toEqual({ tokens: 20, predictions: 6 });
  expect(largestBatch(plan(5, 2), rows, [{ rows, size: 4 }], sizeOfRow)).toEqual({ tokens: 24, predictions: 10 });
});

it("a shared prompt is there once, and prompts that are learnt are predicted", () => {
  const pair = { chosen: row(10, 4), rejected: row(9, 3), promptLength: 6 } as EncodedPair;
  expect(sizeOfPair(pair, { sharedPrompt: false })).toEqual({ tokens: 19, predictions: 7 });
  expect(sizeOfPair(pair, { sharedPrompt: true })).toEqual({ tokens: 13, predictions: 7 });
  expect(sizeOfPair(pair, { sharedPrompt: false, chosenPrompts: true }).predictions).toBe(13);
});

it("the plan is told as a sum", () => {
  const parts = { weights: 14.5e9, gradients: 14.5e9, states: 43.5e9, activations: 3e9, workspace: 1e9 };
  const plan: MemoryPlan = { precision: "bfloat16", recompute: "layer", ...parts, total: 76.5e9, free: 80e9 };
  expect(memoryText(plan)).toBe(
    "weights 14.50 GB + gradients 14.50 GB + optimizer state 43.50 GB + activations 3.00 GB + workspace 1.00 GB = 76.50 GB of 80.00 GB",
  );
});
