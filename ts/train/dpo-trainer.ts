import { type DatasetInput, pairDataset } from "../data";
import { throwIfAborted } from "../errors";
import type { Mistral } from "../model/mistral";
import type { EncodedPair } from "../model/tokenizer";
import { planBatches } from "./batches";
import { type DpoConfig, type DpoConfigInput, dpoConfig } from "./config";
import { EventStream, type TrainerEvent } from "./events";
import { answerTokens, type Examples, hashPairs, pairExamples, predictedTokens } from "./examples";
import { followPolicy, referenceModel, startOf } from "./follow";
import { aside, evaluationIsDue, logEvaluation } from "./log";
import { largestBatch, scoredBeside, sizeOfPair } from "./memory";
import { nativePairs } from "./native-batch";
import { packPairs } from "./packing";
import {
  FrozenReference,
  GivenReference,
  meanOf,
  pick,
  type ReferenceLogps,
  scoredPairs,
  scoreNow,
  split,
} from "./reference";
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
import { configOf, rowsToTrain } from "./trainer-options";
import { watchRun } from "./watch/watch-run";

/** What a {@link DpoTrainer} is made of: a policy, pairs, and any option of {@link DpoConfigInput}. */
export interface DpoTrainerOptions extends DpoConfigInput, TrainerInput {
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
  readonly #options: Omit<DpoTrainerOptions, "ref">;
  readonly #given: GivenReference;
  readonly #events = new EventStream();

  /** @throws ConfigError with all problems of the configuration at once, before any work */
  constructor(options: DpoTrainerOptions) {
    this.config = configOf(dpoConfig, options, ["policy"], ["policy", "ref"]);
    const { ref, ...rest } = options;
    this.#options = rest;
    this.#given = new GivenReference(ref);
  }

  /** The events of the run; iterating does not start it. */
  [Symbol.asyncIterator](): AsyncIterator<TrainerEvent> {
    return this.#events[Symbol.asyncIterator]();
  }

  /** Runs the whole training. */
  async fit(pairs: DatasetInput | undefined = this.#options.dataset): Promise<TrainResult> {
    const { config } = this;
    const { signal, overwrite, samples, loggers, watch } = this.#options;
    const given = this.#given;
    let run: Run | undefined;
    try {
      throwIfAborted(signal);
      const rows = rowsToTrain(pairs);
      const { start, model: policy } = await prepareModel(this.#options.policy, config);
      const { tokenizer } = policy;
      const { onBadRow } = config;
      const dataset = pairDataset(rows, { onBadRow });
      const encoding = { ...config, ...(signal ? { signal } : {}) };
      const examples = await pairExamples(dataset, tokenizer, encoding);
      const { evalDataset } = this.#options;
      const held = evalDataset && (await pairExamples(pairDataset(evalDataset, { onBadRow }), tokenizer, encoding));
      const { packs, packing } = packPairs(examples.rows, config);
      const plan = planBatches({ ...config, rows: examples.rows.length, packs });
      const rate = scheduleOf(config, plan.totalSteps);
      // Only now: data that is refused must not leave a folder that looks like a run.
      const folder = await openFolder("dpo", policy, config, overwrite);
      const referenceIsStart = given.model?.native.sharesWeights(start.native) ?? true;
      const reference = referenceIsStart ? startOf(policy, config) : "given";
      const rowsHash = hashPairs(examples);
      const evalRowsHash = held && hashPairs(held);
      const session = openSession(policy, config, { loss: lossSettings(config), referenceIsStart, signal });
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
          largest: () =>
            largestBatch(plan, examples.rows, scoredBeside(examples.rows, held ? held.rows : [], config), (pair) =>
              sizeOfPair(pair, config),
            ),
          digests: { rowsHash, ...(evalRowsHash === undefined ? {} : { evalRowsHash }) },
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

      const frozen = new FrozenReference(run, referenceModel(start, given.model, config), referenceIsStart);
      const precomputed = config.precomputeRefLogps
        ? split(await frozen.kept("train", scoredPairs(examples.rows, rowsHash, config)))
        : undefined;
      if (precomputed) run.referenceMean = meanOf(precomputed);
      const heldScored = held && scoredPairs(held.rows, evalRowsHash!, config);
      const heldReference =
        heldScored && !config.syncRefModel ? split(await frozen.kept("eval", heldScored)) : undefined;
      const evaluateHeld = async (run: Run) => {
        if (!held || !heldScored) return;
        await evaluate(run, held, heldReference ?? split(await scoreNow(run, heldScored, frozen.logps)));
      };
      if (precomputed) await frozen.release();
      if (precomputed || config.syncRefModel) given.letGo(this.#events);
      await resumeRun(run);
      beginSteps(run);
      // A run that was stopped between a step and what comes after it.
      await followPolicy(run);
      if (held && evaluationIsDue(run)) await aside(run, evaluateHeld);

      for (let step = run.doneSteps + 1; step <= plan.totalSteps; step++) {
        const { microBatches, epochsDone } = plan.step(step);
        const inStep = microBatches.flatMap((rows) => Array.from(rows, (row) => examples.rows[row]!));
        const chosenTokens = inStep.reduce((sum, { chosen }) => sum + predictedTokens(chosen), 0);
        const supervisedTokens = answerTokens(inStep);
        await makeStep(run, { step, epoch: epochsDone, learningRate: rate(step - 1), supervisedTokens }, async () => {
          let loss = 0;
          for (const rows of microBatches) {
            throwIfAborted(signal);
            const inBatch = Array.from(rows, (row) => examples.rows[row]!);
            const batch = counted(run!, nativePairs(inBatch, config));
            const logps = precomputed ? pick(precomputed, rows) : split(await frozen.logps(batch));
            const { chosen, rejected } = logps;
            loss += await session.accumulateDpo(batch, chosen, rejected, inStep.length, chosenTokens, true);
          }
          return loss;
        });
        await sampleDuring(run, shown, step);
        await followPolicy(run);
        if (held && evaluationIsDue(run)) await aside(run, evaluateHeld);
        await saveIfDue(run);
      }
      await frozen.release();
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

/** The core's names of the loss options. */
function lossSettings(config: DpoConfig): Record<string, unknown> {
  return {
    method: "dpo",
    beta: config.beta,
    lossType: config.lossType,
    lossWeights: config.lossWeights,
    labelSmoothing: config.labelSmoothing,
    fDivergenceType: config.fDivergence,
    ...(config.fDivergence === "alpha_divergence" ? { fAlphaDivergenceCoef: config.fAlpha } : {}),
    ...(config.lossType.includes("discopop") ? { discopopTau: config.discopopTau } : {}),
    ...(config.lossType.includes("ipo") ? { ipoNormalisation: config.ipoNormalisation } : {}),
    useWeighting: config.useWeighting,
  };
}

async function evaluate(run: Run, held: Examples<EncodedPair>, reference: ReferenceLogps): Promise<void> {
  const config = run.config as DpoConfig;
  const { batchSize: size } = config;
  const chosenTokens = held.rows.reduce((sum, { chosen }) => sum + predictedTokens(chosen), 0);
  for (let start = 0; start < held.rows.length; start += size) {
    poll(run);
    const batch = nativePairs(held.rows.slice(start, start + size), config);
    const chosen = reference.chosen.slice(start, start + size);
    const rejected = reference.rejected.slice(start, start + size);
    await run.session.accumulateDpo(batch, chosen, rejected, held.rows.length, chosenTokens, false);
  }
  await logEvaluation(run);
}
