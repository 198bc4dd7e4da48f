import type { NativeSession } from "../../bindings/node/index";
import { type DatasetInput, pairDataset } from "../data";
import { throwIfAborted } from "../errors";
import type { Mistral } from "../model/mistral";
import type { EncodedPair } from "../model/tokenizer";
import { planBatches } from "./batches";
import { type DpoConfig, type DpoConfigInput, dpoConfig, resolveConfig } from "./config";
import { EventStream, type TrainerEvent } from "./events";
import { type Examples, pairExamples, predictedTokens } from "./examples";
import type { Logger } from "./loggers/logger";
import { pack } from "./packing";
import { hashPairs, meanOf, pick, type ReferenceLogps, referenceLogps, split } from "./reference";
import {
  announce,
  aside,
  beginSteps,
  evaluationIsDue,
  failRun,
  finishRun,
  logEvaluation,
  makeStep,
  nativePairs,
  newRun,
  openFolder,
  openSession,
  poll,
  type Run,
  refuseFrozen,
  resumeRun,
  saveIfDue,
  scheduleOf,
} from "./run";
import { sampleAfter, sampleBefore, sampleDuring } from "./samples";
import type { Reference, TrainResult } from "./sft-trainer";
import { type Watch, watchRun } from "./watch/watch-run";

/** What a {@link DpoTrainer} is made of: a policy, pairs, and any option of {@link DpoConfigInput}. */
export interface DpoTrainerOptions extends DpoConfigInput {
  /** Trained in place. */
  policy: Mistral;
  /**
   * The frozen reference.
   * @default the policy as it is when `fit` is called: with `lora` the policy without its new adapter, and for a policy
   * that has an adapter (of dSFT, say) that adapter as it is then. `policy.withoutAdapter()` is the bare base instead.
   */
  ref?: Mistral;
  /** A path, rows in memory, or a data set of preference pairs; `fit(pairs)` takes it as well. */
  dataset?: DatasetInput;
  /** Held-out pairs, evaluated every `evalSteps` and at the end. */
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
 * Direct preference optimisation (dDPO; Rafailov et al. 2023, and the whole loss table of TRL): best- against
 * worst-rated answers, with a frozen reference and no reward model.
 *
 * The reference's log-probabilities are computed once, before the first step; no second model is in memory then.
 * When the reference is the policy's own start, the first step asserts loss ln 2 and rewards 0.
 *
 * @example
 * const { model } = await new DpoTrainer({ policy, ref, beta: 0.1 }).fit("pairs.jsonl");
 */
export class DpoTrainer implements AsyncIterable<TrainerEvent> {
  readonly config: DpoConfig;
  readonly #options: DpoTrainerOptions;
  readonly #events = new EventStream();

  /** @throws ConfigError with all problems of the configuration at once, before any work */
  constructor(options: DpoTrainerOptions) {
    const { policy, ref, dataset, evalDataset, signal, overwrite, samples, loggers, watch, ...config } = options;
    this.config = resolveConfig(dpoConfig, config);
    this.#options = options;
  }

  /** The events of the run; iterating does not start it. */
  [Symbol.asyncIterator](): AsyncIterator<TrainerEvent> {
    return this.#events[Symbol.asyncIterator]();
  }

  /** Runs the whole training. */
  async fit(pairs: DatasetInput | undefined = this.#options.dataset): Promise<TrainResult> {
    const { config } = this;
    const { ref, signal, overwrite, samples, loggers, watch } = this.#options;
    let run: Run | undefined;
    try {
      throwIfAborted(signal);
      if (pairs === undefined) throw new TypeError("DpoTrainer has no pairs: give `dataset`, or call fit(pairs)");
      // From here on the policy speaks the template that it is trained with: samples and the saved folder too.
      const start = this.#options.policy.withTemplate(config.template);
      const policy = config.lora ? await start.withLora({ ...config.lora, seed: config.seed }) : start;
      refuseFrozen(policy);
      const { tokenizer } = policy;
      const { onBadRow } = config;
      const dataset = pairDataset(pairs, { onBadRow });
      const encoding = { ...config, ...(signal ? { signal } : {}) };
      const examples = await pairExamples(dataset, tokenizer, encoding);
      const { evalDataset } = this.#options;
      const held = evalDataset && (await pairExamples(pairDataset(evalDataset, { onBadRow }), tokenizer, encoding));
      const { packs, packing } = packPairs(examples.rows, config);
      const plan = planBatches({ ...config, rows: examples.rows.length, packs });
      const rate = scheduleOf(config, plan.totalSteps);
      // Only now: data that is refused must not leave a folder that looks like a run.
      const folder = await openFolder("dpo", policy, config, overwrite);
      const referenceIsStart = ref === undefined || ref.native.sharesWeights(start.native);
      const reference = referenceIsStart ? startOf(policy, config) : "given";
      const session = openSession(policy, config, { loss: lossSettings(config), referenceIsStart });
      run = newRun(
        {
          method: "dpo",
          model: policy,
          config,
          session,
          plan,
          folder,
          events: this.#events,
          signal,
          report: examples.report,
          digests: { rowsHash: hashPairs(examples.rows), ...(held ? { evalRowsHash: hashPairs(held.rows) } : {}) },
          reference,
          ...(packing ? { packing } : {}),
        },
        loggers,
      );
      await announce(run);
      await watchRun(run, watch);
      const shown = await sampleBefore(run, dataset, samples ?? (folder ? 2 : 0));
      if (config.gradientAccumulation > 1 && config.lossType.some((loss) => loss.startsWith("aot"))) {
        run.warn(
          "aot losses sort each micro-batch: with gradientAccumulation they differ from the large batch, as in TRL",
        );
      }

      const frozen = ref ?? start.frozenCopy();
      let other: NativeSession | undefined;
      const scorer = () => {
        // Before the first step the policy is its own start: no second workspace is needed.
        if (referenceIsStart && config.precomputeRefLogps) return session;
        other ??= openSession(frozen, config);
        return other;
      };
      const precomputed = config.precomputeRefLogps
        ? await referenceLogps(run, "train", frozen, examples.rows, scorer)
        : undefined;
      if (precomputed) run.referenceMean = meanOf(precomputed);
      const heldReference = held && (await referenceLogps(run, "eval", frozen, held.rows, scorer));
      if (precomputed) await other?.release();
      await resumeRun(run);
      beginSteps(run);
      // A run that was stopped between a step and its evaluation.
      if (held && heldReference && evaluationIsDue(run)) await aside(run, evaluate, held, heldReference);

      for (let step = run.doneSteps + 1; step <= plan.totalSteps; step++) {
        const { microBatches, epochsDone } = plan.step(step);
        const inStep = microBatches.flatMap((rows) => Array.from(rows, (row) => examples.rows[row]!));
        const chosenTokens = inStep.reduce((sum, { chosen }) => sum + predictedTokens(chosen), 0);
        await makeStep(run, { step, epoch: epochsDone, learningRate: rate(step - 1) }, async () => {
          let loss = 0;
          for (const rows of microBatches) {
            throwIfAborted(signal);
            const inBatch = Array.from(rows, (row) => examples.rows[row]!);
            const batch = nativePairs(inBatch, config.sharedPrompt);
            const logps = precomputed ? pick(precomputed, rows) : split(await scorer().sequenceLogps(batch));
            const { chosen, rejected } = logps;
            loss += await session.accumulateDpo(batch, chosen, rejected, inStep.length, chosenTokens, true);
          }
          return loss;
        });
        await sampleDuring(run, shown, step);
        if (held && heldReference && evaluationIsDue(run)) await aside(run, evaluate, held, heldReference);
        await saveIfDue(run);
      }
      if (!precomputed) await other?.release();
      const metrics = await finishRun(run, await sampleAfter(run, shown));
      this.#events.close();
      const { history, doneSteps: steps, report } = run;
      return { model: policy, metrics, history, steps, reference, outputDir: folder?.path, report };
    } catch (error) {
      return failRun(run, error, signal).catch((typed) => {
        this.#events.close(typed);
        throw typed;
      });
    }
  }
}

/** What the policy's own start is. A new adapter changes nothing yet, so that its start is the weights under it. */
function startOf(policy: Mistral, config: DpoConfig): Reference {
  if (config.lora) return "adapter-off";
  return policy.adapter ? "start-adapter" : "start";
}

/** The core's names of the loss options. */
function lossSettings(config: DpoConfig): Record<string, unknown> {
  return {
    beta: config.beta,
    lossType: config.lossType,
    lossWeights: config.lossWeights,
    labelSmoothing: config.labelSmoothing,
    fDivergenceType: config.fDivergence,
    ...(config.fDivergence === "alpha_divergence" ? { fAlphaDivergenceCoef: config.fAlpha } : {}),
    ...(config.lossType.includes("discopop") ? { discopopTau: config.discopopTau } : {}),
    ...(config.lossType.includes("ipo") ? { ipoNormalisation: config.ipoNormalisation } : {}),
  };
}

/** Pairs whose tokens fit packLength together, a shared prompt counted once; nothing when each stands alone. */
function packPairs(pairs: readonly EncodedPair[], config: DpoConfig) {
  if (!config.packing) return {};
  const tokens = pairs.map(
    ({ chosen, rejected, promptLength }) =>
      chosen.ids.length + rejected.ids.length - (config.sharedPrompt ? promptLength : 0),
  );
  const { packs, fillRate } = pack(tokens, config.packLength ?? 2 * config.maxLength, config.packingWindow);
  return { packs, packing: { packs: packs.length, fillRate } };
}

async function evaluate(run: Run, held: Examples<EncodedPair>, reference: ReferenceLogps): Promise<void> {
  const { batchSize: size, sharedPrompt } = run.config as DpoConfig;
  const chosenTokens = held.rows.reduce((sum, { chosen }) => sum + predictedTokens(chosen), 0);
  for (let start = 0; start < held.rows.length; start += size) {
    poll(run);
    const batch = nativePairs(held.rows.slice(start, start + size), sharedPrompt);
    const chosen = reference.chosen.slice(start, start + size);
    const rejected = reference.rejected.slice(start, start + size);
    await run.session.accumulateDpo(batch, chosen, rejected, held.rows.length, chosenTokens, false);
  }
  await logEvaluation(run);
}
