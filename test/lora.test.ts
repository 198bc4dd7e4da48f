/** LoRA through the public package: what is trained, what the reference is, PEFT's folder there and back, merging. */
import { copyFileSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { DpoTrainer, Mistral, SftTrainer } from "../ts/index";
import { eventsOf, stopAt } from "./runs";
import { golden, present, readJson, relative } from "./shared";

const folder = join(golden, "window");
const tokenizer = join(golden, "tokenizer");
const ids = [1, 40, 7, 99, 12, 33, 64, 5, 20, 11];
const load = (path = folder) => Mistral.fromPretrained(path, { tokenizer });
const rows = () => readJson<{ sft: never[]; dpo: never[] }>(folder, "data.json");
const lora = { rank: 4, alpha: 8, dropout: 0.1 };
const steps = { maxSteps: 4, batchSize: 4, learningRate: 5e-3, logSteps: 1 };

let scratch: string;
beforeAll(() => {
  scratch = mkdtempSync(join(tmpdir(), "zephyr-lora-"));
});
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

describe.runIf(present(golden))("LoRA", () => {
  it("trains the adapter alone, against the base as reference, and saves PEFT's folder", async () => {
    const policy = await load();
    const before = await policy.logits(ids);
    const outputDir = join(scratch, "run");
    const trainer = new DpoTrainer({ policy, dataset: rows().dpo, lora, outputDir, samples: 0, ...steps });
    expect(trainer.config.lora).toEqual({ ...lora, targetModules: "all-linear", useRslora: false });
    const { result, events } = await eventsOf(trainer);
    const { model, history, reference } = result;
    expect(reference).toBe("adapter-off");
    expect(events.find(({ type }) => type === "start")).toMatchObject({
      reference: "adapter-off",
      adapter: { parameters: model.trainableParameters, frozen: policy.parameters },
    });
    expect(history[0]!.loss).toBeCloseTo(Math.LN2, 6);
    expect(history[0]!["rewards/margins"]).toBe(0);
    expect(history.at(-1)!.loss).toBeLessThan(Math.LN2);
    // The model that was given is as it was, and the trained one is it, under an adapter.
    expect(await policy.logits(ids)).toEqual(before);
    expect(model.withoutAdapter().native.sharesWeights(policy.native)).toBe(true);
    expect(model.trainableParameters).toBeLessThan(policy.parameters / 4);
    expect(relative(await model.logits(ids), before)).toBeGreaterThan(1e-3);

    expect(existsSync(join(outputDir, "model"))).toBe(false);
    const saved = join(outputDir, "adapter");
    expect(readdirSync(saved)).toEqual(
      expect.arrayContaining(["adapter_config.json", "adapter_model.safetensors", "tokenizer.json"]),
    );
    // The folder names its base, so that it is enough to load both.
    const again = await Mistral.fromPretrained(saved);
    expect(again.adapter).toMatchObject({ r: 4, lora_alpha: 8, lora_dropout: 0.1, peft_type: "LORA" });
    expect(await again.logits(ids)).toEqual(await model.logits(ids));
    expect(await (await load()).withAdapter(saved).then((other) => other.logits(ids))).toEqual(await model.logits(ids));

    const merged = await model.merge();
    expect(merged.adapter).toBeUndefined();
    expect(relative(await merged.logits(ids), await model.logits(ids))).toBeLessThan(1e-5);
    await expect(model.save(join(scratch, "whole"))).rejects.toMatchObject({ code: "ZA_MODEL_INVALID" });
  });

  it("a resumed run is the undisturbed run", async () => {
    const whole = async (outputDir: string, options: object) =>
      new DpoTrainer({ policy: await load(), dataset: rows().dpo, lora, outputDir, samples: 0, ...steps, ...options });
    const one = join(scratch, "undisturbed");
    await (await whole(one, { saveSteps: 2 })).fit();
    const two = join(scratch, "resumed");
    const stop = new AbortController();
    const broken = await whole(two, { saveSteps: 2, signal: stop.signal });
    await stopAt(broken, stop, "checkpoint");
    await (await whole(two, { saveSteps: 2, resume: true })).fit();
    const file = "adapter/adapter_model.safetensors";
    expect(readFileSync(join(two, file)).equals(readFileSync(join(one, file)))).toBe(true);
  });

  it("DPO over the adapter of dSFT keeps that adapter as the reference, and says so", async () => {
    const { model: tuned } = await new SftTrainer({ model: await load(), dataset: rows().sft, lora, ...steps }).fit();
    const start = tuned.frozenCopy();
    const frozen = await start.logits(ids);
    for (const precomputeRefLogps of [true, false]) {
      const policy = tuned.frozenCopy();
      const trainer = new DpoTrainer({ policy, dataset: rows().dpo, precomputeRefLogps, ...steps });
      const { model, history, reference } = await trainer.fit();
      expect(reference).toBe("start-adapter");
      // The adapter's dropout is on in training, so that the policy is near its start, not on it.
      expect(history[0]!.loss).not.toBe(Math.LN2);
      expect(history[0]!.loss).toBeCloseTo(Math.LN2, 1);
      expect(await start.logits(ids)).toEqual(frozen);
      expect(relative(await model.logits(ids), frozen)).toBeGreaterThan(1e-4);
    }
    const still = await (await load()).withLora({ ...lora, dropout: 0 });
    await new SftTrainer({ model: still, dataset: rows().sft, ...steps }).fit();
    const exact = await new DpoTrainer({ policy: still, dataset: rows().dpo, ...steps }).fit();
    expect(exact.reference).toBe("start-adapter");
    expect(exact.history[0]!.loss).toBeCloseTo(Math.LN2, 6);
    // The trap: with the adapter off the reference is the base, and the first rewards are not 0.
    const policy = tuned.frozenCopy();
    const bare = new DpoTrainer({ policy, ref: policy.withoutAdapter(), dataset: rows().dpo, ...steps });
    const { history, reference } = await bare.fit();
    expect(reference).toBe("given");
    expect(Math.abs(history[0]!["rewards/chosen"]!)).toBeGreaterThan(1e-3);
    // A second adapter over the first is refused; merged first, it is trained over what dSFT learnt.
    const stacked = new DpoTrainer({ policy: tuned, dataset: rows().dpo, lora, ...steps });
    await expect(stacked.fit()).rejects.toMatchObject({ code: "ZA_ADAPTER_STACKED" });
    const merged = await tuned.merge();
    const over = await new DpoTrainer({ policy: merged, dataset: rows().dpo, lora, ...steps }).fit();
    expect(over.reference).toBe("adapter-off");
    expect(over.history[0]!.loss).toBeCloseTo(Math.LN2, 6);
  });

  it("refuses what cannot be adapted, and says what can", async () => {
    const model = await load();
    await expect(model.withLora({ targetModules: ["query"] })).rejects.toMatchObject({
      code: "ZA_ADAPTER_CONFIG",
      problem: expect.stringContaining("query"),
      remedy: expect.stringContaining("q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj"),
    });
    expect(() => new DpoTrainer({ policy: model, lora: { rank: 0 } })).toThrow(/lora.rank/);
    await expect((await load(join(golden, "headdim"))).withAdapter(await adapterFolder())).rejects.toMatchObject({
      code: "ZA_ADAPTER_BASE",
      problem: expect.stringContaining("lora_A"),
    });
    await expect(Mistral.fromPretrained(await adapterFolder())).rejects.toMatchObject({
      code: "ZA_MODEL_NOT_FOUND",
      remedy: expect.stringContaining("adapter"),
    });
  });

  /** The golden adapter, whose configuration names no base. */
  async function adapterFolder(): Promise<string> {
    const place = mkdtempSync(join(scratch, "golden-"));
    copyFileSync(join(folder, "lora/adapter_config.json"), join(place, "adapter_config.json"));
    copyFileSync(join(folder, "lora/final.safetensors"), join(place, "adapter_model.safetensors"));
    return place;
  }
});

it.runIf(present(golden))("the command line trains an adapter; its flags follow from the fields", async () => {
  const { buildProgram } = await import("../ts/cli/program");
  const { collectConfig } = await import("../ts/cli/config-options");
  const flags = (given: object) => collectConfig("dpo", { ...given }).config.lora;
  expect(flags({})).toBeUndefined();
  expect(flags({ lora: true })).toEqual({});
  expect(flags({ lora: false })).toBeNull();
  expect(flags({ loraRank: 8, loraTargetModules: ["q_proj"] })).toEqual({ rank: 8, targetModules: ["q_proj"] });
  expect(flags({ loraTargetModules: ["all-linear"] })).toEqual({ targetModules: "all-linear" });
  expect(flags({ loraTargetModules: [".*[qv]_proj"] })).toEqual({ targetModules: ".*[qv]_proj" });

  const out = join(scratch, "by-flags");
  const data = join(scratch, "pairs.json");
  writeFileSync(data, JSON.stringify(rows().dpo));
  const given = ["--model", folder, "--tokenizer", tokenizer, "--data", data, "--out", out, "--quiet"];
  const options = [
    "--lora-rank",
    "2",
    "--lora-use-rslora",
    "--lora-target-modules",
    "q_proj,v_proj",
    "--max-steps",
    "2",
  ];
  await buildProgram().parseAsync(["dpo", ...given, ...options], { from: "user" });
  const model = await Mistral.fromPretrained(join(out, "adapter"));
  expect(model.adapter).toMatchObject({ r: 2, use_rslora: true, target_modules: ["q_proj", "v_proj"] });
  expect(readJson<object>(out, "config.json")).toMatchObject({ learningRate: 1e-5, lora: { rank: 2, alpha: 2 } });
});
