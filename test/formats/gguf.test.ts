/** GGUF files that we write, read by ourselves, by llama.cpp (node-llama-cpp) and by the gguf package of Python. */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it } from "vitest";
import { type GgufType, Mistral, Tokenizer } from "../../ts/index";
import { ggufTypes } from "../../ts/model/gguf-export";
import { cases, data, golden, lastJson, llamaPeer, present, pythonWith, readJson } from "../shared";

const scratch = mkdtempSync(join(tmpdir(), "zephyr-gguf-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const llama = llamaPeer();
const python = pythonWith("gguf");
const here = (name: string) => fileURLToPath(new URL(name, import.meta.url));
const demo = fileURLToPath(new URL("../../recipes/demo/base", import.meta.url));
const goldenTokenizer = join(golden, "tokenizer");

interface LlamaAnswer {
  logits: number[][];
  tokens: number[][];
  texts: string[];
  name: string;
  architecture: string;
  template: string;
  bos: number;
  eos: number;
  addsBos: boolean;
  contextSize: number;
}
const inLlama = (file: string, request: object) =>
  lastJson<LlamaAnswer>(process.execPath, [here("llama.mjs"), llama!, file, JSON.stringify(request)]);

/** The largest difference of logits, and the root of the mean square of all. */
function differences(found: ArrayLike<number>, expected: ArrayLike<number>): { most: number; rms: number } {
  expect(found.length).toBe(expected.length);
  let most = 0;
  let sum = 0;
  for (let i = 0; i < found.length; i++) {
    const difference = Math.abs(found[i]! - expected[i]!);
    // Stays NaN where a logit is no number.
    most = Math.max(difference, most);
    sum += difference ** 2;
  }
  return { most, rms: Math.sqrt(sum / found.length) };
}

/** Rows of 256 and 512 values, which the K types have blocks for. */
async function wide(): Promise<Mistral> {
  const base = await Mistral.fromPretrained(demo);
  const sizes = { hidden_size: 256, intermediate_size: 512, head_dim: 64 };
  return Mistral.random({ ...base.config, ...sizes }, base.tokenizer, 7);
}

/** Models of many shapes: tied and not, heads of their own size, a window, both kinds of tokenizer, ids without a token. */
const models: Record<string, { needs: string; ids: number[]; load: () => Promise<Mistral>; kBlocks?: true }> = {
  "whole blocks of K types": {
    needs: demo,
    ids: [1, 40, 7, 99, 12, 33, 500, 64, 5, 20, 11, 1023],
    load: wide,
    kBlocks: true,
  },
  "the demo's base": {
    needs: demo,
    ids: [1, 40, 7, 99, 12, 33, 500, 64, 5, 20, 11, 1023],
    load: () => Mistral.fromPretrained(demo),
  },
  "heads wider than the hidden size": {
    needs: golden,
    ids: [1, 40, 7, 99, 12, 33, 64, 5, 20, 11],
    load: () => Mistral.fromPretrained(join(golden, "headdim"), { tokenizer: goldenTokenizer }),
  },
  "a window": {
    needs: golden,
    ids: [1, 40, 7, 99, 12, 33, 64, 5, 20, 11],
    load: () => Mistral.fromPretrained(join(golden, "window"), { tokenizer: goldenTokenizer }),
  },
  "Mistral's tokenizer": {
    needs: data,
    kBlocks: true,
    ids: [1, 22557, 1526, 28725, 4, 31999, 2],
    load: async () => {
      const folder = join(data, "tokenizer");
      const tokenizer = Tokenizer.fromFiles({
        tokenizer: readFileSync(join(folder, "tokenizer.json")),
        config: readFileSync(join(folder, "tokenizer_config.json"), "utf8"),
      });
      const config = {
        model_type: "mistral",
        vocab_size: 32_016,
        hidden_size: 256,
        intermediate_size: 512,
        num_hidden_layers: 2,
        num_attention_heads: 8,
        num_key_value_heads: 2,
        sliding_window: null,
        max_position_embeddings: 512,
        rope_theta: 1e6,
        rms_norm_eps: 1e-6,
      };
      return Mistral.random(config, tokenizer, 5);
    },
  },
};

const texts = [
  "Hello world",
  "  two  spaces, a tab\tand\n\na line",
  "naïve façade — 12345 ½ don't DON'T",
  "日本語とहिन्दी и русский 🦙🏳️‍🌈",
  "",
];

for (const [title, { needs, ids, load, kBlocks }] of Object.entries(models)) {
  describe.runIf(present(needs))(title, () => {
    const exported = async (type: GgufType) => {
      const file = join(scratch, `${title.replace(/\W/g, "-")}.${type}.gguf`);
      const model = await load();
      return { model, file, written: await model.exportGguf(file, { type, name: title }) };
    };

    it.each(ggufTypes)("%s comes back, with its tokenizer", async (type) => {
      const { model, file, written } = await exported(type);
      expect(readFileSync(file).length).toBe(written.bytes);
      const back = await Mistral.fromPretrained(file);
      const [ours, theirs] = [await model.logits(ids), await back.logits(ids)];
      if (type === "F32") expect(theirs).toEqual(ours);
      for (const [name, value] of Object.entries(back.config)) {
        // llama.cpp writes Mistral as `llama`; transformers' other fields are in no GGUF file.
        if (["architectures", "model_type", "initializer_range"].includes(name)) continue;
        expect(model.config[name], name).toEqual(value);
      }
      expect(back.tokenizer.chatTemplate).toBe(model.tokenizer.chatTemplate);
      for (const text of texts) {
        expect(back.tokenizer.encode(text, { addSpecialTokens: true })).toEqual(
          model.tokenizer.encode(text, { addSpecialTokens: true }),
        );
      }
      expect(back.stopTokenIds.sort()).toEqual(model.stopTokenIds.sort());
      const kept = written.tensors;
      expect(Object.values(kept).reduce((sum, count) => sum + count)).toBeGreaterThan(10);
    });

    it("the same model gives the same bytes", async () => {
      const { model, file } = await exported("Q4_0");
      const again = join(scratch, "again.gguf");
      await model.exportGguf(again, { type: "Q4_0", name: title });
      expect(readFileSync(again).equals(readFileSync(file))).toBe(true);
      rmSync(again);
      expect(readdirSync(scratch).filter((name) => name.endsWith(".tmp"))).toEqual([]);
    });

    // llama.cpp rounds activations to 8 bits before it multiplies quantised weights; the bounds are what that moves here.
    describe.runIf(llama)("llama.cpp", () => {
      it.each([
        ["F32", 1e-3, 1e-3],
        ["F16", 0.02, 0.01],
        ["BF16", 0.1, 0.05],
        ["Q8_0", 0.1, 0.05],
        ["Q4_0", 0.2, 0.1],
        ["Q4_K", 0.2, 0.1],
      ] as const)("%s gives our logits of the same file", async (type, most, rms) => {
        const { file, written } = await exported(type);
        if (type === "Q4_K" && kBlocks) expect(Object.keys(written.tensors).sort()).toEqual(["F32", "Q4_K", "Q6_K"]);
        const ours = await (await Mistral.fromPretrained(file)).logits(ids);
        const theirs = inLlama(file, { ids }).logits.flat();
        const scale = Math.max(1, differences(ours, new Float32Array(ours.length)).rms);
        const found = differences(theirs, ours);
        console.log(
          `${title}, ${type}: logits differ by at most ${found.most.toExponential(1)}, rms ${found.rms.toExponential(1)}, of rms ${scale.toPrecision(3)}`,
        );
        // Nothing is rounded in F32: as it stands, whatever the logits' size.
        expect(type === "F32" ? found.most : found.most / scale).toBeLessThanOrEqual(most);
        expect(found.rms / scale).toBeLessThanOrEqual(rms);
      });

      it("reads tokenizer, template and names as ours", async () => {
        const { model, file } = await exported("F32");
        const answer = inLlama(file, { texts });
        expect(answer).toMatchObject({ name: title, architecture: "llama", template: model.tokenizer.chatTemplate });
        expect(answer.contextSize).toBe(model.config.max_position_embeddings);
        expect(answer.eos).toBe(model.tokenizer.eosTokenId);
        expect(answer.tokens).toEqual(texts.map((text) => Array.from(model.tokenizer.encode(text))));
      });
    });
  });
}

describe.runIf(python)("the gguf package of Python", () => {
  interface Read {
    alignment: number;
    fields: Record<string, { types: string[]; value: unknown }>;
    tensors: Record<string, { type: string; shape: number[]; offset: number; error?: number; same?: boolean | null }>;
  }
  const read = (...files: string[]) => lastJson<Read>(python!, [here("read_gguf.py"), ...files]);

  it.runIf(present(demo)).each([
    { title: "rows of 128", make: () => Mistral.fromPretrained(demo), kBlocks: false },
    { title: "rows of 256", make: wide, kBlocks: true },
  ])("$title: reads every field and tensor; blocks have the bytes of its own quantisers", async ({ make, kBlocks }) => {
    const model = await make();
    const reference = join(scratch, "reference.gguf");
    await model.exportGguf(reference, { type: "F32" });
    const bounds: Record<GgufType, number> = { F32: 0, F16: 5e-4, BF16: 4e-3, Q8_0: 0.012, Q4_0: 0.13, Q4_K: 0.11 };
    for (const type of ggufTypes) {
      const file = join(scratch, `fields.${type}.gguf`);
      const written = await model.exportGguf(file, { type, name: "base" });
      if (type === "Q4_K") {
        for (const each of ["Q4_K", "Q6_K"]) expect(Object.hasOwn(written.tensors, each), each).toBe(kBlocks);
      }
      const { alignment, fields, tensors } = read(file, reference);
      expect(alignment).toBe(32);
      const value = (key: string) => fields[key]?.value;
      expect(value("GGUF.version")).toBe(3);
      expect(fields["tokenizer.ggml.tokens"]!.types).toEqual(["ARRAY", "STRING"]);
      expect(fields["tokenizer.ggml.token_type"]!.types).toEqual(["ARRAY", "INT32"]);
      expect(fields["llama.rope.freq_base"]!.types).toEqual(["FLOAT32"]);
      expect(fields["tokenizer.ggml.add_bos_token"]!.types).toEqual(["BOOL"]);
      expect(fields["general.file_type"]).toEqual({
        types: ["UINT32"],
        value: { F32: 0, F16: 1, BF16: 32, Q8_0: 7, Q4_0: 2, Q4_K: 15 }[type],
      });
      const config = model.config;
      expect(
        Object.fromEntries(
          ["block_count", "embedding_length", "vocab_size", "attention.key_length"].map((key) => [
            key,
            value(`llama.${key}`),
          ]),
        ),
      ).toEqual({
        block_count: config.num_hidden_layers,
        embedding_length: config.hidden_size,
        vocab_size: config.vocab_size,
        "attention.key_length": config.head_dim,
      });
      expect(value("general.name")).toBe("base");
      expect((value("tokenizer.ggml.tokens") as string[])[2]).toBe("</s>");
      expect(value("tokenizer.chat_template")).toBe(model.tokenizer.chatTemplate);
      const counts: Record<string, number> = {};
      for (const [name, tensor] of Object.entries(tensors)) {
        counts[tensor.type] = (counts[tensor.type] ?? 0) + 1;
        expect(tensor.offset % 32).toBe(0);
        expect(tensor.error, `${type}, ${name}`).toBeLessThanOrEqual(bounds[type]);
        // It has no quantiser for the K types.
        expect(tensor.same, `${type}, ${name}`).toBe(tensor.type.endsWith("_K") ? null : true);
      }
      expect(counts).toEqual(written.tensors);
      expect(Object.keys(tensors)).toHaveLength(2 + 9 * config.num_hidden_layers);
    }
  });
});

describe("zephyr-align export gguf", () => {
  const adapters = join(cases, "13-rank-stabilised-adapter");

  it.runIf(present(adapters))("merges an adapter, and says what it wrote", async () => {
    const { buildProgram } = await import("../../ts/cli/program");
    const expected = readJson<Record<string, { ids: number[]; sum: number }>>(adapters, "expected.json");
    const { ids, sum } = expected["adapter-patterns"]!;
    const file = join(scratch, "merged.gguf");
    const json = join(scratch, "merged.json");
    const given = ["export", "gguf", join(adapters, "base"), file, "--type", "F32"];
    const flags = ["--adapter", join(adapters, "adapter-patterns"), "--template", "zephyr", "--json", json];
    await buildProgram().parseAsync([...given, ...flags], { from: "user" });
    const model = await Mistral.fromPretrained(file);
    const found = (await model.score(ids)).reduce((total, logp) => total + logp, 0);
    expect(Math.abs(found - sum)).toBeLessThan(1e-3);
    expect(model.tokenizer.chatTemplate).toContain("<|assistant|>");
    expect(readJson(json)).toMatchObject({ file, type: "F32", parameters: model.parameters, notes: [] });
    expect(readJson<{ bytes: number }>(json).bytes).toBe(readFileSync(file).length);
  });

  it("refuses an adapter over a model that is not merged, unknown types, and tokenizers that llama.cpp lacks", async () => {
    const model = await Mistral.fromPretrained(demo);
    const file = join(scratch, "refused.gguf");
    const lora = await model.withLora({ rank: 2 });
    await expect(lora.exportGguf(file)).rejects.toMatchObject({ code: "ZA_MODEL_INVALID" });
    await expect(model.exportGguf(file, { type: "Q3_K" as never })).rejects.toMatchObject({
      code: "ZA_CONFIG_INVALID",
    });
    const tokenizer = JSON.parse(model.tokenizer.toJson());
    tokenizer.normalizer = { type: "Lowercase" };
    const lower = Tokenizer.fromFiles({
      tokenizer: Buffer.from(JSON.stringify(tokenizer)),
      config: model.tokenizer.configJson(),
    });
    const other = await Mistral.random(model.config, lower, 1);
    await expect(other.exportGguf(file)).rejects.toMatchObject({
      name: "TokenizerError",
      code: "ZA_TOKENIZER_EXPORT",
      problem: expect.stringContaining("Lowercase"),
      remedy: expect.stringContaining("folder"),
    });
    expect(existsSync(file)).toBe(false);
  });
});
