/**
 * The course of a run on pairs whose loss needs no reference: ORPO, CPO and SimPO. The trainers differ in their
 * configuration and in what the core is told.
 */
import { type DatasetInput, pairDataset } from "../data";
import { throwIfAborted } from "../errors";
import type { Mistral } from "../model/mistral";
import type { EncodedPair } from "../model/tokenizer";
import { planBatches } from "./batches";
import type { EventStream } from "./events";
import { answerTokens, type Examples, hashPairs, pairExamples, predictedTokens } from "./examples";
import { aside, evaluationIsDue, logEvaluation } from "./log";
import { largestBatch, sizeOfPair } from "./memory";
import { nativePairs } from "./native-batch";
import { packPairs } from "./packing";
import type { CpoConfig, OrpoConfig, SimpoConfig } from "./preference-config";
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
import { rowsToTrain } from "./trainer-options";
import { watchRun } from "./watch/watch-run";

/** What a trainer on pairs without a reference is made of, besides its options. */
export interface PolicyPairsInput extends TrainerInput {
  /** Trained in place. */
  policy: Mistral;
  /** A path, rows in memory, or a data set of preference pairs; `fit(pairs)` takes it as well. */
  dataset?: DatasetInput;
}

/** A method's configuration, and how the core computes it. */
export type PolicyLoss =
  | { method: "orpo"; config: OrpoConfig }
  | { method: "cpo"; config: CpoConfig }
  | { method: "simpo"; config: SimpoConfig };

/** Runs the whole training. */
export async function fitPolicyPairs(
  loss: PolicyLoss,
  input: PolicyPairsInput,
  events: EventStream,
): Promise<TrainResult> {
  const { method, config } = loss;
  const { signal, overwrite, samples, loggers, watch, evalDataset } = input;
  let run: Run | undefined;
  try {
    throwIfAborted(signal);
    const rows = rowsToTrain(input.dataset);
    const { model: policy } = await prepareModel(input.policy, config);
    const { tokenizer } = policy;
    const { onBadRow } = config;
    const dataset = pairDataset(rows, { onBadRow });
    const encoding = { ...config, ...(signal ? { signal } : {}) };
    const examples = await pairExamples(dataset, tokenizer, encoding);
    const held = evalDataset && (await pairExamples(pairDataset(evalDataset, { onBadRow }), tokenizer, encoding));
    const { packs, packing } = packPairs(examples.rows, config);
    const plan = planBatches({ ...config, rows: examples.rows.length, packs });
    const rate = scheduleOf(config, plan.totalSteps);
    // Only now: data that is refused must not leave a folder that looks like a run.
    const folder = await openFolder(method, policy, config, overwrite);
    const session = openSession(policy, config, { loss: lossSettings(loss), signal });
    run = newRun(
      {
        method,
        model: policy,
        config,
        session,
        plan,
        folder,
        events,
        signal,
        report: examples.report,
        largest: () =>
          largestBatch(plan, examples.rows, held ? [{ rows: held.rows, size: config.batchSize }] : [], (pair) =>
            sizeOfPair(pair, layoutOf(run!)),
          ),
        digests: { rowsHash: hashPairs(examples), ...(held ? { evalRowsHash: hashPairs(held) } : {}) },
        ...(packing ? { packing } : {}),
      },
      loggers,
    );
    await announce(run);
    await watchRun(run, watch);
    const shown = await sampleBefore(run, dataset, samples ?? (folder ? 2 : 0));
    await resumeRun(run);
    beginSteps(run);
    // A run that was stopped between a step and its evaluation.
    if (held && evaluationIsDue(run)) await aside(run, evaluate, held);

    const layout = layoutOf(run);
    for (let step = run.doneSteps + 1; step <= plan.totalSteps; step++) {
      const { microBatches, epochsDone } = plan.step(step);
      const batches = microBatches.map((rows) => Array.from(rows, (row) => examples.rows[row]!));
      const inStep = batches.flat();
      const chosenTokens = learntTokens(run, inStep);
      const supervisedTokens = answerTokens(inStep);
      await makeStep(run, { step, epoch: epochsDone, learningRate: rate(step - 1), supervisedTokens }, async () => {
        let loss = 0;
        for (const batch of batches) {
          throwIfAborted(signal);
          const packed = counted(run!, nativePairs(batch, layout));
          loss += await session.accumulatePairs(packed, inStep.length, chosenTokens, true);
        }
        return loss;
      });
      await sampleDuring(run, shown, step);
      if (held && evaluationIsDue(run)) await aside(run, evaluate, held);
      await saveIfDue(run);
    }
    const result = await finishRun(run, await sampleAfter(run, shown));
    events.close();
    return result;
  } catch (error) {
    return failRun(run, error, signal).catch((typed) => {
      events.close(typed);
      throw typed;
    });
  }
}

/** The core's names: SimPO is CPO's loss simpo without the cross-entropy. */
function lossSettings({ method, config }: PolicyLoss): Record<string, unknown> {
  const { beta } = config;
  if (method === "orpo") return { method, beta };
  const { labelSmoothing, simpoGamma, alpha } = config;
  const shared = { method: "cpo", beta, labelSmoothing, simpoGamma, alpha };
  if (method === "simpo") return { ...shared, lossType: "simpo", cpoAlpha: 0 };
  return { ...shared, lossType: config.lossType, cpoAlpha: config.cpoAlpha };
}

function layoutOf(run: Run) {
  const { sharedPrompt } = run.config as OrpoConfig;
  return { sharedPrompt, chosenPrompts: run.method === "orpo" };
}

/** Tokens that the cross-entropy is the mean of: those of the chosen answers, for ORPO of the prompts too, as in TRL. */
function learntTokens(run: Run, pairs: readonly EncodedPair[]): number {
  const { chosenPrompts } = layoutOf(run);
  return pairs.reduce((sum, { chosen }) => sum + (chosenPrompts ? chosen.ids.length - 1 : predictedTokens(chosen)), 0);
}

async function evaluate(run: Run, held: Examples<EncodedPair>): Promise<void> {
  const { batchSize } = run.config;
  const chosenTokens = learntTokens(run, held.rows);
  for (let start = 0; start < held.rows.length; start += batchSize) {
    poll(run);
    const batch = nativePairs(held.rows.slice(start, start + batchSize), layoutOf(run));
    await run.session.accumulatePairs(batch, held.rows.length, chosenTokens, false);
  }
  await logEvaluation(run);
}
