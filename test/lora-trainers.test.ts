/** An adapter in every trainer: what its base gives stays, its loss falls, and what was saved is what was trained. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  CpoTrainer,
  DpoTrainer,
  KtoTrainer,
  type LoadOptions,
  Mistral,
  OrpoTrainer,
  SftTrainer,
  SimpoTrainer,
  type TrainResult,
} from "../ts/index";
import { golden, present, readJson, relative } from "./shared";

const folder = join(golden, "window");
const tokenizer = join(golden, "tokenizer");
const ids = [1, 40, 7, 99, 12, 33, 64, 5, 20, 11];
const rows = () => readJson<{ sft: never[]; dpo: never[] }>(folder, "data.json");
const lora = { rank: 4, alpha: 8 };
/** The same rows in every step, so that the losses can be compared. */
const steps = { maxSteps: 6, batchSize: 4, shuffle: false, logSteps: 1, samples: 0 };

let scratch: string;
beforeAll(() => {
  scratch = mkdtempSync(join(tmpdir(), "zephyr-lora-trainers-"));
});
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

interface Trainer {
  readonly config: { readonly learningRate: number };
  fit(): Promise<TrainResult>;
}
type Make = (model: Mistral, options: object) => Trainer;

const pairs = () => rows().dpo.slice(0, 4);
const cases: Record<string, { make: Make; usual: number; loading?: LoadOptions; options?: object }> = {
  "SFT with noise": {
    make: (model, options) => new SftTrainer({ model, dataset: rows().sft.slice(0, 4), ...options }),
    usual: 2e-5,
    options: { neftuneNoiseAlpha: 1 },
  },
  "DPO in bfloat16": {
    make: (policy, options) => new DpoTrainer({ policy, dataset: pairs(), ...options }),
    usual: 1e-6,
    loading: { dtype: "bfloat16" },
  },
  "KTO over NF4": {
    // Eight answers of four pairs.
    make: (policy, options) => new KtoTrainer({ policy, dataset: pairs(), ...options, batchSize: 8 } as never),
    usual: 1e-6,
    loading: { quantization: "nf4" },
  },
  "ORPO with 8-bit moments": {
    make: (policy, options) => new OrpoTrainer({ policy, dataset: pairs(), ...options }),
    usual: 1e-6,
    options: { optimizer: "adamw-8bit" },
  },
  CPO: { make: (policy, options) => new CpoTrainer({ policy, dataset: pairs(), ...options }), usual: 1e-6 },
  "SimPO with dropout": {
    make: (policy, options) => new SimpoTrainer({ policy, dataset: pairs(), ...options }),
    usual: 1e-6,
    options: { lora: { ...lora, dropout: 0.05 } },
  },
};

describe.runIf(present(golden))("an adapter", () => {
  it.each(Object.entries(cases))("in %s", async (name, { make, usual, loading = {}, options = {} }) => {
    const base = await Mistral.fromPretrained(folder, { tokenizer, ...loading });
    expect(make(base, { lora, ...options }).config.learningRate / usual).toBeCloseTo(10, 12);
    expect(make(base, {}).config.learningRate).toBe(usual);

    const before = await base.logits(ids);
    const fingerprint = await base.native.fingerprint();
    const outputDir = join(scratch, name.replaceAll(" ", "-"));
    const { model, history } = await make(base, { lora, learningRate: 5e-3, outputDir, ...steps, ...options }).fit();
    expect(await base.logits(ids)).toEqual(before);
    expect(await base.native.fingerprint()).toBe(fingerprint);
    expect(await model.withoutAdapter().logits(ids)).toEqual(before);

    expect(history).toHaveLength(steps.maxSteps);
    expect(history.at(-1)!.loss).toBeLessThan(history[0]!.loss! - 1e-3);
    expect(relative(await model.logits(ids), before)).toBeGreaterThan(1e-3);

    const again = await Mistral.fromPretrained(join(outputDir, "adapter"), loading);
    expect(again.storage).toBe(base.storage);
    expect(again.adapter).toMatchObject({ r: 4, lora_alpha: 8 });
    expect(await again.logits(ids)).toEqual(await model.logits(ids));
  });
});
