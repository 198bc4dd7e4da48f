import { type DatasetInput, sftDataset } from "../data";
import { throwIfAborted } from "../errors";
import type { Mistral } from "../model/mistral";
import type { EncodedRow } from "../model/tokenizer";
import { planBatches } from "./batches";
import { resolveConfig, type SftConfig, type SftConfigInput, sftConfig } from "./config";
import { EventStream, type Metrics, type TrainerEvent } from "./events";
import { type ExampleReport, type Examples, predictedTokens, sftExamples } from "./examples";
import { pack } from "./packing";
import {
  addLine,
  announce,
  applyStep,
  failRun,
  finishRun,
  nativeBatch,
  newRun,
  openFolder,
  openSession,
  poll,
  type Run,
  refuseFrozen,
  resumeRun,
  scheduleOf,
} from "./run";
import { sampleAfter, sampleBefore } from "./samples";

/** What an {@link SftTrainer} is made of: a model, rows, and any option of {@link SftConfigInput}. */
export interface SftTrainerOptions extends SftConfigInput {
  /** Trained in place. */
  model: Mistral;
  /** A path, rows in memory, or a data set. */
  dataset: DatasetInput;
  /** Held-out rows, evaluated every `evalSteps` and at the end. */
  evalDataset?: DatasetInput;
  /** Stops the run between two micro-batches; `fit` then rejects with `AbortedError`. */
  signal?: AbortSignal;
  /** Replaces an earlier run in outputDir. @default false */
  overwrite?: boolean;
  /** Prompts answered before and after training, for the report. @default 2 when outputDir is set, else 0 */
  samples?: number;
}

/**
 * The reference of a preference run: "start" is the policy's weights as they were, "adapter-off" the weights under its
 * new adapter, "start-adapter" the adapter that the policy came with, as it was, and "given" the model in `ref`.
 */
export type Reference = "start" | "adapter-off" | "start-adapter" | "given";

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

/**
 * Supervised fine-tuning (dSFT): mean cross-entropy of the assistant's tokens, over the global count of the optimizer
 * step, so that accumulation equals the large batch.
 *
 * @example
 * const { model } = await new SftTrainer({ model, dataset: "conversations.jsonl", outputDir: "runs/sft" }).fit();
 */
export class SftTrainer implements AsyncIterable<TrainerEvent> {
  readonly config: SftConfig;
  readonly #options: SftTrainerOptions;
  readonly #events = new EventStream();

  /** @throws ConfigError with all problems of the configuration at once, before any work */
  constructor(options: SftTrainerOptions) {
    const { model, dataset, evalDataset, signal, overwrite, samples, ...config } = options;
    this.config = resolveConfig(sftConfig, config);
    this.#options = options;
  }

  /** The events of the run; iterating does not start it. */
  [Symbol.asyncIterator](): AsyncIterator<TrainerEvent> {
    return this.#events[Symbol.asyncIterator]();
  }

  /** Runs the whole training. */
  async fit(): Promise<TrainResult> {
    const { config } = this;
    const { signal, overwrite, samples } = this.#options;
    let run: Run | undefined;
    try {
      throwIfAborted(signal);
      // From here on the model speaks the template that it is trained with: samples and the saved folder too.
      const start = this.#options.model.withTemplate(config.template);
      const model = config.lora ? await start.withLora({ ...config.lora, seed: config.seed }) : start;
      refuseFrozen(model);
      const { tokenizer } = model;
      const { onBadRow } = config;
      const dataset = sftDataset(this.#options.dataset, { onBadRow });
      const encoding = { ...config, ...(signal ? { signal } : {}) };
      const examples = await sftExamples(dataset, tokenizer, encoding);
      const { evalDataset } = this.#options;
      const held = evalDataset && (await sftExamples(sftDataset(evalDataset, { onBadRow }), tokenizer, encoding));
      const { items, packing } = batchItems(examples, config);
      const plan = planBatches({ ...config, rows: items.length });
      const rate = scheduleOf(config, plan.totalSteps);
      // Only now: data that is refused must not leave a folder that looks like a run.
      const folder = await openFolder("sft", model, config, overwrite);
      run = newRun({
        method: "sft",
        model,
        config,
        session: openSession(model, config),
        plan,
        folder,
        events: this.#events,
        signal,
        report: examples.report,
        packing,
      });
      const shown = await sampleBefore(model, dataset, samples ?? (folder ? 2 : 0));
      await announce(run);
      await resumeRun(run);
      run.startedAt = run.loggedAt = performance.now();

      for (let step = run.doneSteps + 1; step <= plan.totalSteps; step++) {
        const { microBatches, epochsDone } = plan.step(step);
        const batches = microBatches.map((rows) => Array.from(rows).flatMap((row) => items[row]!));
        const tokens = batches.flat().reduce((sum, row) => sum + predictedTokens(row), 0);
        for (const batch of batches) {
          poll(run);
          await run.session.accumulateSft(nativeBatch(batch), tokens, true);
        }
        await applyStep(run, step, epochsDone, rate(step - 1));
        if (held && config.evalSteps > 0 && step % config.evalSteps === 0 && step < plan.totalSteps) {
          await evaluate(run, held, step);
        }
      }
      if (held) await evaluate(run, held, run.doneSteps);
      const metrics = await finishRun(run, await sampleAfter(model, shown));
      this.#events.close();
      return {
        model,
        metrics,
        history: run.history,
        steps: run.doneSteps,
        outputDir: folder?.path,
        report: run.report,
      };
    } catch (error) {
      return failRun(run, error, signal).catch((typed) => {
        this.#events.close(typed);
        throw typed;
      });
    }
  }
}

/** What a batch is counted in: packs of documents, or single documents. Documents never see each other. */
function batchItems(examples: Examples<EncodedRow>, config: SftConfig) {
  const { rows } = examples;
  if (!config.packing) return { items: rows.map((row) => [row]), packing: undefined };
  const { packs, fillRate } = pack(
    rows.map(({ ids }) => ids.length),
    config.maxLength,
  );
  const items = packs.map((documents) => Array.from(documents, (document) => rows[document]!));
  return { items, packing: { packs: packs.length, fillRate } };
}

async function evaluate(run: Run, held: Examples<EncodedRow>, step: number): Promise<void> {
  const tokens = held.report.supervisedTokens;
  for (let start = 0; start < held.rows.length; start += run.config.batchSize) {
    poll(run);
    const batch = held.rows.slice(start, start + run.config.batchSize);
    await run.session.accumulateSft(nativeBatch(batch), tokens, false);
  }
  const metrics: Metrics = JSON.parse(await run.session.takeEvaluation());
  await addLine(run, { step, ...metrics });
  run.events.push({ type: "eval", step, metrics });
}
