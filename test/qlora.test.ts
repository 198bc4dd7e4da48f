/** Frozen bases: bf16 and NF4 are loaded, refused for full training, trained through an adapter, and known to transformers. */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { DpoTrainer, Mistral, SftTrainer } from "../ts/index";
import { resolveConfig, type SftConfigInput, sftConfig } from "../ts/train/config";
import { nativeBatch } from "../ts/train/native-batch";
import { openSession } from "../ts/train/run";
import { golden, present, pythonWith, readJson, relative } from "./shared";

const folder = join(golden, "window");
const tokenizer = join(golden, "tokenizer");
const ids = [1, 40, 7, 99, 12, 33, 64, 5, 20, 11];
const rows = () => readJson<{ sft: never[]; dpo: never[] }>(folder, "data.json");
const steps = { maxSteps: 4, batchSize: 4, learningRate: 5e-3, logSteps: 1 };
const storages = [
  ["bfloat16", { dtype: "bfloat16" }],
  ["nf4", { quantization: "nf4" }],
] as const;

let scratch: string;
beforeAll(() => {
  scratch = mkdtempSync(join(tmpdir(), "zephyr-qlora-"));
});
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

describe.runIf(present(golden))("frozen bases", () => {
  for (const [storage, loading] of storages) {
    it(`${storage} is refused for full training and trained through an adapter`, async () => {
      const whole = await Mistral.fromPretrained(folder, { tokenizer });
      const model = await Mistral.fromPretrained(folder, { tokenizer, ...loading });
      expect(model.storage).toBe(storage);
      expect(model.native.weightBytes).toBeLessThan(0.55 * whole.native.weightBytes);
      const error = relative(await model.logits(ids), await whole.logits(ids));
      expect(error).toBeGreaterThan(1e-5);
      expect(error).toBeLessThan(storage === "nf4" ? 0.3 : 0.02);
      for (const trainer of [
        new SftTrainer({ model, dataset: rows().sft, ...steps }),
        new DpoTrainer({ policy: model, dataset: rows().dpo, ...steps }),
      ]) {
        await expect(trainer.fit()).rejects.toMatchObject({
          code: "ZA_MODEL_FROZEN",
          remedy: expect.stringContaining("lora"),
        });
      }

      const outputDir = join(scratch, storage);
      const lora = { rank: 4, alpha: 8 };
      const trainer = new DpoTrainer({ policy: model, dataset: rows().dpo, lora, outputDir, samples: 0, ...steps });
      const { model: trained, history } = await trainer.fit();
      expect(history[0]!.loss).toBeCloseTo(Math.LN2, 6);
      expect(history.at(-1)!.loss).toBeLessThan(history[0]!.loss! - 1e-3);
      const saved = join(outputDir, "adapter");
      expect(existsSync(join(saved, "quantization_config.json"))).toBe(storage === "nf4");
      const again = await Mistral.fromPretrained(saved, loading);
      expect(again.storage).toBe(storage);
      expect(await again.logits(ids)).toEqual(await trained.logits(ids));
      // Merged it is float32: the base's values as they were kept, and what the adapter adds.
      const merged = await trained.merge();
      expect(merged.storage).toBe("float32");
      expect(relative(await merged.logits(ids), await trained.logits(ids))).toBeLessThan(1e-5);
    });
  }

  it("other types are refused by name", async () => {
    const load = (options: object) => Mistral.fromPretrained(folder, { tokenizer, ...options });
    await expect(load({ dtype: "float16" })).rejects.toMatchObject({
      code: "ZA_MODEL_INVALID",
      place: { field: "dtype" },
    });
    await expect(load({ quantization: "fp4" })).rejects.toThrow(/fp4/);
  });

  it("keeps the inputs of layers alone for the backward where the base is quantised and nothing is said", async () => {
    const used = async (loading: object, recompute: SftConfigInput["recompute"]) => {
      const model = await (await Mistral.fromPretrained(folder, { tokenizer, ...loading })).withLora({ rank: 4 });
      const session = openSession(model, resolveConfig(sftConfig, { ...steps, recompute }));
      const row = { ids: Uint32Array.from(ids), supervised: new Uint8Array(ids.length).fill(1) };
      await session.accumulateSft(nativeBatch(Array(8).fill(row)), 8 * (ids.length - 1), true);
      return session.bytes();
    };
    const [plain, nf4] = [{}, { quantization: "nf4" }];
    expect(await used(nf4, "auto")).toBe(await used(nf4, "layer"));
    expect(await used(plain, "auto")).toBe(await used(plain, "norms-and-swiglu"));
    expect(await used(nf4, "layer")).toBeLessThan(await used(nf4, "norms-and-swiglu"));
  });

  // The package bitsandbytes, in the peer or in a folder of its own.
  const bitsandbytes = { PYTHONPATH: process.env.ZEPHYR_BITSANDBYTES ?? "/tmp/bnb-core/x" };
  const python = pythonWith("bitsandbytes", bitsandbytes);
  it.runIf(python)("transformers and PEFT load the NF4 base by the saved config, and the adapter over it", async () => {
    // bitsandbytes' own CPU kernel misreads rows that are not whole blocks of 64, which the golden models have.
    const config = { ...readJson<object>(folder, "config.json"), intermediate_size: 192 };
    const random = await Mistral.random(config, (await Mistral.fromPretrained(folder, { tokenizer })).tokenizer, 3);
    const base = join(scratch, "base");
    await random.save(base);
    const model = await (await Mistral.fromPretrained(base, { quantization: "nf4" })).withLora({ rank: 4 });
    await new SftTrainer({ model, dataset: rows().sft, ...steps }).fit();
    const saved = join(scratch, "peer");
    await model.saveAdapter(saved);
    const program = `
import sys, json, torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from peft import PeftModel
base, adapter, ids = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
config = BitsAndBytesConfig.from_dict(json.load(open(adapter + "/quantization_config.json")))
# Embeddings and head stay 16-bit, as in QLoRA; norms are made f32 by prepare_model_for_kbit_training.
model = AutoModelForCausalLM.from_pretrained(base, quantization_config=config, dtype=torch.float32)
for part in (model.model.embed_tokens, model.lm_head):
    part.weight.data = part.weight.data.to(torch.bfloat16).to(torch.float32)
with torch.no_grad():
    # In eval mode bitsandbytes rounds scales and products on the CPU to bfloat16; there is no dropout that train would turn on.
    model = PeftModel.from_pretrained(model, adapter).train()
    print(type(model.base_model.model.model.layers[0].mlp.up_proj.base_layer).__name__)
    print(json.dumps(model(torch.tensor([ids])).logits[0].flatten().tolist()))
`;
    const args = ["-c", program, base, saved, JSON.stringify(ids)];
    const env = { ...process.env, ...bitsandbytes };
    const { status, stdout, stderr } = spawnSync(python!, args, { encoding: "utf8", env });
    expect(status, stderr).toBe(0);
    const [layer, logits = ""] = stdout.trim().split("\n").slice(-2);
    expect(layer).toBe("Linear4bit");
    expect(relative(await model.logits(ids), JSON.parse(logits))).toBeLessThan(1e-4);
  });
});
