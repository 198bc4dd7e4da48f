/** What every trainer takes besides its model, rows and options, and what it gives. */
import type { DatasetInput } from "../data";
import type { Mistral } from "../model/mistral";
import type { Metrics } from "./events";
import type { ExampleReport } from "./examples";
import type { Logger } from "./loggers/logger";
import type { Watch } from "./watch/watch-run";

/** What a training is given besides model, rows and options. */
export interface TrainerInput {
  /** Held-out rows, evaluated every `evalSteps` and at the end. */
  evalDataset?: DatasetInput;
  /**
   * Stops the run between two micro-batches. With outputDir it is saved at the last finished step; `fit` then rejects with
   * `AbortedError`, which names the checkpoint.
   */
  signal?: AbortSignal;
  /** Replaces an earlier run in outputDir. @default false */
  overwrite?: boolean;
  /** Prompts answered before and after training, for the report. @default 2 when outputDir is set, else 0 */
  samples?: number;
  /** Where the run's numbers go besides `metrics.jsonl` and what `logTo` names. */
  loggers?: readonly Logger[];
  /** Serves a page that shows the run while it goes on, on this machine only. @default false */
  watch?: Watch;
}

/**
 * The reference of a preference run: "start" is the policy's weights as they were, "adapter-off" the weights under its
 * new adapter, "start-adapter" the adapter that the policy came with, as it was, and "given" the model in `ref`.
 */
export type Reference = "start" | "adapter-off" | "start-adapter" | "given";

/** A reference as it is told to people. */
export const referenceTexts: Record<Reference, string> = {
  start: "the model as it started",
  "adapter-off": "the model without its adapter",
  "start-adapter": "the model with the adapter that it came with",
  given: "the model given as its reference",
};

/** What training gave. */
export interface TrainResult {
  /** The trained model, with the chat template that it was trained with; with `lora` the given one under its adapter. */
  model: Mistral;
  /** Metrics of the last logged step. */
  metrics: Metrics;
  /** Lines of metrics.jsonl. */
  history: readonly Metrics[];
  /** Optimiser steps made in all. */
  steps: number;
  /** What a preference run was measured against. */
  reference?: Reference;
  /** Folder of the run, when one was asked for. */
  outputDir: string | undefined;
  /** What the data held, and what became of it. */
  report: ExampleReport;
}
