/**
 * `device: "cuda"` from TypeScript to the kernels where no card is: the addon with the feature `emulated` has the kernels' tests'
 * emulation in a card's place (`npm run test:cuda-emulated`). All but NVIDIA's driver is the code that runs on a card.
 */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it } from "vitest";
import {
  DpoTrainer,
  type DpoTrainerOptions,
  evaluatePairs,
  KtoTrainer,
  Mistral,
  OrpoTrainer,
  SftTrainer,
  type TrainerEvent,
} from "../ts/index";
import { fitShowing } from "../ts/train/progress";
import { stopAt } from "./runs";
import { golden, present, readJson } from "./shared";

const root = fileURLToPath(new URL("..", import.meta.url));
/** Only the script that has just built the addon names its folder, so that no old one is tested. */
const built = process.env.ZEPHYR_EMULATED_ADDON && join(root, process.env.ZEPHYR_EMULATED_ADDON);
const name = built && existsSync(built) ? readdirSync(built).find((file) => file.endsWith(".node")) : undefined;
if (!name) console.warn("SKIPPED: no addon with an emulated card (npm run test:cuda-emulated makes it)");
if (built && name) {
  process.env.ZEPHYR_ALIGN_NATIVE = join(built, name);
  process.env.ZEPHYR_EMULATED_KERNELS = join(built, "kernels");
}

const folder = mkdtempSync(join(tmpdir(), "zephyr-cuda-emulated-"));
const model = join(golden, "window");
const ref = join(model, "ref.safetensors");
const load = (path = model) => Mistral.fromPretrained(path, { device: "cpu", tokenizer: join(golden, "tokenizer") });
const rows = () => readJson<{ sft: unknown[]; dpo: unknown[] }>(model, "data.json");

/** Of TRL's runs, in float32, so that the CPU's numbers are the card's. */
const settings = {
  device: "cuda",
  precision: "float32",
  maxLength: 128,
  batchSize: 2,
  learningRate: 5e-4,
  maxSteps: 4,
  logSteps: 1,
  shuffle: false,
  measurePeak: false,
  answerEnd: "turn",
  truncation: "keep-start",
} as const;

async function dpo(options: Partial<DpoTrainerOptions> = {}, events: TrainerEvent[] = []) {
  const policy = await load();
  const trainer = new DpoTrainer({ policy, ref: await load(ref), dataset: rows().dpo, ...settings, ...options });
  return fitShowing(trainer, (event) => void events.push(event));
}

/** Of each step, within the tolerance of two ways to add up. */
function expectSame(found: readonly Record<string, number>[], expected: readonly Record<string, number>[]): void {
  expect(found).toHaveLength(expected.length);
  for (const [index, line] of expected.entries()) {
    for (const key of Object.keys(line)) {
      const error = Math.abs(found[index]![key]! - line[key]!) / Math.max(1, Math.abs(line[key]!));
      expect(error, `step ${index + 1} ${key}: ${found[index]![key]} for ${line[key]}`).toBeLessThan(1e-3);
    }
  }
}

const ids = Array.from({ length: 20 }, (_, index) => 3 + ((index * 7) % 100));

async function expectSameModel(found: Mistral, expected: Mistral, within = 1e-3): Promise<void> {
  const [own, other] = [await found.logits(ids), await expected.logits(ids)];
  const scale = Math.max(...other.map(Math.abs));
  const error = Math.max(...own.map((logit, index) => Math.abs(logit - other[index]!))) / scale;
  expect(error).toBeLessThan(within);
}

afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe.skipIf(!name || !present(golden))("device cuda, emulated", () => {
  it("a golden dDPO run gives the CPU's numbers and the CPU's model", async () => {
    const events: TrainerEvent[] = [];
    const found = await dpo({}, events);
    const expected = await dpo({ device: "cpu" });
    expectSame(found.history, expected.history);
    await expectSameModel(found.model, expected.model);
    const start = events.find((event) => event.type === "start");
    expect(start?.device).toMatchObject({ id: "cuda:0", name: "emulation" });
    const { weights, gradients, states, activations, workspace, total, free, recompute } = start!.device.memory!;
    expect(weights + gradients + states + activations + workspace).toBe(total);
    expect(total).toBeLessThan(free);
    expect(recompute).toBe("none");
  });

  it("so does every other trainer, an adapter, and a reference that is not computed before", async () => {
    const both = async (train: (device: "cuda" | "cpu") => Promise<{ history: readonly Record<string, number>[] }>) => {
      expectSame((await train("cuda")).history, (await train("cpu")).history);
    };
    const dataset = rows().dpo as { prompt: unknown; chosen: unknown; rejected: unknown }[];
    const answers = dataset.flatMap(({ prompt, chosen, rejected }) => [
      { prompt, completion: chosen, label: true },
      { prompt, completion: rejected, label: false },
    ]);
    const short = { ...settings, maxSteps: 2 };
    await both(async (device) => new SftTrainer({ model: await load(), dataset: rows().sft, ...short, device }).fit());
    await both(async (device) => new OrpoTrainer({ policy: await load(), ...short, device }).fit(dataset));
    await both(async (device) => new KtoTrainer({ policy: await load(), ...short, batchSize: 4, device }).fit(answers));
    await both((device) => dpo({ ...short, device, lora: { rank: 4 }, gradientAccumulation: 2, batchSize: 1 }));
    // Masks and noise are drawn by place: the card's are the CPU's.
    await both((device) => dpo({ ...short, device, lora: { rank: 4, dropout: 0.3 }, learningRate: 0.01, maxSteps: 3 }));
    const noisy = { ...short, neftuneNoiseAlpha: 15 };
    await both(async (device) => new SftTrainer({ model: await load(), dataset: rows().sft, ...noisy, device }).fit());
    await both((device) => dpo({ ...short, device, precomputeRefLogps: false, sharedPrompt: false }));
  });

  it("a reference that follows the policy moves on the card too", async () => {
    const following = { syncRefModel: true, refModelSyncSteps: 2, refModelMixupAlpha: 0.5, maxSteps: 5 };
    const found = await dpo(following);
    expectSame(found.history, (await dpo({ ...following, device: "cpu" })).history);
    const fixed = await dpo({ precomputeRefLogps: false, maxSteps: 5 });
    expect(fixed.history[4]!.loss).not.toBeCloseTo(found.history[4]!.loss!, 6);
  });

  it("in bfloat16 it learns what the CPU learns", async () => {
    const found = await dpo({ precision: "bfloat16", optimizer: "adamw-bf16" });
    const expected = await dpo({ device: "cpu" });
    for (const [index, { loss }] of expected.history.entries()) {
      expect(Math.abs(found.history[index]!.loss! - loss!), `step ${index + 1}`).toBeLessThan(0.05);
    }
    await expectSameModel(found.model, expected.model, 0.1);
  });

  it("a run that is stopped and resumed ends with the bits of the undisturbed one", async () => {
    const file = (run: string) => readFileSync(join(folder, run, "model", "model.safetensors"));
    for (const precision of ["float32", "bfloat16"] as const) {
      const [whole, parted] = [`whole-${precision}`, `parted-${precision}`];
      const run = { precision, saveSteps: 2, maxSteps: 5, samples: 1, sampleSteps: 1 };
      await dpo({ ...run, outputDir: join(folder, whole) });
      const stop = new AbortController();
      const policy = await load();
      const trainer = new DpoTrainer({
        ...{ policy, ref: await load(ref), dataset: rows().dpo, ...settings, ...run },
        outputDir: join(folder, parted),
        signal: stop.signal,
      });
      await stopAt(trainer, stop, "step", 3);
      await dpo({ ...run, outputDir: join(folder, parted), resume: true });
      expect(file(parted).equals(file(whole)), precision).toBe(true);
    }
  });

  it("memory that does not suffice is told before the start, and the process goes on", async () => {
    process.env.ZEPHYR_EMULATED_MEMORY = "2000000";
    try {
      const refused = dpo().catch((error: unknown) => error);
      expect(await refused).toMatchObject({ name: "DeviceError", code: "ZA_DEVICE_MEMORY" });
      expect(String(await refused)).toMatch(/weights 0\.00 GB \+ .* = 0\.0\d GB.*are free/s);
      // Nothing plans an evaluation: it takes what it needs.
      process.env.ZEPHYR_EMULATED_MEMORY = "100000";
      const onCard = await Mistral.fromPretrained(model, { device: "cuda", tokenizer: join(golden, "tokenizer") });
      const evaluation = evaluatePairs(onCard, rows().dpo);
      await expect(evaluation).rejects.toMatchObject({ name: "OutOfMemoryError", code: "ZA_OUT_OF_MEMORY" });
    } finally {
      delete process.env.ZEPHYR_EMULATED_MEMORY;
    }
    expect((await dpo({ maxSteps: 1 })).steps).toBe(1);
  });

  it("recompute is chosen to fit", async () => {
    const planned = async () => {
      const events: TrainerEvent[] = [];
      await dpo({ maxSteps: 1 }, events);
      return events.find((event) => event.type === "start")!.device.memory!;
    };
    const { total, recompute } = await planned();
    expect(recompute).toBe("none");
    process.env.ZEPHYR_EMULATED_MEMORY = String(total - 1000);
    try {
      // The reference is another model, for which the policy makes room.
      expect((await planned()).recompute).toBe("norms-and-swiglu");
    } finally {
      delete process.env.ZEPHYR_EMULATED_MEMORY;
    }
  });

  it("what a card cannot do is refused by name before any work", async () => {
    const refused = async (run: Promise<unknown>, what: RegExp) => {
      const error = await run.catch((error: unknown) => error);
      expect(error).toMatchObject({ code: "ZA_DEVICE_UNSUPPORTED" });
      expect(String(error)).toMatch(what);
    };
    await refused(dpo({ optimizer: "adamw-bf16" }), /adamw-bf16/);
  });

  it("an evaluation on the card gives the CPU's rewards", async () => {
    const onCard = await Mistral.fromPretrained(model, { device: "cuda:0", tokenizer: join(golden, "tokenizer") });
    expect(onCard.device).toMatchObject({ kind: "cuda", id: "cuda:0", name: "emulation" });
    const found = await evaluatePairs(onCard, rows().dpo, { ref: onCard });
    const expected = await evaluatePairs(await load(), rows().dpo, { ref: await load() });
    for (const [name, { value }] of Object.entries(expected.metrics)) {
      // A pair that is nearly even may turn with the rounding.
      if (name.includes("accuracies")) continue;
      const within = Math.max(1, Math.abs(value)) * 2e-2;
      expect(Math.abs(found.metrics[name]!.value - value), name).toBeLessThan(within);
    }
  });
});
