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
import { chooseDevice } from "../ts/native/devices";
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

const cpu = await chooseDevice("cpu");
const onCpu = (model: Mistral) => model.on(cpu);

async function expectSameModel(found: Mistral, expected: Mistral, within = 1e-3): Promise<void> {
  // By the CPU both: what is compared is what was trained.
  const [own, other] = [await onCpu(found).logits(ids), await onCpu(expected).logits(ids)];
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
      // Less than the measurement of the card's speed takes, too.
      await expect(dpo({ measurePeak: true })).rejects.toMatchObject({ code: "ZA_DEVICE_MEMORY" });
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

  describe("generating and scoring", () => {
    const tokenizer = join(golden, "tokenizer");
    const card = (path = model) => Mistral.fromPretrained(path, { device: "cuda", tokenizer });
    const text = Uint32Array.from(ids);
    const prompts = [Uint32Array.of(5, 9, 30, 7, 7, 12, 3), text, Uint32Array.of(4)];
    /** In bfloat16, over weights that are rounded. */
    const near = (found: Float32Array, expected: Float32Array) => {
      expect(found).toHaveLength(expected.length);
      for (const [index, logp] of expected.entries()) expect(Math.abs(found[index]! - logp)).toBeLessThan(0.06);
    };

    it("say what the CPU says, alone and together, as a stream, and again after the weights were trained", async () => {
      using onCard = await card();
      const reference = await load();
      near(await onCard.score(ids), await reference.score(ids));
      near(await onCard.logits([3, 4, 5]), await reference.logits([3, 4, 5]));
      const options = { maxTokens: 12, logprobs: 3 };
      const together = await onCard.generateBatch(prompts, options);
      for (const [index, prompt] of prompts.entries()) {
        const alone = await onCard.generate(prompt, options);
        expect([...together[index]!.ids]).toEqual([...alone.ids]);
        expect(alone.timing?.promptTokens).toBe(prompt.length);
        // What it says is most probable under the CPU's weights too, but for rounding.
        const scores = await reference.score([...prompt, ...alone.ids]);
        const own = alone.logprobs!.map(({ logprob }) => logprob);
        near(Float32Array.from(own), scores.subarray(prompt.length - 1));
      }
      const pieces: string[] = [];
      for await (const piece of onCard.stream(prompts[0]!, { maxTokens: 12 })) pieces.push(piece);
      expect(pieces.join("")).toBe((await onCard.generate(prompts[0]!, { maxTokens: 12 })).text);

      const before = await onCard.score(ids);
      await new SftTrainer({ model: onCard, dataset: rows().sft, ...settings, learningRate: 0.05 }).fit();
      const after = await onCard.score(ids);
      expect(Math.max(...after.map((logp, index) => Math.abs(logp - before[index]!)))).toBeGreaterThan(0.5);
      near(after, await onCpu(onCard).score(ids));
    });

    it("adapters, frozen weights, kept texts and abort", async () => {
      using base = await Mistral.fromPretrained(model, { device: "cuda", tokenizer, quantization: "nf4" });
      using adapted = await base.withLora({ rank: 4 });
      await new SftTrainer({ model: adapted, dataset: rows().sft, ...settings, learningRate: 0.05 }).fit();
      near(await adapted.score(ids), await onCpu(adapted).score(ids));
      near(await base.score(ids), await onCpu(base).score(ids));

      const first = await adapted.generate(text, { maxTokens: 6, reuse: true });
      const longer = Uint32Array.of(...ids, ...first.ids, 9, 11);
      const second = await adapted.generate(longer, { maxTokens: 6, reuse: true });
      expect([...second.ids]).toEqual([...(await adapted.generate(longer, { maxTokens: 6 })).ids]);

      const signal = AbortSignal.abort();
      await expect(adapted.generate(text, { signal })).rejects.toMatchObject({ code: "ZA_ABORTED" });
      await expect(adapted.generate(text, { kvCache: "q8" })).rejects.toMatchObject({ code: "ZA_GENERATE_OPTION" });
    });

    it("a run's samples are answered where it trains; where there is no room, on the CPU, which is told", async () => {
      const sampled = async (device: "cuda" | "cpu") => {
        const events: TrainerEvent[] = [];
        await dpo({ device, samples: 1, sampleSteps: 2, learningRate: 0.01 }, events);
        return events.filter((event) => event.type === "samples").map(({ samples }) => samples[0]!.answer);
      };
      const onCard = await sampled("cuda");
      expect(onCard).toHaveLength(3);
      expect(onCard).toEqual(await sampled("cpu"));
      expect(onCard[2]).not.toBe(onCard[0]);

      const events: TrainerEvent[] = [];
      await dpo({ maxSteps: 1 }, events);
      const { total } = events.find((event) => event.type === "start")!.device.memory!;
      process.env.ZEPHYR_EMULATED_MEMORY = String(total + 1000);
      try {
        const events: TrainerEvent[] = [];
        await dpo({ maxSteps: 1, samples: 1 }, events);
        const warnings = events.filter((event) => event.type === "warning").map(({ message }) => message);
        expect(warnings.join("\n")).toMatch(/samples are answered on the CPU: .* bytes/);
      } finally {
        delete process.env.ZEPHYR_EMULATED_MEMORY;
      }
    });

    it("memory: a model makes room for another and for a training; what does not fit is an error of its own", async () => {
      const bytes = (await load()).parameters * 2;
      // For the weights of one, and its workspace.
      process.env.ZEPHYR_EMULATED_MEMORY = String(Math.round(bytes * 1.5 + 1_500_000));
      try {
        using one = await card();
        using other = await card();
        const scores = await one.score(ids);
        expect(await other.score(ids)).toEqual(scores);
        expect(await one.score(ids)).toEqual(scores);
      } finally {
        delete process.env.ZEPHYR_EMULATED_MEMORY;
      }
      // A training is planned for the whole card.
      const events: TrainerEvent[] = [];
      await dpo({ maxSteps: 1 }, events);
      const { total } = events.find((event) => event.type === "start")!.device.memory!;
      process.env.ZEPHYR_EMULATED_MEMORY = String(total + 1000);
      try {
        using one = await card();
        const scores = await one.score(ids);
        expect((await dpo({ maxSteps: 1 })).steps).toBe(1);
        expect(await one.score(ids)).toEqual(scores);
      } finally {
        delete process.env.ZEPHYR_EMULATED_MEMORY;
      }
      process.env.ZEPHYR_EMULATED_MEMORY = "100000";
      try {
        using none = await card();
        const refused = await none.generate(text).catch((error: unknown) => error);
        expect(refused).toMatchObject({ name: "OutOfMemoryError", code: "ZA_OUT_OF_MEMORY" });
      } finally {
        delete process.env.ZEPHYR_EMULATED_MEMORY;
      }
      using again = await card();
      expect((await again.generate(text, { maxTokens: 2 })).ids.length).toBeLessThanOrEqual(2);
    });
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
