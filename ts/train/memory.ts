/** The memory of a run on a card: planned from its largest micro-batch, and allocated, before anything is trained. */
import { fromNative } from "../errors";
import type { EncodedPair, EncodedRow } from "../model/tokenizer";
import type { BatchPlan } from "./batches";
import { predictedTokens } from "./examples";
import type { PairLayout } from "./native-batch";
import type { Run } from "./run";

/** A row, or a batch, as memory sees it. */
export interface BatchSize {
  /** Tokens that go through the decoder: those of a shared prompt once. */
  tokens: number;
  /** Tokens that are predicted. */
  predictions: number;
}

/** Bytes of a card by what they are for. */
export interface MemoryPlan {
  /** Type of weights and activations. */
  precision: "bfloat16" | "float32";
  /** What the backward computes again. */
  recompute: "none" | "norms-and-swiglu" | "layer";
  weights: number;
  gradients: number;
  /** Of the optimizer: moments, and what bfloat16 weights lack to the exact ones. */
  states: number;
  activations: number;
  /** The head's logits and the batch itself. */
  workspace: number;
  total: number;
  /** Of the card, before anything was allocated. */
  free: number;
}

export function sizeOfRow(row: EncodedRow): BatchSize {
  return { tokens: row.ids.length, predictions: predictedTokens(row) };
}

export function sizeOfPair({ chosen, rejected, promptLength }: EncodedPair, layout: PairLayout): BatchSize {
  const shared = layout.sharedPrompt ? promptLength : 0;
  const prompts = layout.chosenPrompts ? promptLength : 0;
  return {
    tokens: chosen.ids.length + rejected.ids.length - shared,
    predictions: predictedTokens(chosen) + predictedTokens(rejected) + prompts,
  };
}

/** Rows that are scored in their order, so many at once. */
export interface ScoredRows<Row> {
  rows: readonly Row[];
  size: number;
}

/** What a run with a reference scores beside its steps: the held-out rows, and all rows where that is done beforehand. */
export function scoredBeside<Row>(
  rows: readonly Row[],
  held: readonly Row[],
  config: { readonly batchSize: number; readonly refBatchSize: number | null; readonly precomputeRefLogps: boolean },
): ScoredRows<Row>[] {
  const { batchSize, refBatchSize, precomputeRefLogps } = config;
  const size = refBatchSize ?? batchSize;
  const beforehand = precomputeRefLogps ? [rows, held].map((rows) => ({ rows, size })) : [];
  return [{ rows: held, size: batchSize }, ...beforehand];
}

/** The most of each that a micro-batch of the run has, or a batch of what is `scored`. */
export function largestBatch<Row>(
  plan: BatchPlan,
  rows: readonly Row[],
  scored: readonly ScoredRows<Row>[],
  sizeOf: (row: Row) => BatchSize,
): BatchSize {
  const largest = { tokens: 0, predictions: 0 };
  const add = (batch: readonly BatchSize[]) => {
    largest.tokens = Math.max(
      largest.tokens,
      batch.reduce((sum, { tokens }) => sum + tokens, 0),
    );
    largest.predictions = Math.max(
      largest.predictions,
      batch.reduce((sum, { predictions }) => sum + predictions, 0),
    );
  };
  const sizes = rows.map(sizeOf);
  for (let step = 1; step <= plan.totalSteps; step++) {
    for (const batch of plan.step(step).microBatches) add(Array.from(batch, (row) => sizes[row]!));
  }
  for (const { rows, size } of scored) {
    const sizes = rows.map(sizeOf);
    for (let start = 0; start < sizes.length; start += size) add(sizes.slice(start, start + size));
  }
  return largest;
}

/**
 * On a card: plans the memory, chooses what is computed again unless that is told, and allocates all of it.
 *
 * @returns the plan; undefined on the CPU
 * @throws DeviceError `ZA_DEVICE_MEMORY` with the numbers when it does not fit, `ZA_DEVICE_UNSUPPORTED` for what a card
 * cannot do yet; both before anything is allocated
 */
export async function reserveMemory(run: Run): Promise<MemoryPlan | undefined> {
  if (run.model.device.kind === "cpu") return undefined;
  const { tokens, predictions } = run.largest();
  try {
    return JSON.parse((await run.session.reserve(tokens, predictions))!);
  } catch (error) {
    throw fromNative(error);
  }
}

/** `weights 14.5 GB + gradients 14.5 GB + … = 70.1 GB of 139.0 GB` */
export function memoryText(plan: MemoryPlan): string {
  const gigabytes = (bytes: number) => `${(bytes / 1e9).toFixed(2)} GB`;
  const parts = [
    ["weights", plan.weights],
    ["gradients", plan.gradients],
    ["optimizer state", plan.states],
    ["activations", plan.activations],
    ["workspace", plan.workspace],
  ] as const;
  const sum = parts.map(([name, bytes]) => `${name} ${gigabytes(bytes)}`).join(" + ");
  return `${sum} = ${gigabytes(plan.total)} of ${gigabytes(plan.free)}`;
}
