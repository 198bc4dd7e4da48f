import { type DatasetInput, sftDataset } from "../data";
import { throwIfAborted } from "../errors";
import type { Mistral } from "../model/mistral";
import type { EncodedRow, Tokenizer } from "../model/tokenizer";
import { planBatches } from "./batches";
import { type SftConfig, type SftConfigInput, sftConfig } from "./config";
import { EventStream, type TrainerEvent } from "./events";
import { type Examples, predictedTokens, sftExamples } from "./examples";
import { aside, evaluationIsDue, logEvaluation } from "./log";
import { largestBatch, sizeOfRow } from "./memory";
import { nativeBatch } from "./native-batch";
import { pack } from "./packing";
import { hashRows } from "./reference-cache";
import {
  announce,
  beginSteps,
  failRun,
  finishRun,
  makeStep,
  newRun,
  openFolder,
  openSession,
  poll,
  prepareModel,
  type Run,
  resumeRun,
  saveIfDue,
  scheduleOf,
} from "./run";
import { sampleAfter, sampleBefore, sampleDuring } from "./samples";
import { counted } from "./speed";
import type { TrainerInput, TrainResult } from "./trainer";
import { configOf } from "./trainer-options";
import { watchRun } from "./watch/watch-run";
import { wrap } from "./wrapped";
/** What an {@link SftTrainer} is made of: a model, rows, and any option of {@link SftConfigInput}. */
export interface SftTrainerOptions extends SftConfigInput, TrainerInput {
  /** Trained in place. */
  model: Mistral;
  /** A path, rows in memory, or a data set. */
  dataset: DatasetInput;
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
    this.config = configOf(sftConfig, options, ["model", "dataset"]);
    this.#options = options;
  }

  /** The events of the run; iterating does not start it. */
  [Symbol.asyncIterator](): AsyncIterator<TrainerEvent> {
    return this.#events[Symbol.asyncIterator]();
  }

  /** Runs the whole training. */
  async fit(): Promise<TrainResult> {
    const { config } = this;
    const { signal, overwrite, samples, loggers, watch } = this.#options;
    let run: Run | undefined;
    try {
      throwIfAborted(signal);
      const { model } = await prepareModel(this.#options.model, config);
      const { tokenizer } = model;
      const { onBadRow } = config;
      const dataset = sftDataset(this.#options.dataset, { onBadRow });
      const encoding = { ...config, ...(signal ? { signal } : {}) };
      const examples = arrange(await sftExamples(dataset, tokenizer, uncutIfWrapped(encoding)), config, tokenizer);
      const { evalDataset } = this.#options;
      const held = evalDataset && (await sftExamples(sftDataset(evalDataset, { onBadRow }), tokenizer, encoding));
      const { rows, packs, packing } = examples;
      const plan = planBatches({ ...config, rows: rows.length, packs });
      const rate = scheduleOf(config, plan.totalSteps);
      // Only now: data that is refused must not leave a folder that looks like a run.
      const folder = await openFolder("sft", model, config, overwrite);
      const session = openSession(model, config, { signal });
      run = newRun(
        {
          method: "sft",
          model,
          config,
          session,
          plan,
          folder,
          events: this.#events,
          signal,
          report: examples.report,
          largest: () => largestBatch(plan, rows, held ? [{ rows: held.rows, size: config.batchSize }] : [], sizeOfRow),
          digests: { rowsHash: hashRows(rows), ...(held ? { evalRowsHash: hashRows(held.rows) } : {}) },
          ...(packing ? { packing } : {}),
        },
        loggers,
      );
      await announce(run);
      await watchRun(run, watch);
      const shown = await sampleBefore(run, dataset, samples ?? (folder ? 2 : 0));
      for (const message of examples.said) run.warn(message);
      await resumeRun(run);
      beginSteps(run);
      // A run that was stopped between a step and its evaluation.
      if (held && evaluationIsDue(run)) await aside(run, evaluate, held);

      for (let step = run.doneSteps + 1; step <= plan.totalSteps; step++) {
        const { microBatches, epochsDone } = plan.step(step);
        const batches = microBatches.map((batch) => Array.from(batch, (row) => rows[row]!));
        const tokens = batches.flat().reduce((sum, row) => sum + predictedTokens(row), 0);
        const facts = { step, epoch: epochsDone, learningRate: rate(step - 1), supervisedTokens: tokens };
        await makeStep(run, facts, async () => {
          let loss = 0;
          for (const batch of batches) {
            throwIfAborted(signal);
            loss += await session.accumulateSft(counted(run!, nativeBatch(batch)), tokens, true);
          }
          return loss;
        });
        await sampleDuring(run, shown, step);
        if (held && evaluationIsDue(run)) await aside(run, evaluate, held);
        await saveIfDue(run);
      }
      const result = await finishRun(run, await sampleAfter(run, shown));
      this.#events.close();
      return result;
    } catch (error) {
      return failRun(run, error, signal).catch((typed) => {
        this.#events.close(typed);
        throw typed;
      });
    }
  }
}

/** Rows as they are trained on. */
interface Arranged extends Examples<EncodedRow> {
  /** Rows that stay together; undefined when each stands alone. */
  packs?: Uint32Array[];
  packing?: { packs: number; fillRate: number };
  /** What the user should know about it. */
  said: string[];
}

/** Rows in packs, pieces of one wrapped stream, or rows as they are. */
function arrange(examples: Examples<EncodedRow>, config: SftConfig, tokenizer: Tokenizer): Arranged {
  const { rows, report } = examples;
  if (!config.packing) return { rows, report, said: [] };
  if (config.packing === true) {
    const lengths = rows.map(({ ids }) => ids.length);
    const { packs, fillRate } = pack(lengths, config.maxLength, config.packingWindow);
    return { rows, report, packs, packing: { packs: packs.length, fillRate }, said: [] };
  }
  const { pieces, fillRate, emptyPieces, tokens, supervisedTokens } = wrap(
    rows,
    config.maxLength,
    tokenizer.eosTokenId,
  );
  const said = ['packing "wrapped": documents are cut and see each other, as in the alignment handbook'];
  if (emptyPieces > 0) said.push(`${emptyPieces} pieces of the wrapped stream hold nothing to learn and are left out`);
  const packing = { packs: pieces.length, fillRate };
  return { rows: pieces, report: { ...report, tokens, supervisedTokens }, packing, said };
}

/** A wrapped stream is cut as a whole; its documents are not. */
function uncutIfWrapped<Options extends SftConfig>(options: Options): Options {
  return options.packing === "wrapped" ? { ...options, maxLength: Number.MAX_SAFE_INTEGER } : options;
}

async function evaluate(run: Run, held: Examples<EncodedRow>): Promise<void> {
  const tokens = held.report.supervisedTokens;
  for (let start = 0; start < held.rows.length; start += run.config.batchSize) {
    poll(run);
    const batch = held.rows.slice(start, start + run.config.batchSize);
    await run.session.accumulateSft(nativeBatch(batch), tokens, false);
  }
  await logEvaluation(run);
}
