/** What a run goes on from, and from what it does not: other runs, broken checkpoints, full disks, bad updates. */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  DpoTrainer,
  type DpoTrainerOptions,
  Mistral,
  SftTrainer,
  type SftTrainerOptions,
  type TrainerEvent,
  ZephyrError,
} from "../ts/index";
import { fitShowing } from "../ts/train/progress";
import { warningsOf } from "./runs";
import { buildProgram, mountSmallDisk, smallRows, unmount } from "./shared";

const base = fileURLToPath(new URL("../recipes/demo/base", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "zephyr-resume-"));
const at = (name: string) => join(folder, name);
const { chats, pairs } = smallRows(24);

/** A model of 60 thousand parameters: a checkpoint of it is written in milliseconds. */
async function tiny(seed = 7): Promise<Mistral> {
  const { config, tokenizer } = await Mistral.fromPretrained(base);
  const small = { hidden_size: 32, intermediate_size: 64, num_hidden_layers: 1, num_attention_heads: 2 };
  return Mistral.random({ ...config, ...small, num_key_value_heads: 1, head_dim: 16 }, tokenizer, seed);
}

const common = { maxSteps: 8, batchSize: 4, learningRate: 1e-3, saveSteps: 2, logSteps: 3, samples: 0, threads: 2 };

type Options = Partial<SftTrainerOptions> & { outputDir: string };

/** Runs SFT; returns its events and, when it failed, its error. */
async function sft(options: Options) {
  const model = options.model ?? (await tiny());
  const trainer = new SftTrainer({ dataset: chats, ...common, ...options, model });
  return follow(trainer);
}

async function follow(trainer: AsyncIterable<TrainerEvent> & { fit(): Promise<unknown> }) {
  const events: TrainerEvent[] = [];
  const error = await fitShowing(trainer, (event) => void events.push(event)).then(
    () => undefined,
    (thrown: unknown) => thrown as ZephyrError,
  );
  const warnings = warningsOf(events);
  if (error) expect(error).toBeInstanceOf(ZephyrError);
  return { events, warnings, error };
}

function results(outputDir: string) {
  const weights = readFileSync(join(outputDir, "model", "model.safetensors"));
  const metrics = readFileSync(join(outputDir, "metrics.jsonl"), "utf8");
  return { weights: createHash("sha256").update(weights).digest("hex"), metrics };
}

const checkpoints = (outputDir: string) => readdirSync(join(outputDir, "checkpoints")).sort();

/** A run that was over, in whose folder everything later than its checkpoints is forgotten. */
async function unfinished(name: string): Promise<string> {
  const outputDir = at(name);
  expect((await sft({ outputDir })).error).toBeUndefined();
  rmSync(join(outputDir, "model"), { recursive: true });
  return outputDir;
}

let whole: ReturnType<typeof results>;

beforeAll(async () => {
  await sft({ outputDir: at("whole") });
  whole = results(at("whole"));
});

const small = at("small");
const mounted = mountSmallDisk(small, 4_000_000);

afterAll(() => {
  if (mounted) unmount(small);
  rmSync(folder, { recursive: true, force: true });
});

describe("a resume", () => {
  it("goes on from the newest checkpoint, and its log is the undisturbed one's", async () => {
    const outputDir = await unfinished("plain");
    expect(checkpoints(outputDir)).toEqual(["step-4", "step-6"]);
    const { events } = await sft({ outputDir, resume: true });
    expect(events[0]).toMatchObject({ type: "start", doneSteps: 6 });
    expect(results(outputDir)).toEqual(whole);
    // Wall-clock numbers have their own file.
    expect(readFileSync(join(outputDir, "metrics.jsonl"), "utf8")).not.toMatch(/second/);
    expect(readFileSync(join(outputDir, "speed.jsonl"), "utf8")).toMatch(/"tokens_per_second":\d/);
  });

  it.each([
    ["option", { weightDecay: 0.1 }, /config\.weightDecay \(was 0, is 0\.1\)/],
    ["number of steps", { maxSteps: 9 }, /config\.maxSteps/],
    ["row", { dataset: [...chats.slice(0, 23), smallRows(40).chats[39]!] }, /data\.rows|data\.tokens/],
    ["order of rows", { dataset: [...chats].reverse() }, /data\.rowsHash \(was [0-9a-f]{8}, is [0-9a-f]{8}\)/],
    ["template", { template: "zephyr" }, /template/],
  ])("with another %s is refused, with the difference, and changes nothing", async (name, other, message) => {
    const outputDir = await unfinished(`other-${name.replaceAll(" ", "-")}`);
    const before = readFileSync(join(outputDir, "config.json"), "utf8");
    const model = await tiny();
    const probe = await model.score([1, 5, 9]);
    const { error } = await sft({ outputDir, resume: true, model, ...other } as Options);
    expect(error?.code).toBe("ZA_RESUME_DIFFERS");
    expect(error?.message).toMatch(message);
    expect(error?.remedy).toMatch(/resumeForce/);
    expect(await model.score([1, 5, 9])).toEqual(probe);
    expect(readFileSync(join(outputDir, "config.json"), "utf8")).toBe(before);
    expect(checkpoints(outputDir)).toEqual(["step-4", "step-6"]);
  });

  it("by force goes on all the same, and says in what it differs", async () => {
    const outputDir = await unfinished("force");
    const { warnings, events, error } = await sft({ outputDir, resumeForce: true, weightDecay: 0.1 });
    expect(error).toBeUndefined();
    expect(events[0]).toMatchObject({ type: "start", doneSteps: 6 });
    expect(warnings.join()).toMatch(/by force.*config\.weightDecay \(was 0, is 0\.1\)/);
    const config = readFileSync(join(outputDir, "config.json"), "utf8");
    expect(JSON.parse(config)).toMatchObject({ weightDecay: 0.1 });
    expect(config, "nobody is forced by an old config.json").not.toContain("resumeForce");
  });

  it("with other threads or intervals of saving is the same run", async () => {
    const outputDir = await unfinished("free");
    const { warnings, error } = await sft({ outputDir, resume: true, threads: 1, saveSteps: 7, keepCheckpoints: 3 });
    expect(error).toBeUndefined();
    expect(warnings.join()).toMatch(/machine differs in threads \(was 2, is 1\)/);
    expect(checkpoints(outputDir)).toEqual(["step-4", "step-6", "step-7"]);
  });

  it("with another reference is refused", async () => {
    const outputDir = at("reference");
    const dpo = async (ref: Mistral, resume: boolean, more = {}) =>
      follow(new DpoTrainer({ policy: await tiny(), ref, dataset: pairs, ...common, outputDir, resume, ...more }));
    await dpo(await tiny(), false);
    expect((await dpo(await tiny(8), true)).error).toMatchObject({ code: "ZA_REFERENCE_CACHE" });
    // The mean of the log-probs tells, where another file of them is given.
    const referenceCache = at("other-reference.jsonl");
    expect((await dpo(await tiny(8), true, { referenceCache })).error).toMatchObject({ code: "ZA_RESUME_DIFFERS" });
    expect((await dpo(await tiny(), true)).error).toBeUndefined();
    const forced = await dpo(await tiny(8), true, { resumeForce: true });
    expect(forced.error).toBeUndefined();
    expect(forced.warnings.join()).toMatch(/reference model differ: they are computed again/);
  });

  it("with a reference that follows the policy has that reference again (TR-DPO)", async () => {
    const following = async (outputDir: string, more: Partial<DpoTrainerOptions> = {}) => {
      const sync = { syncRefModel: true, refModelSyncSteps: 3, refModelMixupAlpha: 0.5 };
      const policy = await tiny();
      return follow(new DpoTrainer({ dataset: pairs, ...common, ...sync, outputDir, ...more, policy }));
    };
    expect((await following(at("following"))).error).toBeUndefined();
    const undisturbed = results(at("following"));
    const still = at("standing-still");
    expect((await following(still, { refModelSyncSteps: 1000 })).error).toBeUndefined();
    expect(results(still).weights).not.toBe(undisturbed.weights);
    // Steps 6, where the reference moved just before, and 4, where it moved a step ago.
    for (const newest of ["step-6", "step-4"]) {
      rmSync(join(at("following"), "model"), { recursive: true });
      for (const name of checkpoints(at("following"))) {
        if (name > newest) rmSync(join(at("following"), "checkpoints", name), { recursive: true });
      }
      const { events, error } = await following(at("following"), { resume: true });
      expect(error).toBeUndefined();
      expect(events.find(({ type }) => type === "start")).toMatchObject({ doneSteps: Number(newest.slice(5)) });
      expect(results(at("following"))).toEqual(undisturbed);
    }
  });

  it("skips a broken checkpoint, names it, keeps it, and ends as the undisturbed run", async () => {
    const outputDir = await unfinished("broken");
    truncateSync(join(outputDir, "checkpoints", "step-6", "state.safetensors"), 1000);
    const { warnings, events } = await sft({ outputDir, resume: true });
    expect(events[0]).toMatchObject({ type: "start", doneSteps: 4 });
    expect(warnings.join()).toMatch(/step-6 is no checkpoint and is skipped: state\.safetensors has 1000 bytes/);
    expect(results(outputDir)).toEqual(whole);
    expect(checkpoints(outputDir)).toEqual(["step-4", "step-6", "step-6.broken-1"]);
  });

  it("never starts from zero silently", async () => {
    const outputDir = await unfinished("all-broken");
    for (const name of ["step-4", "step-6"]) {
      writeFileSync(join(outputDir, "checkpoints", name, "manifest.json"), "");
    }
    const { error } = await sft({ outputDir, resume: true });
    expect(error?.code).toBe("ZA_CHECKPOINT_BROKEN");
    expect(error?.message).toMatch(/step-6.*\n.*step-4/);
    const forced = await sft({ outputDir, resumeForce: true });
    expect(forced.error).toBeUndefined();
    expect(forced.warnings.join()).toMatch(/no checkpoint to resume from: the run starts at step 1/);
    expect(results(outputDir)).toEqual(whole);
  });

  it("a log that lost lines is not continued with a gap", async () => {
    const outputDir = await unfinished("gap");
    truncateSync(join(outputDir, "metrics.jsonl"), 20);
    const { error } = await sft({ outputDir, resume: true });
    expect(error?.message).toMatch(/metrics\.jsonl \(had \d+ bytes, has 20\)/);
    const forced = await sft({ outputDir, resumeForce: true });
    expect(forced.error).toBeUndefined();
    const lines = readFileSync(join(outputDir, "metrics.jsonl"), "utf8").trim().split("\n");
    expect(
      lines.map((line) => JSON.parse(line).step),
      "whole lines, whatever was lost",
    ).toEqual([8]);
  });
});

describe("a full disk", () => {
  it.runIf(mounted)("does not stop the run: it goes on in memory, and saves when there is room again", async () => {
    const outputDir = join(small, "run");
    const filler = join(small, "filler");
    const options = { maxSteps: 40, logSteps: 1 };
    const trainer = new SftTrainer({ model: await tiny(), dataset: chats, ...common, ...options, outputDir });
    const seen: string[] = [];
    const saved: number[] = [];
    await fitShowing(trainer, (event) => {
      if (event.type === "checkpoint") saved.push(event.step);
      if (event.type === "checkpoint" && event.step === 6) fill(filler);
      if (event.type !== "warning") return;
      seen.push(event.message);
      if (/a checkpoint was not saved/.test(event.message)) rmSync(filler, { force: true });
    });
    expect(seen.join("\n")).toMatch(/the disk is full: a checkpoint was not saved, the last checkpoint is .*step-\d+/);
    expect(saved.at(-1)).toBe(38);
    expect(checkpoints(outputDir)).toEqual(["step-36", "step-38"]);
    await sft({ outputDir: at("roomy"), ...options });
    expect(results(outputDir)).toEqual(results(at("roomy")));
  });
});

function fill(path: string): void {
  for (let size = 1 << 20; size >= 1; size >>= 1) {
    try {
      for (;;) writeFileSync(path, Buffer.alloc(size), { flag: "a" });
    } catch {
      // Full; try what is left with less.
    }
  }
}

describe("an update that would do harm", () => {
  it("far above the others is skipped and counted, and the run goes on as if resumed or not", async () => {
    // 90 steps of one short answer; step 81 is of another kind.
    const usual = { ...chats[0]! };
    const odd = { messages: [chats[0]!.messages[0]!, { role: "assistant", content: "zq! xv? jk; ".repeat(5) }] };
    const dataset = Array.from({ length: 90 }, (_, index) => (index === 80 ? odd : usual));
    const slow = { batchSize: 1, maxSteps: 90, shuffle: false, learningRate: 1e-6 };
    const options = { dataset, ...slow, skipZScore: 8, logSteps: 1, saveSteps: 70 };
    const outputDir = at("outlier");
    const { warnings } = await sft({ ...options, outputDir });
    expect(warnings.join()).toMatch(/step 81: the update is skipped: (loss|grad_norm) .* standard deviations/);
    expect(warnings.join()).toMatch(/1 update skipped in 90 steps/);
    const first = results(outputDir);
    const line = JSON.parse(first.metrics.split("\n")[80]!);
    expect(line).toMatchObject({ step: 81, skipped_updates: 1, loss: null });
    expect(line.skipped_loss).toBeGreaterThan(0);
    expect(line.skipped_grad_norm).toBeGreaterThan(0);
    // From step 70: the windows of 64 and more steps come back with the checkpoint.
    await sft({ ...options, outputDir, resume: true });
    expect(results(outputDir)).toEqual(first);
  });

  it("three in a row stop the run, which names its last checkpoint", async () => {
    const outputDir = at("diverged");
    // A rate that throws the weights out of the range of f32 after the warm-up of 3 steps.
    const diverging = { learningRate: 1e30, lrScheduler: "constant_with_warmup", warmupSteps: 4 } as const;
    const { error, warnings } = await sft({ outputDir, maxSteps: 30, saveSteps: 1, logSteps: 1, ...diverging });
    expect(error?.code).toBe("ZA_TRAIN_NOT_FINITE");
    expect(error?.message).toMatch(/3 updates in a row were skipped/);
    expect(error?.remedy).toMatch(/the last checkpoint is .*step-\d+/);
    expect(warnings.filter((text) => /the update is skipped/.test(text))).toHaveLength(3);
    const last = JSON.parse(readFileSync(join(outputDir, "metrics.jsonl"), "utf8").trim().split("\n").at(-1)!);
    expect(last).toMatchObject({ loss: null, skipped_updates: 1, skipped_grad_norm: null });
  });

  it("a step that takes longer than it may ends the run", async () => {
    const { error } = await sft({ outputDir: at("stalled"), stepTimeoutSeconds: 1e-4 });
    expect(error?.code).toBe("ZA_TRAIN_STALLED");
    expect(error?.remedy).toMatch(/no checkpoint was saved yet/);
  });
});

it("killed at random instants and resumed, runs of every kind end as the undisturbed ones, byte for byte", () => {
  buildProgram();
  const script = fileURLToPath(new URL("../scripts/resume-kills.mjs", import.meta.url));
  const { status, stdout, stderr } = spawnSync(process.execPath, [script, "--kills", "10"], { encoding: "utf8" });
  expect(status, stdout + stderr).toBe(0);
  expect(stdout).toMatch(/^10\/10 in/m);
  // None of the ten methods is left out.
  expect(stdout.match(/^\w+: 1\/1 kills/gm)).toHaveLength(10);
});
