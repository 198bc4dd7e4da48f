/**
 * Saving a run and going on with it. The protocol (what is written how, and what proves it) is the core's,
 * `crates/align/checkpoint`; here stands what a run adds to weights and moments, and when it is saved.
 */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import type { NativeSaved } from "../../bindings/node/index";
import { AbortedError, fromNative, type ZephyrError } from "../errors";
import { native } from "../native/load";
import type { Metrics } from "./events";
import type { GuardState } from "./guards";
import { differences, type Identity, identityOf, otherRun } from "./identity";
import type { Run } from "./run";

/** What a checkpoint holds besides arrays and step; JSON. */
interface Extra {
  identity: Identity;
  /** Steps since the last log. */
  pending: Metrics[];
  guards: GuardState;
  /** The step that was evaluated last. */
  evaluated: number;
  /** The step after which the reference followed the policy last; its weights are in the checkpoint. */
  followed: number | null;
  /** Mean of the reference's log-probs, of runs that compute them before the first step. */
  reference: number | null;
  /** Size of metrics.jsonl: the log goes on exactly there. */
  metricsBytes: number;
}

/** Saves of a run: the one in flight, and what became of those before. */
export interface Saving {
  /** Settles when the write in flight is over, never rejects. */
  inFlight: Promise<void>;
  /** The newest step that is saved; 0 when none is. */
  savedStep: number;
  savedPath: string | undefined;
  /** A write that failed for another reason than a full disk; thrown before the next update. */
  failure: ZephyrError | undefined;
}

/** A run that has saved nothing yet. */
export function nothingSaved(): Saving {
  return { inFlight: Promise.resolve(), savedStep: 0, savedPath: undefined, failure: undefined };
}

function folderOf(run: Run): string {
  return join(run.folder!.path, "checkpoints");
}

/** Metrics out of the core: numbers that are not finite arrive as null, and are NaN, not nothing. */
export function parseMetrics<T = Metrics>(json: string): T {
  return JSON.parse(json, (_, value) => (value === null ? Number.NaN : value));
}

/**
 * Looks for the checkpoint to go on from, and whether there is room for those to come. Nothing is changed yet: a run
 * that may not go on is refused before.
 *
 * @returns warnings
 * @throws ConfigError `ZA_RESUME_DIFFERS`; TrainingError `ZA_CHECKPOINT_BROKEN`; IoError `ZA_DISK_SPACE`
 */
export async function openCheckpoints(run: Run): Promise<string[]> {
  if (!run.folder) return [];
  const { config } = run;
  const folder = folderOf(run);
  const found = await native().NativeCheckpoints.open(folder);
  const present = (await readdir(folder).catch(() => [])).filter((name) => name.startsWith("step-")).length;
  const { keepCheckpoints, saveSteps } = config;
  const { totalSteps } = run.plan;
  const planned = saveSteps > 0 ? Math.floor((totalSteps - 1 - (found.step ?? 0)) / saveSteps) : 0;
  run.session.checkSpace(
    run.folder.path,
    keepCheckpoints,
    present,
    Math.max(0, planned),
    // What the end of the run writes as float32: the model, or its adapter alone.
    4 * run.model.trainableParameters,
    "syncRefModel" in config && config.syncRefModel,
  );
  if (!config.resume) return [];

  const warnings = found.broken.map(({ path, reason }) => `${path} is no checkpoint and is skipped: ${reason}`);
  if (found.extra === null || found.path === null) {
    if (!config.resumeForce) found.refuseOnlyBroken(folder);
    await run.folder.cutMetrics(0);
    return [...warnings, "there is no checkpoint to resume from: the run starts at step 1"];
  }
  const saved: Extra = JSON.parse(found.extra);
  const { machine, ...decisive } = identityOf(run);
  const { machine: before, ...wasDecisive } = saved.identity;
  const differing = differences(wasDecisive, decisive);
  const metricsBytes = await run.folder.metricsBytes();
  if (metricsBytes < saved.metricsBytes) {
    differing.push(`metrics.jsonl (had ${saved.metricsBytes} bytes, has ${metricsBytes})`);
  }
  if (differing.length > 0 && !config.resumeForce) throw otherRun(differing, found.path);
  run.found = found;
  if (differing.length > 0) warnings.push(`resumed by force, the saved run differs in ${differing.join(", ")}`);
  const elsewhere = differences(before, machine);
  if (elsewhere.length > 0) {
    warnings.push(`this machine differs in ${elsewhere.join(", ")}: the run goes on, but not to the same last bits`);
  }
  return warnings;
}

/** Goes on from the checkpoint that {@link openCheckpoints} found. */
export async function resumeRun(run: Run): Promise<void> {
  const { found } = run;
  if (!run.folder || !found) return;
  const saved: Extra = JSON.parse(found.extra!);
  refuseOtherReference(run, saved.reference, found.path!);
  await run.session.restore(found, run.following?.model.native);
  if (run.following) run.following.step = saved.followed!;
  // Old checkpoints that a killed process had no time to remove; they are only in the way.
  await found.trim(folderOf(run), run.config.keepCheckpoints).catch((error) => run.warn(fromNative(error).message));
  run.doneSteps = found.step!;
  run.pending = parseMetrics<Metrics[]>(JSON.stringify(saved.pending));
  run.guards.state = saved.guards;
  run.evaluated = saved.evaluated;
  run.tokens = run.loggedTokens = found.tokensSeen!;
  run.history = await run.folder.cutMetrics(saved.metricsBytes);
  run.saving = { ...nothingSaved(), savedStep: found.step!, savedPath: found.path! };
}

/** The reference is another model when its log-probs differ by more than another machine's rounding. */
function refuseOtherReference(run: Run, before: number | null, path: string): void {
  const now = run.referenceMean ?? null;
  const same = before === null || now === null ? before === now : Math.abs(now / before - 1) < 1e-4;
  if (same) return;
  const difference = `the reference (mean log-prob was ${before}, is ${now})`;
  if (!run.config.resumeForce) throw otherRun([difference], path);
  run.warn(`resumed by force, the saved run differs in ${difference}`);
}

/** Saves when it is time. The write goes on while the gradients of the next step are computed. */
export async function saveIfDue(run: Run): Promise<void> {
  const { saveSteps } = run.config;
  if (!run.folder || saveSteps === 0 || run.doneSteps % saveSteps !== 0 || run.doneSteps >= run.plan.totalSteps) return;
  await startSaving(run);
}

/** Waits for the write in flight. @throws what a write failed of, unless it was a full disk */
export async function settleSaving(run: Run): Promise<void> {
  await run.saving.inFlight;
  const { failure } = run.saving;
  run.saving.failure = undefined;
  if (failure) throw failure;
}

async function startSaving(run: Run): Promise<void> {
  await settleSaving(run);
  const written = await snapshot(run).catch((error) => ({ published: Promise.reject(error) }));
  run.saving.inFlight = written.published.catch((thrown) => {
    const error = fromNative(thrown, { file: folderOf(run) });
    if (error.code !== "ZA_DISK_FULL") run.saving.failure = error;
    else {
      const { savedPath } = run.saving;
      const last = savedPath ? `the last checkpoint is ${savedPath}` : "there is no checkpoint yet";
      run.warn(`the disk is full: a checkpoint was not saved, ${last}; the run goes on and tries again later`);
    }
  });
}

/** Takes the state of this moment; `published` settles when it is a checkpoint. */
async function snapshot(run: Run): Promise<{ published: Promise<void> }> {
  const step = run.doneSteps;
  const { pending, guards, evaluated, folder, config } = run;
  // The log is on the disk before the checkpoint that counts on it.
  const metricsBytes = await folder!.syncMetrics();
  const extra: Extra = {
    identity: identityOf(run),
    pending,
    guards: guards.state,
    evaluated,
    followed: run.following?.step ?? null,
    reference: run.referenceMean ?? null,
    metricsBytes,
  };
  const following = run.following?.model.native;
  const saved = run.session.save(folderOf(run), step, config.keepCheckpoints, JSON.stringify(extra), following);
  return { published: saved.then((checkpoint) => published(run, step, checkpoint)) };
}

function published(run: Run, step: number, { path, warnings }: NativeSaved): void {
  run.saving.savedStep = step;
  run.saving.savedPath = path;
  run.events.push({ type: "checkpoint", step, path });
  for (const warning of warnings) run.warn(warning);
}

/**
 * Saves a run that was stopped at its last step boundary; what was accumulated since is forgotten.
 *
 * @returns the error that says where it is saved
 */
export async function saveStopped(run: Run, stopped: AbortedError): Promise<AbortedError> {
  const { saving } = run;
  await saving.inFlight;
  if (run.folder && saving.savedStep !== run.doneSteps) {
    await run.session.discard();
    await (await snapshot(run)).published;
  }
  const path = saving.savedPath ?? run.found?.path ?? undefined;
  if (path === undefined) return stopped;
  const step = saving.savedPath ? saving.savedStep : run.found!.step;
  return new AbortedError(stopped.code, `${stopped.problem}; step ${step} is saved`, {
    place: { file: path },
    remedy: "Resume the run: it goes on from there.",
    cause: stopped.cause,
  });
}
