import type { NativeBatch } from "../../bindings/node/index";
import { type DatasetInput, unpairedDataset } from "../data";
import { throwIfAborted } from "../errors";
import type { Mistral } from "../model/mistral";
import type { EncodedRow } from "../model/tokenizer";
import { type BatchPlan, planBatches } from "./batches";
import { EventStream, type TrainerEvent } from "./events";
import { answerExamples, type EncodedAnswer, type Examples, predictedTokens } from "./examples";
import { followPolicy, referenceModel, startOf } from "./follow";
import { aside, evaluationIsDue, logEvaluation } from "./log";
import { largestBatch, scoredBeside, sizeOfRow } from "./memory";
import { nativeBatch } from "./native-batch";
import { type KtoConfig, type KtoConfigInput, ktoConfig } from "./preference-config";
import { FrozenReference, GivenReference, type Scored, scoreNow } from "./reference";
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
import { configOf, rowsToTrain } from "./trainer-options";
import { watchRun } from "./watch/watch-run";

/** What a {@link KtoTrainer} is made of: a policy, answers, and any option of {@link KtoConfigInput}. */
export interface KtoTrainerOptions extends KtoConfigInput, TrainerInput {
  /** Trained in place. */
  policy: Mistral;
  /** The frozen reference. @default the policy as it is when `fit` is called */
  ref?: Mistral;
  /** A path, rows in memory, or a data set: answers with a label, or preference pairs; `fit(answers)` takes it as well. */
  dataset?: DatasetInput;
}

/**
 * Kahneman-Tversky optimisation (KTO; Ethayarajh et al. 2024): single answers that are wanted or not, against a frozen
 * reference. Takes `{prompt, completion, label}` rows, and pairs, whose answers it takes one by one.
 *
 * Each answer is compared with an estimate of how far the policy is from the reference: the mean log-ratio of mismatched
 * prompts and answers (each prompt with the answer before it), over the whole optimizer step, so that accumulation equals
 * the large batch. TRL estimates it in each micro-batch, and needs its rows in a fixed order; here they may be shuffled.
 *
 * @example
 * const { model } = await new KtoTrainer({ policy, ref, beta: 0.1 }).fit("thumbs.jsonl");
 */
export class KtoTrainer implements AsyncIterable<TrainerEvent> {
  readonly config: KtoConfig;
  readonly #options: Omit<KtoTrainerOptions, "ref">;
  readonly #given: GivenReference;
  readonly #events = new EventStream();

  /** @throws ConfigError with all problems of the configuration at once, before any work */
  constructor(options: KtoTrainerOptions) {
    this.config = configOf(ktoConfig, options, ["policy"], ["policy", "ref"]);
    const { ref, ...rest } = options;
    this.#options = rest;
    this.#given = new GivenReference(ref);
  }

  /** The events of the run; iterating does not start it. */
  [Symbol.asyncIterator](): AsyncIterator<TrainerEvent> {
    return this.#events[Symbol.asyncIterator]();
  }

  /** Runs the whole training. */
  async fit(answers: DatasetInput | undefined = this.#options.dataset): Promise<TrainResult> {
    const { config } = this;
    const { signal, overwrite, samples, loggers, watch, evalDataset } = this.#options;
    const given = this.#given;
    let run: Run | undefined;
    try {
      throwIfAborted(signal);
      const rows = rowsToTrain(answers);
      const { start, model: policy } = await prepareModel(this.#options.policy, config);
      const { tokenizer } = policy;
      const { onBadRow } = config;
      const dataset = unpairedDataset(rows, { onBadRow });
      const encoding = { ...config, ...(signal ? { signal } : {}) };
      const examples = await answerExamples(dataset, tokenizer, encoding);
      const held =
        evalDataset && (await answerExamples(unpairedDataset(evalDataset, { onBadRow }), tokenizer, encoding));
      const plan = planBatches({ ...config, rows: examples.rows.length });
      const rate = scheduleOf(config, plan.totalSteps);
      // Only now: data that is refused must not leave a folder that looks like a run.
      const folder = await openFolder("kto", policy, config, overwrite);
      const referenceIsStart = given.model?.native.sharesWeights(start.native) ?? true;
      const reference = referenceIsStart ? startOf(policy, config) : "given";
      const { beta, lossType, desirableWeight, undesirableWeight } = config;
      const loss = { method: "kto", beta, lossType, desirableWeight, undesirableWeight };
      const session = openSession(policy, config, { loss, referenceIsStart, signal });
      run = newRun(
        {
          method: "kto",
          model: policy,
          config,
          session,
          plan,
          folder,
          events: this.#events,
          signal,
          report: examples.report,
          largest: () =>
            largestBatch(plan, examples.rows, scoredBeside(examples.rows, held ? held.rows : [], config), sizeOfRow),
          digests: { rowsHash: hashAnswers(examples), ...(held ? { evalRowsHash: hashAnswers(held) } : {}) },
          reference,
        },
        loggers,
      );
      await announce(run);
      await watchRun(run, watch);
      const shown = await sampleBefore(run, dataset, samples ?? (folder ? 2 : 0));
      warnAboutBalance(run, examples.rows);
      if (config.gradientAccumulation > 1 && lossType === "kto") {
        run.warn("the KL estimate is of the whole optimizer step; TRL estimates it in each micro-batch");
      }

      const frozen = new FrozenReference(run, referenceModel(start, given.model, config), referenceIsStart);
      const refBatch = config.refBatchSize ?? config.batchSize;
      const precomputed = config.precomputeRefLogps
        ? await frozen.kept("train", scoredRows(examples.rows, refBatch))
        : undefined;
      const klOfSteps =
        precomputed &&
        meansOfSteps(plan, await frozen.kept("mismatched", scoredRows(mismatchedOfAll(run, examples.rows), refBatch)));
      if (precomputed) run.referenceMean = mean(precomputed);
      const heldMismatched = held ? mismatched(held.rows, config) : [];
      const heldReference =
        held && precomputed
          ? {
              logps: await frozen.kept("eval", scoredRows(held.rows, refBatch)),
              kl: mean(await frozen.kept("evalMismatched", scoredRows(heldMismatched, refBatch))),
            }
          : undefined;
      if (precomputed) await frozen.release();
      if (precomputed || config.syncRefModel) given.letGo(this.#events);
      const evaluateHeld = async (run: Run) => {
        if (!held) return;
        const reference = heldReference ?? {
          logps: await scoreNow(run, batches(held.rows, refBatch), frozen.logps),
          kl: mean(await scoreNow(run, batches(heldMismatched, refBatch), frozen.logps)),
        };
        await evaluate(run, held.rows, heldMismatched, reference);
      };
      await resumeRun(run);
      beginSteps(run);
      // A run that was stopped between a step and what comes after it.
      await followPolicy(run);
      if (held && evaluationIsDue(run)) await aside(run, evaluateHeld);

      const policyLogps = (batch: NativeBatch) => session.sequenceLogps(batch);
      for (let step = run.doneSteps + 1; step <= plan.totalSteps; step++) {
        const { microBatches, epochsDone } = plan.step(step);
        const inStep = rowsOf(plan, step, examples.rows);
        const supervisedTokens = inStep.reduce((sum, row) => sum + predictedTokens(row), 0);
        await makeStep(run, { step, epoch: epochsDone, learningRate: rate(step - 1), supervisedTokens }, async () => {
          const pairs = batches(mismatched(inStep, config), config.batchSize);
          const there = klOfSteps?.[step - 1] ?? mean(await scoreNow(run!, pairs, frozen.logps));
          const kl = pairs.sequences.length > 0 ? mean(await scoreNow(run!, pairs, policyLogps)) - there : 0;
          let loss = 0;
          for (const rows of microBatches) {
            throwIfAborted(signal);
            const inBatch = Array.from(rows, (row) => examples.rows[row]!);
            const batch = counted(run!, nativeBatch(inBatch));
            const logps = precomputed ? Float64Array.from(rows, (row) => precomputed[row]!) : await frozen.logps(batch);
            loss += await session.accumulateKto(batch, labels(inBatch), logps, kl, inStep.length, true);
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

function rowsOf(plan: BatchPlan, step: number, rows: readonly EncodedAnswer[]): EncodedAnswer[] {
  return plan.step(step).microBatches.flatMap((batch) => Array.from(batch, (row) => rows[row]!));
}

/**
 * Each prompt with the answer before it (the first with the last), cut to maxLength at the end: TRL's rotation by one.
 * None where nothing is estimated.
 */
export function mismatched(
  answers: readonly EncodedAnswer[],
  { lossType, maxLength }: Pick<KtoConfig, "lossType" | "maxLength">,
): EncodedRow[] {
  if (lossType !== "kto") return [];
  return answers.map((answer, index) => {
    const { ids: other, promptLength: start } = answers.at(index - 1)!;
    const prompt = answer.ids.subarray(0, Math.min(answer.promptLength, maxLength - 1));
    const completion = other.subarray(start, start + maxLength - prompt.length);
    const ids = new Uint32Array(prompt.length + completion.length);
    ids.set(prompt);
    ids.set(completion, prompt.length);
    return { ids, supervised: new Uint8Array(ids.length).fill(1, prompt.length) };
  });
}

function labels(answers: readonly EncodedAnswer[]): Uint8Array {
  return Uint8Array.from(answers, ({ desirable }) => Number(desirable));
}

function mean(values: Float64Array): number {
  return values.length === 0 ? 0 : values.reduce((sum, value) => sum + value, 0) / values.length;
}

function hashAnswers({ rows }: Examples<EncodedAnswer>): string {
  // The label is part of what is learnt: it goes in as one more token.
  return hashRows(
    rows.flatMap((row) => [row, { ids: Uint32Array.of(Number(row.desirable)), supervised: labels([row]) }]),
  );
}

/** Sequences in batches of that many. */
function batches(sequences: readonly EncodedRow[], size: number): Omit<Scored, "hash"> {
  return { sequences, size, batch: (start, end) => nativeBatch(sequences.slice(start, end)) };
}

function scoredRows(rows: readonly EncodedRow[], size: number): Scored {
  return { ...batches(rows, size), hash: hashRows(rows) };
}

/** The mismatched answers of all steps, one after the other. */
function mismatchedOfAll({ plan, config }: Run, rows: readonly EncodedAnswer[]): EncodedRow[] {
  const steps = Array.from({ length: plan.totalSteps }, (_, index) => rowsOf(plan, index + 1, rows));
  return steps.flatMap((inStep) => mismatched(inStep, config as KtoConfig));
}

/** Mean over each step's mismatched answers; 0 where nothing is estimated. */
function meansOfSteps(plan: BatchPlan, sums: Float64Array): Float64Array {
  let start = 0;
  return Float64Array.from({ length: plan.totalSteps }, (_, index) => {
    if (sums.length === 0) return 0;
    const count = plan.step(index + 1).microBatches.reduce((sum, rows) => sum + rows.length, 0);
    start += count;
    return mean(sums.subarray(start - count, start));
  });
}

async function evaluate(
  run: Run,
  rows: readonly EncodedAnswer[],
  mismatched: readonly EncodedRow[],
  reference: { logps: Float64Array; kl: number },
): Promise<void> {
  const { batchSize } = run.config;
  const policyLogps = (batch: NativeBatch) => run.session.sequenceLogps(batch);
  const kl = mean(await scoreNow(run, batches(mismatched, batchSize), policyLogps)) - reference.kl;
  for (let start = 0; start < rows.length; start += batchSize) {
    poll(run);
    const answers = rows.slice(start, start + batchSize);
    const logps = reference.logps.slice(start, start + batchSize);
    await run.session.accumulateKto(nativeBatch(answers), labels(answers), logps, kl, rows.length, false);
  }
  await logEvaluation(run);
}

/** The paper (eq. 8) wants the two kinds, weighted, between 1 : 1 and 4 : 3; TRL says so too. */
function warnAboutBalance(run: Run, answers: readonly EncodedAnswer[]): void {
  const { desirableWeight, undesirableWeight } = run.config as KtoConfig;
  const wanted = answers.filter(({ desirable }) => desirable).length;
  const unwanted = answers.length - wanted;
  if (wanted === unwanted) return;
  const ratio = (wanted * desirableWeight) / Math.max(1, unwanted * undesirableWeight);
  if (unwanted > 0 && ratio >= 0.99 && ratio <= 1.34) return;
  const advice =
    wanted === 0 || unwanted === 0
      ? "KTO learns from answers of both kinds"
      : "the KTO paper wants desirableWeight × wanted to be 1 to 4/3 times undesirableWeight × unwanted";
  run.warn(`${wanted} wanted and ${unwanted} unwanted answers: ${advice}`);
}
