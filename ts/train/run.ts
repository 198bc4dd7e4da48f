/**
 * What both trainers do alike: opening a run, one optimizer step, logging, saving, finishing. Plain functions over one
 * record; the course of a run is written out in each trainer's `fit`.
 */
import { readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import type { NativeBatch, NativeSession } from "../../bindings/node/index";
import { AbortedError, aborted, ConfigError, fromNative, ModelError, TrainingError, throwIfAborted } from "../errors";
import type { Mistral } from "../model/mistral";
import type { EncodedPair, EncodedRow } from "../model/tokenizer";
import { native, packageVersion } from "../native/load";
import { type RunReportSample, renderRunReport } from "../report";
import type { BatchPlan } from "./batches";
import type { DpoConfig, SftConfig } from "./config";
import type { EventStream, Metrics } from "./events";
import type { ExampleReport } from "./examples";
import { type MetricsLine, RunFolder } from "./run-folder";
import type { Reference } from "./sft-trainer";

/** Checkpoints kept in a run folder. */
const keptCheckpoints = 2;

/** What a run needs while it goes. */
export interface Run {
  method: "sft" | "dpo";
  model: Mistral;
  config: SftConfig | DpoConfig;
  session: NativeSession;
  plan: BatchPlan;
  folder: RunFolder | undefined;
  events: EventStream;
  signal: AbortSignal | undefined;
  /** Lines of metrics.jsonl so far. */
  history: MetricsLine[];
  /** Steps since the last log. */
  pending: Metrics[];
  warnings: string[];
  report: ExampleReport;
  packing: { packs: number; fillRate: number } | undefined;
  /** Of a preference run. */
  reference: Reference | undefined;
  startedAt: number;
  loggedAt: number;
  loggedTokens: number;
  doneSteps: number;
}

/** Sequences as the native core takes them. */
export function nativeBatch(sequences: readonly EncodedRow[]): NativeBatch {
  return new (native().NativeBatch)(...endToEnd(sequences));
}

/** Pairs as the native core takes them; `shared` computes the prompt of each once, for both answers. */
export function nativePairs(pairs: readonly EncodedPair[], shared: boolean): NativeBatch {
  const sequences = pairs.flatMap(({ chosen, rejected }) => [chosen, rejected]);
  const prompts = Uint32Array.from(pairs, ({ promptLength }) => promptLength);
  return native().NativeBatch.pairs(...endToEnd(sequences), prompts, shared);
}

function endToEnd(sequences: readonly EncodedRow[]): [ids: Uint32Array, supervised: Uint8Array, lengths: Uint32Array] {
  const total = sequences.reduce((sum, { ids }) => sum + ids.length, 0);
  const ids = new Uint32Array(total);
  const supervised = new Uint8Array(total);
  const lengths = Uint32Array.from(sequences, (sequence) => sequence.ids.length);
  let start = 0;
  for (const sequence of sequences) {
    ids.set(sequence.ids, start);
    supervised.set(sequence.supervised, start);
    start += sequence.ids.length;
  }
  return [ids, supervised, lengths];
}

/** Refuses weights that cannot be trained before any work is done on the data. */
export function refuseFrozen(model: Mistral): void {
  if (model.storage === "float32" || model.adapter) return;
  throw new ModelError("ZA_MODEL_FROZEN", `the weights are kept as ${model.storage}, which cannot be trained`, {
    place: { file: model.source },
    remedy: 'Train an adapter over them (lora: { rank: 16 }), or load the model with dtype "float32".',
  });
}

/** A run at its beginning. */
export function newRun(
  parts: Pick<Run, "method" | "model" | "config" | "session" | "plan" | "folder" | "events" | "signal" | "report"> &
    Partial<Pick<Run, "packing" | "reference">>,
): Run {
  const now = performance.now();
  return {
    packing: undefined,
    reference: undefined,
    ...parts,
    history: [],
    pending: [],
    warnings: [],
    startedAt: now,
    loggedAt: now,
    loggedTokens: 0,
    doneSteps: 0,
  };
}

/** Says what is about to happen: the start event, and warnings that follow from the data. */
export async function announce(run: Run): Promise<void> {
  const { method, model, plan, report, packing, reference } = run;
  const saved =
    run.folder && run.config.resume ? (await savedSteps(join(run.folder.path, "checkpoints")))[0] : undefined;
  run.events.push({
    type: "start",
    method,
    totalSteps: plan.totalSteps,
    doneSteps: saved?.step ?? 0,
    rows: report.kept,
    tokens: report.tokens,
    supervisedTokens: report.supervisedTokens,
    ...(model.adapter ? { adapter: { parameters: model.trainableParameters, frozen: model.parameters } } : {}),
    ...(packing ? { packing } : {}),
    ...(reference ? { reference } : {}),
    format: report.description,
  });
  warnAboutData(run);
}

/** The folder of the run, with its resolved configuration; undefined when none was asked for. */
export async function openFolder(
  method: Run["method"],
  model: Mistral,
  config: SftConfig | DpoConfig,
  overwrite: boolean | undefined,
): Promise<RunFolder | undefined> {
  if (config.outputDir === null) return undefined;
  const record = { method, model: model.source, ...config };
  return RunFolder.open(config.outputDir, record, { resume: config.resume, overwrite: overwrite ?? false });
}

/** A session on the model; `loss` makes it one for DPO. */
export function openSession(
  model: Mistral,
  config: SftConfig | DpoConfig,
  options: { loss?: Record<string, unknown>; referenceIsStart?: boolean } = {},
): NativeSession {
  if (config.threads !== null) native().setThreads(config.threads);
  const { maxLength, recompute, seed } = config;
  // Without a gradient of the head, small chunks cost little time and save fifty megabytes at 50 000 tokens.
  const headChunk = model.adapter ? 64 : 256;
  const settings = { recompute, headChunk, maxLength, referenceIsStart: options.referenceIsStart ?? false, seed };
  return new (native().NativeSession)(
    model.native,
    JSON.stringify(settings),
    options.loss ? JSON.stringify(options.loss) : undefined,
  );
}

/** The learning rate of each step, counted from 0. */
export function scheduleOf(config: SftConfig | DpoConfig, totalSteps: number): (step: number) => number {
  const { lrScheduler, learningRate, warmupSteps, warmupRatio } = config;
  const schedule = new (native().NativeSchedule)(lrScheduler, learningRate, warmupSteps, warmupRatio, totalSteps);
  return (step) => schedule.rate(step);
}

/** Clips and updates the weights after the micro-batches of a step; logs when it is time. */
export async function applyStep(run: Run, step: number, epoch: number, learningRate: number): Promise<void> {
  const { config } = run;
  const update = {
    learningRate,
    beta1: config.adamBeta1,
    beta2: config.adamBeta2,
    epsilon: config.adamEpsilon,
    weightDecay: config.weightDecay,
    ...(config.maxGradNorm === null ? {} : { maxGradNorm: config.maxGradNorm }),
  };
  const metrics: Metrics = JSON.parse(await run.session.apply(update, epoch));
  run.pending.push(metrics);
  run.doneSteps = step;
  const { totalSteps } = run.plan;
  if (step === 1 || step % config.logSteps === 0 || step === totalSteps) await logSteps(run, step, epoch);
  if (run.folder && config.saveSteps > 0 && step % config.saveSteps === 0 && step < totalSteps) await checkpoint(run);
}

/** Names that are means over the logged steps; the others are those of the last step. */
function averaged(name: string): boolean {
  return !["grad_norm", "learning_rate", "num_tokens", "epoch", "step"].includes(name);
}

async function logSteps(run: Run, step: number, epoch: number): Promise<void> {
  const last = run.pending.at(-1)!;
  const metrics: Record<string, number> = { ...last };
  for (const name of Object.keys(last)) {
    if (averaged(name)) metrics[name] = run.pending.reduce((sum, each) => sum + each[name]!, 0) / run.pending.length;
  }
  run.pending = [];
  const now = performance.now();
  const tokens = metrics.num_tokens! - run.loggedTokens;
  const tokensPerSecond = (tokens / Math.max(1, now - run.loggedAt)) * 1000;
  run.loggedAt = now;
  run.loggedTokens = metrics.num_tokens!;
  const { totalSteps } = run.plan;
  const first = run.history[0]?.step ?? 0;
  const perStep = (now - run.startedAt) / Math.max(1, step - (first > 1 ? first : 0));
  await addLine(run, { ...metrics, step, tokens_per_second: tokensPerSecond });
  run.events.push({
    type: "step",
    step,
    totalSteps,
    epoch,
    metrics,
    tokensPerSecond,
    secondsLeft: (perStep * (totalSteps - step)) / 1000,
  });
}

/** Adds a line to the history and to metrics.jsonl. */
export async function addLine(run: Run, line: MetricsLine): Promise<void> {
  run.history.push(line);
  await run.folder?.appendMetrics(line);
}

/** Tells the user something, now and in the report. */
export function warn(run: Run, message: string): void {
  run.warnings.push(message);
  run.events.push({ type: "warning", message });
}

/** What data and configuration a saved state belongs to; a resumed run must be the same. */
function identity(run: Run): Record<string, unknown> {
  const { resume, outputDir, threads, ...config } = run.config;
  const { rows, kept, tokens, supervisedTokens } = run.report;
  return { method: run.method, config, data: { rows, kept, tokens, supervisedTokens } };
}

/** Saves weights, moments and position under `checkpoints/step-N`; the newest two are kept. */
async function checkpoint(run: Run): Promise<void> {
  const folder = join(run.folder!.path, "checkpoints");
  const path = join(folder, `step-${run.doneSteps}`);
  await rm(path, { recursive: true, force: true });
  await run.session.save(path, JSON.stringify(identity(run)));
  run.events.push({ type: "checkpoint", step: run.doneSteps, path });
  for (const { name } of (await savedSteps(folder)).slice(keptCheckpoints)) {
    await rm(join(folder, name), { recursive: true, force: true });
  }
}

/** Saved steps, newest first. */
async function savedSteps(folder: string): Promise<{ name: string; step: number }[]> {
  const names = await readdir(folder).catch(() => [] as string[]);
  const steps = names.flatMap((name) => {
    const step = /^step-(\d+)$/.exec(name)?.[1];
    return step === undefined ? [] : [{ name, step: Number(step) }];
  });
  return steps.sort((a, b) => b.step - a.step);
}

/** Goes on from the newest checkpoint of the run folder. Nothing saved yet is said, not hidden. */
export async function resumeRun(run: Run): Promise<void> {
  if (!run.folder || !run.config.resume) return;
  const folder = join(run.folder.path, "checkpoints");
  const newest = (await savedSteps(folder))[0];
  if (!newest) {
    await run.folder.keepMetricsUpTo(0);
    warn(run, "there is no checkpoint to resume from: the run starts at step 1");
    return;
  }
  const path = join(folder, newest.name);
  // Restoring overwrites the model: a run that may not go on is refused before. A record that cannot be read is left to
  // restore, which says what is wrong with it.
  const saved = await savedIdentity(path);
  if (saved !== undefined) refuseOther(run, saved, path);
  refuseOther(run, JSON.parse(await run.session.restore(path)), path);
  run.doneSteps = newest.step;
  run.history = await run.folder.keepMetricsUpTo(newest.step);
  run.loggedTokens = run.history.at(-1)?.num_tokens ?? 0;
}

/** The identity in a checkpoint's record; undefined when it cannot be read. */
async function savedIdentity(path: string): Promise<unknown> {
  try {
    return JSON.parse(JSON.parse(await readFile(join(path, "state.json"), "utf8")).extra);
  } catch {
    return undefined;
  }
}

function refuseOther(run: Run, saved: unknown, path: string): void {
  const differences = differing(saved, identity(run));
  if (differences.length === 0) return;
  throw new ConfigError("ZA_CONFIG_INVALID", `the saved run differs in ${differences.join(", ")}`, {
    place: { file: path },
    remedy: "Resume with the same configuration and data, or start a new run in another outputDir.",
  });
}

function differing(before: unknown, after: unknown, path = ""): string[] {
  if (typeof before !== "object" || typeof after !== "object" || before === null || after === null) {
    return Object.is(before, after) ? [] : [`${path} (was ${JSON.stringify(before)}, is ${JSON.stringify(after)})`];
  }
  const keys = new Set([...Object.keys(before), ...Object.keys(after)]);
  return [...keys].flatMap((key) =>
    differing(
      (before as Record<string, unknown>)[key],
      (after as Record<string, unknown>)[key],
      path ? `${path}.${key}` : key,
    ),
  );
}

/** Saves the model and the report, and says that the run is over. */
export async function finishRun(run: Run, samples: readonly RunReportSample[]): Promise<Metrics> {
  const seconds = (performance.now() - run.startedAt) / 1000;
  const last = run.history.findLast((line) => "loss" in line) ?? { step: run.doneSteps };
  const tokens = last.num_tokens ?? 0;
  const { folder, model, method, config, report } = run;
  await run.session.release();
  if (folder) {
    if (model.adapter) await folder.saveFolder("adapter", (path) => model.saveAdapter(path));
    else await folder.saveModel((path) => model.save(path));
    await folder.closeMetrics();
    await folder.writeReport(
      renderRunReport({
        title: `${method === "sft" ? "dSFT" : "dDPO"} of ${model.source}`,
        method,
        model: model.source,
        metrics: run.history,
        summary: { steps: run.doneSteps, seconds, tokens },
        config,
        data: { ...report, ...(run.packing ? { packing: run.packing } : {}) },
        samples,
        warnings: run.warnings,
        versions: { "zephyr-align": packageVersion(), node: process.versions.node },
        createdAt: new Date().toISOString(),
      }),
    );
  }
  run.events.push({ type: "end", steps: run.doneSteps, seconds, tokens, metrics: last });
  return last;
}

/** Lets go of everything after a failure; turns what was thrown into a typed error. */
export async function failRun(run: Run | undefined, error: unknown, signal: AbortSignal | undefined): Promise<never> {
  await run?.session.release().catch(() => undefined);
  await run?.folder?.closeMetrics().catch(() => undefined);
  const typed = signal?.aborted && !(error instanceof AbortedError) ? aborted(signal.reason) : fromNative(error);
  if (typed instanceof TrainingError && run?.folder) {
    const saved = (await savedSteps(join(run.folder.path, "checkpoints")))[0];
    const where = saved ? `the last checkpoint is ${saved.name}` : "no checkpoint was saved yet";
    throw new TrainingError(typed.code, typed.problem, {
      ...(typed.place ? { place: typed.place } : {}),
      remedy: `${typed.remedy ?? ""} (${where})`.trim(),
      cause: typed,
    });
  }
  throw typed;
}

/** Warnings that follow from the data. */
function warnAboutData(run: Run): void {
  const { report } = run;
  const plural = (count: number, what: string) => `${count} ${what}${count === 1 ? "" : "s"}`;
  if (report.skipped > 0) {
    const first = report.skippedRows[0];
    warn(run, `${plural(report.skipped, "row")} left out; the first: ${first?.problem ?? "unknown"}`);
  }
  if (report.cutRows > 0) {
    warn(run, `${plural(report.cutRows, "row")} cut to maxLength ${run.config.maxLength}: ${report.cutTokens} tokens`);
  }
  if (report.duplicates > 0) warn(run, `${plural(report.duplicates, "row")} equal to an earlier one (kept)`);
  if (report.equalPairs > 0) warn(run, `${plural(report.equalPairs, "pair")} with equal answers (kept, margin 0)`);
}

/** Polled between micro-batches. */
export function poll(run: Run): void {
  throwIfAborted(run.signal);
}
