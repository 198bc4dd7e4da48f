/** What must not change a run: how a batch is cut into micro-batches, packing, shared prompts, a resume, doing it twice. */
import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it } from "vitest";
import { DpoTrainer, Mistral, SftTrainer } from "../ts/index";
import type { StartEvent } from "../ts/train/events";
import { eventsOf, stopAt } from "./runs";
import { relative } from "./shared";

const base = fileURLToPath(new URL("../recipes/demo/base", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "zephyr-equal-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const words = ["seven", "nine", "ten", "two", "the red hat", "a blue coat", "Anna", "four boats, five bags"];
const chats = words.map((word, index) => ({
  messages: [
    { role: "user", content: `say ${word} ${"please ".repeat(index)}.` },
    { role: "assistant", content: `${word}.` },
  ],
}));
const pairs = chats.map(({ messages: [user, answer] }, index) => ({
  prompt: [user],
  chosen: [answer],
  rejected: [{ role: "assistant", content: `the text does not say. ${"no ".repeat(index)}` }],
}));

const common = { learningRate: 1e-3, lrScheduler: "constant", shuffle: false, logSteps: 1, maxLength: 64 } as const;

/** Numbers that any change of the weights shows in. */
async function probe(model: Mistral): Promise<Float32Array> {
  return model.logits(model.tokenizer.encode("Anna has a red hat. Ben has a blue coat."));
}

async function sft(options: Record<string, unknown>): Promise<Mistral> {
  const model = await Mistral.fromPretrained(base);
  await new SftTrainer({ model, dataset: chats, maxSteps: 3, ...common, ...options }).fit();
  return model;
}

async function dpo(options: Record<string, unknown>): Promise<Mistral> {
  const policy = await Mistral.fromPretrained(base);
  await new DpoTrainer({ policy, dataset: pairs, maxSteps: 3, ...common, ...options }).fit();
  return policy;
}

async function hash(model: Mistral, name: string): Promise<string> {
  const path = join(folder, name);
  await model.save(path);
  return createHash("sha256")
    .update(readFileSync(join(path, "model.safetensors")))
    .digest("hex");
}

describe("equal runs", () => {
  it.each([
    ["SFT", sft],
    ["DPO", dpo],
  ])("%s: accumulation 8 × 1 = 2 × 4 = 1 × 8", async (_, train) => {
    const whole = await probe(await train({ batchSize: 8 }));
    for (const [batchSize, gradientAccumulation] of [
      [4, 2],
      [2, 4],
      [1, 8],
    ]) {
      const found = await probe(await train({ batchSize, gradientAccumulation }));
      expect(relative(found, whole), `${batchSize} × ${gradientAccumulation}`).toBeLessThan(1e-5);
    }
  });

  it("SFT: packed = one by one", async () => {
    const single = await probe(await sft({ batchSize: 8 }));
    const packed = await probe(await sft({ batchSize: 8, packing: true }));
    expect(relative(packed, single)).toBeLessThan(1e-5);
  });

  it.each([true, false])(
    "DPO: shared prompts = separate sequences, reference cached: %s",
    async (precomputeRefLogps) => {
      const ref = await dpo({ batchSize: 8, learningRate: 1e-4 });
      const run = async (sharedPrompt: boolean) => {
        const policy = await Mistral.fromPretrained(base);
        const options = {
          ...common,
          maxSteps: 3,
          batchSize: 4,
          gradientAccumulation: 2,
          precomputeRefLogps,
          sharedPrompt,
        };
        const evalDataset = pairs.slice(2, 7);
        const trainer = new DpoTrainer({ policy, ref, dataset: pairs, evalDataset, evalSteps: 2, ...options });
        const { history } = await trainer.fit();
        return { history, logits: await probe(policy) };
      };
      const [shared, separate] = [await run(true), await run(false)];
      expect(relative(shared.logits, separate.logits)).toBeLessThan(1e-5);
      expect(shared.history).toHaveLength(separate.history.length);
      for (const [index, line] of separate.history.entries()) {
        const { tokens_per_second, computed_tokens, ...expected } = line as Record<string, number>;
        for (const [name, value] of Object.entries(expected)) {
          const error = Math.abs(shared.history[index]![name]! - value) / Math.max(1, Math.abs(value));
          expect(error, `line ${index}, ${name}`).toBeLessThan(1e-5);
        }
        if (computed_tokens !== undefined) expect(shared.history[index]!.computed_tokens).toBeLessThan(computed_tokens);
      }
    },
  );

  it("DPO: pairs packed = one by one", async () => {
    // All eight pairs in one step, in packs of several: the loss is divided by the pairs, not by the packs.
    const single = await probe(await dpo({ batchSize: 8 }));
    const packed = await probe(await dpo({ batchSize: 1, gradientAccumulation: 8, packing: true }));
    expect(relative(packed, single)).toBeLessThan(1e-5);
  });

  it("DPO: packs of equal pairs, several steps: loss and metrics of every step = the same steps unpacked", async () => {
    // Pairs of one length, so that every pack holds equally many and unpacked batches of as many are the same steps.
    const { tokenizer } = await Mistral.fromPretrained(base);
    const candidates = ["one", "two", "six", "ten", "red", "hat", "coat", "bag", "boat", "blue", "Anna", "Ben"];
    const single = candidates.filter((word) => tokenizer.encode(` ${word}`).length === 1).slice(0, 4);
    expect(single).toHaveLength(4);
    const dataset = single.flatMap((word) =>
      single.slice(1).map((wrong) => ({
        prompt: [{ role: "user", content: `say ${word}.` }],
        chosen: [{ role: "assistant", content: `the ${single[0]}` }],
        rejected: [{ role: "assistant", content: `the ${wrong}` }],
      })),
    );
    const run = async (options: Record<string, unknown>) => {
      const policy = await Mistral.fromPretrained(base);
      const trainer = new DpoTrainer({ policy, dataset, ...common, maxLength: 24, epochs: 2, ...options });
      const start = trainer[Symbol.asyncIterator]().next();
      const { history, steps } = await trainer.fit();
      const { totalSteps, packing } = (await start).value as StartEvent;
      expect(steps).toBe(totalSteps);
      return { history, packing };
    };
    // Unshared: a pack of whole sequences holds a number of pairs that divides twelve.
    const packed = await run({ packing: true, packLength: 96, batchSize: 2, sharedPrompt: false });
    const perPack = 12 / packed.packing!.packs;
    expect(perPack).toBeGreaterThan(1);
    const unpacked = await run({ batchSize: 2 * perPack });
    expect(packed.history).toHaveLength(unpacked.history.length);
    for (const [index, line] of unpacked.history.entries()) {
      for (const name of ["loss", "grad_norm", "rewards/margins", "num_tokens", "epoch"]) {
        expect(packed.history[index]![name]! - line[name]!, `${name} of step ${index + 1}`).toBeCloseTo(0, 4);
      }
    }
  });

  it("SFT wrapped: the stream of all documents is one sequence when it fits one", async () => {
    const model = await Mistral.fromPretrained(base);
    const { history, report } = await new SftTrainer({
      model,
      dataset: chats,
      ...common,
      maxLength: 32,
      packing: "wrapped",
      lossOn: "all",
      batchSize: 2,
      epochs: 1,
    }).fit();
    const pieces = Math.ceil(report.tokens / 32);
    expect(history).toHaveLength(Math.ceil(pieces / 2));
    expect(report.cutTokens).toBe(0);
    expect(history.at(-1)!.num_tokens).toBe(report.tokens);
    expect(report.supervisedTokens).toBe(report.tokens - pieces);
  });

  it.each([
    ["SFT", sft],
    ["DPO", dpo],
  ])("%s: every recompute policy, and twice the same, gives the same bits", async (name, train) => {
    const hashes = await Promise.all(
      ["none", "norms-and-swiglu", "layer", "none"].map(async (recompute, index) =>
        hash(await train({ batchSize: 4, recompute }), `${name}-${index}`),
      ),
    );
    expect(new Set(hashes).size).toBe(1);
  });

  it("one thread and two agree", async () => {
    const two = await probe(await sft({ batchSize: 8, threads: 2 }));
    const one = await probe(await sft({ batchSize: 8, threads: 1 }));
    expect(relative(one, two)).toBeLessThan(1e-5);
  });

  it.each([
    ["SFT", (model: Mistral, options: object) => new SftTrainer({ model, dataset: chats, ...options })],
    ["DPO", (policy: Mistral, options: object) => new DpoTrainer({ policy, dataset: pairs, ...options })],
  ])("%s: stopped and resumed = undisturbed, bit for bit", async (name, trainer) => {
    const options = { ...common, threads: 2, shuffle: true, batchSize: 2, epochs: 2, saveSteps: 3, samples: 0 };
    const undisturbed = await Mistral.fromPretrained(base);
    const whole = await trainer(undisturbed, { ...options, outputDir: join(folder, `${name}-whole`) }).fit();

    const outputDir = join(folder, `${name}-stopped`);
    const stop = new AbortController();
    const first = trainer(await Mistral.fromPretrained(base), { ...options, outputDir, signal: stop.signal });
    await stopAt(first, stop, "step", 5);

    const model = await Mistral.fromPretrained(base);
    // How far a run gets before it sees the signal is not fixed; what it saved is.
    const saved = readdirSync(join(outputDir, "checkpoints")).map((step) => Number(step.replace("step-", "")));
    const second = trainer(model, { ...options, outputDir, resume: true });
    const { result: resumed, events } = await eventsOf(second);
    const [start, end] = [events.at(0), events.at(-1)];
    const doneSteps = Math.max(...saved);
    expect(start).toMatchObject({ type: "start", doneSteps });
    // Speed is that of the process: the tokens since the checkpoint.
    const tokensAt = (step: number) => whole.history.find((line) => line.step === step)!.num_tokens!;
    expect(end).toMatchObject({ type: "end", tokens: tokensAt(whole.steps) - tokensAt(doneSteps) });
    expect(resumed.steps).toBe(whole.steps);
    expect(await hash(model, `${name}-b`)).toBe(await hash(undisturbed, `${name}-a`));
    const lines = (path: string) => readFileSync(join(path, "metrics.jsonl"), "utf8");
    expect(lines(outputDir)).toBe(lines(join(folder, `${name}-whole`)));

    const refused = await Mistral.fromPretrained(base);
    const before = await hash(refused, `${name}-c`);
    const other = trainer(refused, { ...options, learningRate: 5e-4, outputDir, resume: true });
    await expect(other.fit()).rejects.toThrow(/learningRate \(was 0\.001, is 0\.0005\)/);
    expect(await hash(refused, `${name}-d`), "a refused resume leaves the model as it was").toBe(before);
  });
});
