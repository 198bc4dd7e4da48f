/** Reference log-probs that lie beside the run, through the public trainer. */
import { appendFileSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { buildProgram } from "../ts/cli/program";
import { DpoTrainer, KtoTrainer, type Logger, Mistral } from "../ts/index";
import { eventsOf, gate } from "./runs";

const base = new URL("../recipes/demo/base", import.meta.url).pathname;
const pairs = ["one", "two", "three", "four", "five", "six"].map((word, index) => ({
  prompt: [{ role: "user" as const, content: `say ${word}.` }],
  chosen: [{ role: "assistant" as const, content: word }],
  rejected: [{ role: "assistant" as const, content: `no ${"very ".repeat(index)}` }],
}));
const options = { maxSteps: 3, batchSize: 2, logSteps: 1, saveSteps: 0, samples: 0, maxLength: 64 };

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "reference-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

async function train(more: Record<string, unknown> = {}, dataset = pairs) {
  const policy = await Mistral.fromPretrained(base);
  return new DpoTrainer({ policy, dataset, ...options, ...more }).fit();
}

const lines = (file: string) => readFileSync(file, "utf8").trim().split("\n");

describe("reference log-probs in a file", () => {
  it("lie in the run folder and change nothing", async () => {
    const outputDir = join(folder, "run");
    const [kept, fresh] = [await train({ outputDir, evalDataset: pairs.slice(0, 3) }), await train()];
    expect(lines(join(outputDir, "reference.jsonl"))).toHaveLength(1 + 3);
    expect(lines(join(outputDir, "reference-eval.jsonl"))).toHaveLength(1 + 2);
    const losses = (history: readonly Record<string, number>[]) =>
      history.flatMap(({ loss }) => (loss === undefined ? [] : [loss]));
    expect(losses(kept.history)).toEqual(losses(fresh.history));
  });

  it("are computed in blocks of refBatchSize, go on half-way, and serve another run", async () => {
    const referenceCache = join(folder, "shared.jsonl");
    const first = await train({ referenceCache, refBatchSize: 1 });
    const whole = readFileSync(referenceCache);
    expect(lines(referenceCache)).toHaveLength(1 + 6);
    // Half of it, and a line that broke off.
    writeFileSync(referenceCache, `${lines(referenceCache).slice(0, 4).join("\n")}\n{"start":6,"su`);
    const second = await train({ referenceCache, refBatchSize: 1 });
    expect(readFileSync(referenceCache)).toEqual(whole);
    const before = statSync(referenceCache).mtimeMs;
    // The reference's file counts even where the learning rate differs.
    const third = await train({ referenceCache, learningRate: 1e-5, outputDir: join(folder, "third") });
    expect(statSync(referenceCache).mtimeMs).toBe(before);
    expect(existsSync(join(folder, "third", "reference.jsonl"))).toBe(false);
    expect(second.history).toEqual(first.history);
    expect(third.history[0]!.loss).toBe(first.history[0]!.loss);
  });

  it("of another reference, other pairs or another template are refused before the first step", async () => {
    const referenceCache = join(folder, "shared.jsonl");
    await train({ referenceCache });
    const whole = readFileSync(referenceCache);
    const other = (await train({ learningRate: 1e-2 })).model;
    const refused = async (run: Promise<unknown>, said: RegExp) =>
      expect(run).rejects.toMatchObject({
        code: "ZA_REFERENCE_CACHE",
        message: expect.stringMatching(said),
        place: { file: referenceCache },
      });
    await refused(train({ referenceCache, ref: other }), /reference model/);
    await refused(train({ referenceCache }, pairs.toReversed()), /rows, template/);
    await refused(train({ referenceCache }, pairs.slice(1)), /number of sequences/);
    const template = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}</s>\n{% endfor %}";
    await refused(train({ referenceCache, template }), /rows, template/);
    appendFileSync(referenceCache, "x\n");
    await refused(train({ referenceCache }), /line 5 .*damaged/);
    writeFileSync(referenceCache, whole);
    await train({ referenceCache });
  });
});

describe("a model that was given as reference", () => {
  setFlagsFromString("--expose-gc");
  const collect: () => void = runInNewContext("gc");
  const Trainers = { DPO: DpoTrainer, KTO: KtoTrainer };

  /** Trains with a second model as reference; whether that can still be reached when the second step is logged. */
  async function train2(make: (ref: Mistral, loggers: Logger[]) => DpoTrainer | KtoTrainer) {
    let held: boolean | undefined;
    // The run waits at its end for the logger, which has looked by then.
    const looked = gate();
    const log = async (step: number) => {
      if (step !== 2) return;
      await new Promise((resolve) => setImmediate(resolve));
      collect();
      held = weak.deref() !== undefined;
      looked.open();
    };
    let ref: Mistral | undefined = await Mistral.fromPretrained(base);
    const weak = new WeakRef(ref);
    const trainer = make(ref, [{ name: "looking", start() {}, log, end: () => looked.opened }]);
    ref = undefined;
    const { events } = await eventsOf<unknown>(trainer);
    return { held, told: events.map(({ type }) => type), trainer };
  }

  it.each([
    ["DPO", {}, false],
    ["KTO", {}, false],
    ["DPO", { syncRefModel: true, refModelSyncSteps: 2 }, false],
    ["DPO", { precomputeRefLogps: false }, true],
  ] as const)("%s with %o: the trainer holds it while it needs it", async (name, how, needed) => {
    const policy = await Mistral.fromPretrained(base);
    const { held, told, trainer } = await train2((ref, loggers) => {
      return new Trainers[name]({ policy, ref, dataset: pairs, ...options, ...how, loggers });
    });
    expect(held).toBe(needed);
    expect(told.filter((type) => type === "reference")).toHaveLength(needed ? 0 : 1);
    if (!needed) await expect(trainer.fit()).rejects.toThrow(/has let go of its reference/);
  });

  it("is given back by the command line before the first step", async () => {
    const data = join(folder, "pairs.json");
    writeFileSync(data, JSON.stringify(pairs));
    const ref = join(folder, "reference");
    await (await Mistral.fromPretrained(base)).save(ref);
    const dispose = vi.spyOn(Mistral.prototype, "dispose").mockImplementation(function (this: Mistral) {
      given.push([this.source, existsSync(join(out, "metrics.jsonl"))]);
    });
    const given: [string, boolean][] = [];
    const out = join(folder, "run");
    const flags = ["--model", base, "--ref", ref, "--data", data, "--out", out, "--max-steps", "2", "--quiet"];
    try {
      await buildProgram().parseAsync(["dpo", ...flags, "--max-length", "64"], { from: "user" });
      expect(given).toEqual([[ref, false]]);
    } finally {
      dispose.mockRestore();
    }
  });
});
