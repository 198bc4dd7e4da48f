/** The numbers of a run on their way to metrics.jsonl, speed.jsonl, loggers and events. */
import { parseMetrics } from "./checkpoint";
import type { Metrics } from "./events";
import type { Run, StepFacts } from "./run";
import type { MetricsLine, SpeedLine } from "./run-folder";
import { forgetPeak } from "./speed";

/** Does something else between two steps; its time does not count in the tokens per second. */
export async function aside<Given extends unknown[], T>(
  run: Run,
  work: (run: Run, ...given: Given) => Promise<T>,
  ...given: Given
): Promise<T> {
  const start = performance.now();
  const result = await work(run, ...given);
  run.loggedAt += performance.now() - start;
  return result;
}

/** Names of which a line holds the last step's; the others are means over the updates that were made. */
const lastOf = ["learning_rate", "num_tokens", "epoch", "step"];

/** Line of the steps since the last one. Means are over the updates that were made; without any they are NaN. */
function meansOf(steps: readonly Metrics[]): Record<string, number> {
  const made = steps.filter((step) => !step.skipped_updates);
  const metrics: Record<string, number> = Object.assign({ loss: Number.NaN }, ...made);
  for (const name of Object.keys(metrics)) {
    // The norm of the last update: a mean of norms is the norm of nothing.
    if (name === "grad_norm" || lastOf.includes(name)) continue;
    // KTO leaves out what a step has none of: wanted or unwanted answers.
    const having = made.filter((step) => name in step);
    metrics[name] = having.reduce((sum, step) => sum + step[name]!, 0) / having.length;
  }
  // What the loss saw is no matter of whether an update came of it.
  metrics.supervised_tokens = steps.reduce((sum, step) => sum + step.supervised_tokens!, 0) / steps.length;
  for (const name of lastOf) metrics[name] = steps.at(-1)![name]!;
  return { ...metrics, ...skippedOf(steps.filter((step) => step.skipped_updates)) };
}

/**
 * What a line says of its skipped updates: how many, the mean of their losses and their highest gradient norm. One number
 * that is not finite makes these NaN: nothing is left out of them.
 */
function skippedOf(steps: readonly Metrics[]): Record<string, number> {
  if (steps.length === 0) return {};
  return {
    skipped_updates: steps.length,
    skipped_loss: steps.reduce((sum, step) => sum + step.skipped_loss!, 0) / steps.length,
    skipped_grad_norm: Math.max(...steps.map((step) => step.skipped_grad_norm!)),
  };
}

/** Logs the steps since the last line: to the files, the loggers, the events. */
export async function logSteps(run: Run, { step, epoch }: StepFacts): Promise<void> {
  const metrics = { ...meansOf(run.pending), step };
  run.pending = [];
  const now = performance.now();
  const since = Math.max(1, now - run.loggedAt) / 1000;
  const tokensPerSecond = (run.tokens - run.loggedTokens) / since;
  const flopsPerSecond = run.flops / since;
  // Faster than the peak: the machine was busy with something else when that was measured.
  if (run.peak !== undefined && flopsPerSecond > run.peak) run.peak = await forgetPeak(run.config, run.model.device);
  const peakShare = run.peak === undefined ? undefined : flopsPerSecond / run.peak;
  run.loggedAt = now;
  run.loggedTokens = run.tokens;
  run.flops = 0;
  const { totalSteps } = run.plan;
  const seconds = (now - run.startedAt) / 1000;
  const speed = {
    tokens_per_second: tokensPerSecond,
    flops_per_second: flopsPerSecond,
    ...(peakShare === undefined ? {} : { peak_share: peakShare }),
  };
  await addLine(run, metrics, speed);
  await addSpeed(run, { step, ...speed, seconds });
  run.events.push({
    type: "step",
    step,
    totalSteps,
    epoch,
    metrics,
    tokensPerSecond,
    flopsPerSecond,
    ...(peakShare === undefined ? {} : { peakShare }),
    secondsLeft: (seconds / (step - run.before.steps)) * (totalSteps - step),
  });
}

/** Adds a line to the history, to metrics.jsonl and, with numbers of this hour, to the loggers. */
async function addLine(run: Run, line: MetricsLine, ofThisHour: Metrics = {}): Promise<void> {
  run.history.push(line);
  const { step, ...metrics } = line;
  run.loggers.log(step, { ...metrics, ...ofThisHour });
  if (!run.folder || (await run.folder.appendMetrics(line))) return;
  run.warn("the disk is full: lines of metrics.jsonl wait in memory until there is room");
}

async function addSpeed(run: Run, line: SpeedLine): Promise<void> {
  run.speed.push(line);
  await run.folder?.appendSpeed(line);
}

/** Whether the held-out rows are to be evaluated after the steps done so far, and were not yet. */
export function evaluationIsDue(run: Run): boolean {
  const { evalSteps } = run.config;
  const { doneSteps, evaluated, plan } = run;
  if (doneSteps === evaluated) return false;
  return doneSteps === plan.totalSteps || (evalSteps > 0 && doneSteps > 0 && doneSteps % evalSteps === 0);
}

/** Takes the evaluation's metrics, logs them and tells them. */
export async function logEvaluation(run: Run): Promise<void> {
  const metrics = parseMetrics(await run.session.takeEvaluation());
  const step = run.doneSteps;
  await addLine(run, { step, ...metrics });
  run.evaluated = step;
  run.events.push({ type: "eval", step, metrics });
}

/** The report's curves show both logs in one. */
export function withSpeed(history: readonly MetricsLine[], speed: readonly SpeedLine[]): MetricsLine[] {
  const ofStep = new Map(speed.map(({ seconds, ...line }) => [line.step, line]));
  return history.map((line) => ("loss" in line ? { ...line, ...ofStep.get(line.step) } : line));
}
