/**
 * What all trainers do alike: opening a run, one optimizer step, logging, saving, finishing. Plain functions over one
 * record; the course of a run is written out in each trainer's `fit`.
 */
import type { NativeCheckpoints, NativeSession } from "../../bindings/node/index";
import {
  AbortedError,
  aborted,
  errorFromCode,
  fromNative,
  IoError,
  ModelError,
  OutOfMemoryError,
  TrainingError,
  throwIfAborted,
} from "../errors";
import { beginTraining, endTraining, refuseInTraining } from "../model/in-training";
import type { Mistral } from "../model/mistral";
import { chooseDevice } from "../native/devices";
import { native, packageVersion } from "../native/load";
import { type RunReportData, type RunReportSample, renderRunReport } from "../report";
import type { BatchPlan } from "./batches";
import { nothingSaved, openCheckpoints, parseMetrics, type Saving, saveStopped, settleSaving } from "./checkpoint";
import type { DpoConfig, SftConfig } from "./config";
import type { EventStream, Metrics } from "./events";
import type { ExampleReport } from "./examples";
import { Guards, StepWatch } from "./guards";
import { logSteps, withSpeed } from "./log";
import { AttachedLoggers } from "./loggers/attached";
import type { Logger } from "./loggers/logger";
import { tensorBoard } from "./loggers/tensorboard";
import { type BatchSize, reserveMemory } from "./memory";
import { type Method, methods } from "./methods";
import type { CpoConfig, KtoConfig, OrpoConfig, SimpoConfig } from "./preference-config";
import { type MetricsLine, RunFolder, type SpeedLine } from "./run-folder";
import { gemmPeak } from "./speed";
import type { Reference, TrainResult } from "./trainer";

export { resumeRun, saveIfDue } from "./checkpoint";

/** A configuration of any trainer. */
export type TrainConfig = SftConfig | DpoConfig | KtoConfig | OrpoConfig | CpoConfig | SimpoConfig;

/** What a run needs while it goes. */
export interface Run {
  method: Method;
  model: Mistral;
  config: TrainConfig;
  session: NativeSession;
  plan: BatchPlan;
  folder: RunFolder | undefined;
  events: EventStream;
  signal: AbortSignal | undefined;
  /** Hashes of what is trained on: encoded rows, held-out rows. */
  digests: Record<string, string>;
  /** The most that a micro-batch has. */
  largest(): BatchSize;
  packing: { packs: number; fillRate: number } | undefined;
  report: ExampleReport;
  /** Lines of metrics.jsonl so far. */
  history: MetricsLine[];
  /** Lines of speed.jsonl of this process. */
  speed: SpeedLine[];
  /** Steps since the last log. */
  pending: Metrics[];
  warnings: string[];
  guards: Guards;
  watch: StepWatch;
  /** Mean of the reference's log-probs, once they are computed. */
  referenceMean: number | undefined;
  /** The checkpoint to go on from. */
  found: NativeCheckpoints | undefined;
  saving: Saving;
  loggers: AttachedLoggers;
  /** Of a preference run. */
  reference: Reference | undefined;
  startedAt: number;
  loggedAt: number;
  loggedTokens: number;
  /** Tokens of all steps done. */
  tokens: number;
  /** Floating-point operations of the steps since the last log. */
  flops: number;
  /** Operations a second of matrix products on this machine, where it was measured. */
  peak: number | undefined;
  doneSteps: number;
  /** What was done when this process began its first step; not 0 when the run is resumed. */
  before: { steps: number; tokens: number };
  /** The step that was evaluated last. */
  evaluated: number;
  /** The reference, where it follows the policy (TR-DPO), and the step after which it did so last. */
  following: { model: Mistral; step: number } | undefined;
  /** Tells the user something, now and in the report. */
  warn(message: string): void;
}

/**
 * The model as it begins and as it is trained: with the template of the run (samples and the saved folder speak it too),
 * under a new adapter where the options ask for one. Weights that cannot be trained are refused before any work is done
 * on the data.
 */
export async function prepareModel(given: Mistral, config: TrainConfig): Promise<{ start: Mistral; model: Mistral }> {
  // "auto" is where the model is.
  const placed = config.device === "auto" ? given : given.on(await chooseDevice(config.device));
  const start = placed.withTemplate(config.template);
  const model = config.lora ? await start.withLora({ ...config.lora, seed: config.seed }) : start;
  refuseInTraining(model.native, model.source, "trained by another run");
  if (model.storage === "float32" || model.adapter) return { start, model };
  throw new ModelError("ZA_MODEL_FROZEN", `the weights are kept as ${model.storage}, which cannot be trained`, {
    place: { file: model.source },
    remedy: "Train an adapter over them (lora: { rank: 16 }), or load the model as float32, without quantization.",
  });
}

/** A run at its beginning. */
export function newRun(
  parts: Pick<
    Run,
    | "method"
    | "model"
    | "config"
    | "session"
    | "plan"
    | "folder"
    | "events"
    | "signal"
    | "report"
    | "digests"
    | "largest"
  > &
    Partial<Pick<Run, "packing" | "reference">>,
  loggers: readonly Logger[] = [],
): Run {
  const now = performance.now();
  const warnings: string[] = [];
  const warn = (message: string) => {
    warnings.push(message);
    parts.events.push({ type: "warning", message });
  };
  const builtIn = parts.config.logTo.map((name) => builtInLoggers[name]());
  const attached = new AttachedLoggers([...builtIn, ...loggers], warn);
  try {
    // Behind all that may fail: only a run that is there says that it has ended.
    beginTraining(parts.model.native, parts.model.source);
  } catch (error) {
    void parts.folder?.close();
    throw error;
  }
  return {
    packing: undefined,
    loggers: attached,
    reference: undefined,
    ...parts,
    history: [],
    speed: [],
    pending: [],
    warnings,
    guards: new Guards(parts.config),
    watch: new StepWatch(parts.config.stepTimeoutSeconds, warn),
    referenceMean: undefined,
    found: undefined,
    saving: nothingSaved(),
    startedAt: now,
    loggedAt: now,
    loggedTokens: 0,
    tokens: 0,
    flops: 0,
    peak: undefined,
    doneSteps: 0,
    before: { steps: 0, tokens: 0 },
    evaluated: 0,
    following: undefined,
    warn,
  };
}

/** Loggers that `logTo` names. */
const builtInLoggers = { tensorboard: () => tensorBoard() } as const;

/**
 * Says what is about to happen: the start event, and warnings that follow from the data and from what was saved. A run
 * that may not go on from there, or has no room, is refused here.
 */
export async function announce(run: Run): Promise<void> {
  const { method, plan, model, report, packing, reference } = run;
  // An adapter's checkpoint does not hold the base: it must be the same one.
  if (model.adapter) run.digests.baseHash = await model.native.fingerprint();
  const warnings = await openCheckpoints(run);
  run.peak = await gemmPeak(run.config, model.device).catch((error) => {
    if (!(error instanceof OutOfMemoryError)) throw error;
    // The plan that follows tells what would fit, and the run needs no peak.
    warnings.push(`the speed of products was not measured: ${error.problem}`);
    return undefined;
  });
  const memory = await reserveMemory(run);
  await run.folder?.writeConfig(configRecord(run));
  run.events.push({
    type: "start",
    method,
    totalSteps: plan.totalSteps,
    doneSteps: run.found?.step ?? 0,
    rows: report.kept,
    ...(report.answers === undefined ? {} : { answers: report.answers }),
    tokens: report.tokens,
    supervisedTokens: report.supervisedTokens,
    ...(model.adapter ? { adapter: { parameters: model.trainableParameters, frozen: model.parameters } } : {}),
    ...(packing ? { packing } : {}),
    ...(reference ? { reference } : {}),
    device: { id: model.device.id, name: model.device.name, ...(memory ? { memory } : {}) },
    format: report.description,
  });
  warnAboutData(run);
  for (const warning of warnings) run.warn(warning);
}

/** What config.json says; how the run was resumed is no part of what it is. */
function configRecord({ method, model, config }: Pick<Run, "method" | "model" | "config">): Record<string, unknown> {
  const { resume, resumeForce, ...rest } = config;
  return { method, model: model.source, ...rest };
}

/** The folder of the run, with its resolved configuration; undefined when none was asked for. */
export async function openFolder(
  method: Run["method"],
  model: Mistral,
  config: TrainConfig,
  overwrite: boolean | undefined,
): Promise<RunFolder | undefined> {
  if (config.outputDir === null) return undefined;
  const record = configRecord({ method, model, config });
  return RunFolder.open(config.outputDir, record, { resume: config.resume, overwrite: overwrite ?? false });
}

/** The first step comes now: the clock runs, and loggers are told where the run begins. */
export function beginSteps(run: Run): void {
  run.startedAt = run.loggedAt = performance.now();
  run.flops = 0;
  run.before = { steps: run.doneSteps, tokens: run.tokens };
  run.loggers.start({
    method: run.method,
    model: run.model.source,
    config: { ...run.config },
    outputDir: run.folder?.path,
    totalSteps: run.plan.totalSteps,
    doneSteps: run.doneSteps,
  });
}

/**
 * A session on the model; `loss` makes it one for preferences: the core's method and constants. `signal` ends what it computes
 * within a layer, not only between two batches.
 */
export function openSession(
  model: Mistral,
  config: TrainConfig,
  options: { loss?: Record<string, unknown>; referenceIsStart?: boolean; signal?: AbortSignal | undefined } = {},
): NativeSession {
  if (config.threads !== null) native().setThreads(config.threads);
  const { maxLength, precision, recompute, optimizer, seed } = config;
  const { kind, index } = model.device;
  const settings = {
    card: kind === "cuda" ? index : null,
    precision,
    recompute,
    // A card wants large products. On the CPU small chunks cost little time without a gradient of the head, and save fifty
    // megabytes at 50 000 tokens.
    headChunk: kind === "cuda" ? 1024 : model.adapter ? 64 : 256,
    maxLength,
    referenceIsStart: options.referenceIsStart ?? false,
    optimizer,
    neftuneNoiseAlpha: "neftuneNoiseAlpha" in config ? config.neftuneNoiseAlpha : null,
    seed,
  };
  // A signal that outlives many runs holds this flag alone.
  const abort = new (native().NativeAbort)();
  if (options.signal?.aborted) abort.abort();
  else options.signal?.addEventListener("abort", () => abort.abort(), { once: true });
  return new (native().NativeSession)(
    model.native,
    JSON.stringify(settings),
    options.loss ? JSON.stringify(options.loss) : undefined,
    abort,
  );
}

/** The learning rate of each step, counted from 0. */
export function scheduleOf(config: TrainConfig, totalSteps: number): (step: number) => number {
  const { lrScheduler, learningRate, warmupSteps, warmupRatio } = config;
  const { minLr, minLrRate, lrDecaySteps, lrDecayType, lrWarmupType, lrPower } = config;
  const shape = {
    minLr,
    minLrRate,
    decaySteps: lrDecaySteps,
    decayType: lrDecayType,
    warmupType: lrWarmupType,
    power: lrPower,
  };
  const schedule = new (native().NativeSchedule)(
    lrScheduler,
    learningRate,
    warmupSteps,
    warmupRatio,
    totalSteps,
    JSON.stringify(shape),
  );
  return (step) => schedule.rate(step);
}

/** One optimizer step. */
export interface StepFacts {
  /** 1-based. */
  step: number;
  /** Passes over the data done after it. */
  epoch: number;
  learningRate: number;
  /** Answers' tokens (with lossOn "all" every one) that the loss of the step sees. */
  supervisedTokens: number;
}

/**
 * Makes a step: `accumulate` adds its micro-batches and gives their loss, then the weights are clipped and updated. An
 * update that would do harm is skipped. Logs when it is time, and before too many skipped updates end the run.
 *
 * @throws TrainingError `ZA_TRAIN_NOT_FINITE`
 */
export async function makeStep(run: Run, facts: StepFacts, accumulate: () => Promise<number>): Promise<void> {
  const { step } = facts;
  const { metrics, end } = await run.watch.time(step, () => updateOrSkip(run, facts, accumulate));
  run.pending.push({ ...metrics, supervised_tokens: facts.supervisedTokens });
  run.tokens = metrics.num_tokens!;
  run.doneSteps = step;
  const { totalSteps } = run.plan;
  if (end || step === 1 || step % run.config.logSteps === 0 || step === totalSteps) await logSteps(run, facts);
  if (end) throw end;
}

/** Codes of a loss or gradient that is not finite. */
const notFinite = ["ZA_TRAIN_NOT_FINITE", "ZA_NOT_FINITE"];

/** The numbers of an update that was made or skipped; `end` when that one was one too many. */
async function updateOrSkip(
  run: Run,
  facts: StepFacts,
  accumulate: () => Promise<number>,
): Promise<{ metrics: Metrics; end?: TrainingError | undefined }> {
  const { config, guards, session } = run;
  const update = {
    learningRate: facts.learningRate,
    beta1: config.adamBeta1,
    beta2: config.adamBeta2,
    epsilon: config.adamEpsilon,
    weightDecay: config.weightDecay,
    ...(config.maxGradNorm === null ? {} : { maxGradNorm: config.maxGradNorm }),
  };
  let reason: string;
  let loss = Number.NaN;
  let gradNorm = Number.NaN;
  try {
    loss = await accumulate();
    if (guards.watchesOutliers) gradNorm = await session.gradNorm();
    const high = guards.judge(loss, gradNorm);
    if (high === undefined) {
      await settleSaving(run);
      const metrics = parseMetrics(await session.apply(update, facts.epoch));
      guards.made();
      return { metrics };
    }
    reason = high;
  } catch (error) {
    const typed = fromNative(error);
    if (!notFinite.includes(typed.code)) throw error;
    reason = typed.problem;
  }
  await session.discard();
  run.warn(`step ${facts.step}: the update is skipped: ${reason}`);
  const { step, epoch, learningRate } = facts;
  const skipped = { skipped_updates: 1, skipped_loss: loss, skipped_grad_norm: gradNorm };
  const metrics = { step, epoch, learning_rate: learningRate, num_tokens: run.tokens, ...skipped };
  return { metrics, end: guards.skipped(step, reason) };
}

/** Saves the model and the report, says that the run is over, and gives what came of it. */
export async function finishRun(run: Run, samples: readonly RunReportSample[]): Promise<TrainResult> {
  const seconds = (performance.now() - run.startedAt) / 1000;
  const last = run.history.findLast((line) => "loss" in line) ?? { step: run.doneSteps };
  const tokens = run.tokens - run.before.tokens;
  const { folder, model, method, config, report } = run;
  await settleSaving(run);
  refuseUntrained(run);
  await run.session.release();
  endTraining(model.native);
  await run.loggers.end();
  const { skipped } = run.guards.state;
  if (skipped > 0) run.warn(`${plural(skipped, "update")} skipped in ${run.doneSteps} steps`);
  if (folder) {
    if (model.adapter) await folder.saveFolder("adapter", (path) => model.saveAdapter(path));
    else await folder.saveModel((path) => model.save(path));
    await folder.writeReport(
      renderRunReport({
        title: `${methods[method].title} of ${model.source}`,
        method,
        model: model.source,
        metrics: withSpeed(run.history, run.speed),
        summary: { steps: run.doneSteps, seconds, tokens },
        config,
        data: { ...report, ...factsOf(run) },
        samples,
        warnings: run.warnings,
        versions: { "zephyr-align": packageVersion(), node: process.versions.node },
        createdAt: new Date().toISOString(),
      }),
    );
    await folder.close();
  }
  run.events.push({ type: "end", steps: run.doneSteps, seconds, tokens, metrics: last });
  const { history, doneSteps: steps, reference } = run;
  const outputDir = folder?.path;
  return { model, metrics: last, history, steps, ...(reference ? { reference } : {}), outputDir, report };
}

/** What the pages say of a run beside its data. */
export function factsOf({ packing, reference }: Run): Pick<RunReportData, "packing" | "reference"> {
  return { ...(packing ? { packing } : {}), ...(reference ? { reference } : {}) };
}

/** A run in which no update was made has trained nothing, however short it was. */
function refuseUntrained({ guards, plan }: Run): void {
  if (guards.state.skipped < plan.totalSteps) return;
  throw new TrainingError("ZA_TRAIN_NOT_FINITE", `all ${plan.totalSteps} updates were skipped`, {
    remedy: "Check the model's weights and the rows, or lower learningRate.",
  });
}

/**
 * Lets go of everything after a failure; a run that was stopped is saved first. Turns what was thrown into a typed
 * error, which names the checkpoint to go on from.
 */
export async function failRun(run: Run | undefined, thrown: unknown, signal: AbortSignal | undefined): Promise<never> {
  let error = signal?.aborted && !(thrown instanceof AbortedError) ? aborted(signal.reason) : fromNative(thrown);
  // A step that hangs holds the core: nothing can be asked of it any more.
  const hangs = error.code === "ZA_TRAIN_STALLED";
  try {
    if (run && !hangs) {
      if (error instanceof AbortedError) error = await saveStopped(run, error);
      else await run.saving.inFlight;
    }
  } catch (failure) {
    error = fromNative(failure);
  }
  if (run && !hangs) {
    await run.session.release().catch(() => undefined);
    endTraining(run.model.native);
  }
  await run?.loggers.end();
  await run?.folder?.close().catch(() => undefined);
  if (
    run?.folder &&
    !beforeSteps.includes(error.code) &&
    (error instanceof TrainingError || error instanceof IoError)
  ) {
    const { savedPath } = run.saving;
    const where = savedPath ? `the last checkpoint is ${savedPath}` : "no checkpoint was saved yet";
    throw errorFromCode(error.code, error.problem, {
      ...(error.place ? { place: error.place } : {}),
      remedy: `${error.remedy ?? ""} (${where})`.trim(),
      cause: error,
    });
  }
  throw error;
}

/** Refusals before the first step, to which a checkpoint is no answer. */
const beforeSteps = ["ZA_CHECKPOINT_BROKEN", "ZA_DISK_SPACE"];

function plural(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? "" : "s"}`;
}

/** Warnings that follow from the data. */
function warnAboutData(run: Run): void {
  const { report } = run;
  if (report.skipped > 0) {
    const first = report.skippedRows[0];
    run.warn(`${plural(report.skipped, "row")} left out; the first: ${first?.problem ?? "unknown"}`);
  }
  if (report.cutRows > 0) {
    run.warn(`${plural(report.cutRows, "row")} cut to maxLength ${run.config.maxLength}: ${report.cutTokens} tokens`);
  }
  if (report.duplicates > 0) run.warn(`${plural(report.duplicates, "row")} equal to an earlier one (kept)`);
  if (report.equalPairs > 0) run.warn(`${plural(report.equalPairs, "pair")} with equal answers (kept, margin 0)`);
}

/** Polled between micro-batches. */
export function poll(run: Run): void {
  throwIfAborted(run.signal);
}
