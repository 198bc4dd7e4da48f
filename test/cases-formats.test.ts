import { cpSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Mistral } from "../ts/index";
import { startServing } from "./serve/serving";
import { buildProgram, cases, present, readJson, runProgram } from "./shared";

const scratch = mkdtempSync(join(tmpdir(), "zephyr-cases-formats-"));
const when = (folder: string) => describe.runIf(present(join(cases, folder)));
const sumOf = async (model: Mistral, ids: readonly number[]) =>
  (await model.score(ids)).reduce((total, logprob) => total + logprob, 0);

beforeAll(() => {
  buildProgram();
});
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const cli = (...args: string[]) => runProgram(args);

when("11-safetensors-legal-oddities")("case 11: odd but legal safetensors files", () => {
  const folder = join(cases, "11-safetensors-legal-oddities");

  it("header order, empty metadata, padding and tensors of no elements change nothing", async () => {
    const { ids, sum } = readJson<{ ids: number[]; sum: number }>(folder, "expected.json");
    const found = await sumOf(await Mistral.fromPretrained(join(folder, "model")), ids);
    expect(Math.abs(found / sum - 1)).toBeLessThan(1e-4);
  });

  it("a file of metadata alone is read; as a model it lacks tensors, by name", async () => {
    const place = join(scratch, "only-metadata");
    cpSync(join(folder, "model"), place, { recursive: true });
    cpSync(join(folder, "only-metadata.safetensors"), join(place, "model.safetensors"));
    await expect(Mistral.fromPretrained(place)).rejects.toMatchObject({
      code: "ZA_TENSOR_MISSING",
      message: expect.stringContaining("model.embed_tokens.weight"),
    });
  });

  it("a tensor without dimensions is read beside the others", async () => {
    const { ids, sum } = readJson<{ ids: number[]; sum: number }>(folder, "expected.json");
    const place = join(scratch, "scalar");
    cpSync(join(folder, "model"), place, { recursive: true });
    cpSync(join(folder, "scalar.safetensors"), join(place, "scalar.safetensors"));
    renameSync(join(place, "model.safetensors"), join(place, "others.safetensors"));
    const names = (file: string) => {
      const bytes = readFileSync(join(place, file));
      const header = JSON.parse(bytes.toString("utf8", 8, 8 + Number(bytes.readBigUInt64LE(0))));
      return Object.keys(header).filter((name) => name !== "__metadata__");
    };
    expect(names("scalar.safetensors")).toHaveLength(1);
    const files = ["others.safetensors", "scalar.safetensors"];
    const map = Object.fromEntries(files.flatMap((file) => names(file).map((name) => [name, file])));
    writeFileSync(join(place, "model.safetensors.index.json"), JSON.stringify({ metadata: {}, weight_map: map }));
    const found = await sumOf(await Mistral.fromPretrained(place), ids);
    expect(Math.abs(found / sum - 1)).toBeLessThan(1e-4);
  });
});

when("12-index-against-shards")("case 12: shards and index disagree", () => {
  const folder = join(cases, "12-index-against-shards");
  const expected = () =>
    readJson<{ ids: number[]; sum: number; missing_file: string; missing_tensor: string }>(folder, "expected.json");

  it("the index decides between two copies of a tensor", async () => {
    const { ids, sum } = expected();
    const found = await sumOf(await Mistral.fromPretrained(join(folder, "stale-copy-in-other-shard")), ids);
    expect(Math.abs(found / sum - 1)).toBeLessThan(1e-4);
  });

  it("what is missing is named, by API, command line and server; nothing is loaded in part", async () => {
    const { missing_file, missing_tensor } = expected();
    const faults = { "shard-file-missing": [missing_file], "tensor-not-in-its-shard": [missing_tensor, "-of-00002"] };
    for (const [name, words] of Object.entries(faults)) {
      const model = join(folder, name);
      const error = await Mistral.fromPretrained(model).then(
        () => undefined,
        (thrown: Error) => thrown,
      );
      const chat = cli("chat", "--model", model, "--once", "hi");
      const serve = cli("serve", "--model", model, "--port", "0");
      expect([chat.status, serve.status], name).toEqual([77, 77]);
      for (const word of words) {
        expect(error?.message, name).toContain(word);
        expect(chat.stderr, name).toContain(word);
        expect(serve.stderr, name).toContain(word);
      }
    }
  });
});

when("13-rank-stabilised-adapter")("case 13: use_rslora, rank_pattern and alpha_pattern", () => {
  const folder = join(cases, "13-rank-stabilised-adapter");
  const base = join(folder, "base");
  const names = ["adapter-rslora", "adapter-patterns"] as const;
  type Expected = Record<(typeof names)[number], { ids: number[]; sum: number }> & { base_sum: number };
  const expected = () => readJson<Expected>(folder, "expected.json");

  it.each(names)("%s: loaded, saved again, merged by the command line, and served", async (name) => {
    const { base_sum, [name]: wanted } = expected();
    const near = (found: number, sum: number) => expect(Math.abs(found - sum)).toBeLessThan(1e-3);
    near(await sumOf(await Mistral.fromPretrained(base), wanted.ids), base_sum);
    const adapted = await Mistral.fromPretrained(base, { adapter: join(folder, name) });
    near(await sumOf(adapted, wanted.ids), wanted.sum);

    const again = join(scratch, `again-${name}`);
    await adapted.saveAdapter(again);
    const fields = ["r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "target_modules"];
    const configOf = (place: string) => {
      const config = readJson<Record<string, unknown>>(place, "adapter_config.json");
      return Object.fromEntries(fields.map((field) => [field, config[field]]));
    };
    const [ours, theirs] = [configOf(again), configOf(join(folder, name))];
    const sorted = (config: Record<string, unknown>) => [...(config.target_modules as string[])].sort();
    expect({ ...ours, target_modules: sorted(ours) }).toEqual({ ...theirs, target_modules: sorted(theirs) });
    near(await sumOf(await Mistral.fromPretrained(base, { adapter: again }), wanted.ids), wanted.sum);

    const merged = join(scratch, `merged-${name}`);
    const { status, stderr } = cli("merge", base, join(folder, name), "-o", merged);
    expect(status, stderr).toBe(0);
    near(await sumOf(await Mistral.fromPretrained(merged), wanted.ids), wanted.sum);

    const server = await startServing(["--model", `micro=${base}`, "--adapter", join(folder, name)]);
    const scored = async (model: string) => {
      const ask = { model, prompt: wanted.ids, max_tokens: 0, echo: true, logprobs: 0 };
      const [choice] = (await server.openai.completions.create(ask)).choices;
      return choice!.logprobs!.token_logprobs!.slice(1).reduce((total, logprob) => total + logprob, 0);
    };
    near(await scored("micro"), wanted.sum);
    near(await scored("micro:base"), base_sum);
    expect(await server.stop()).toBe(0);
  });

  it("patterns that cannot be honoured are refused by name", async () => {
    const changed = (change: (config: Record<string, unknown>) => void) => {
      const place = mkdtempSync(join(scratch, "refused-"));
      cpSync(join(folder, "adapter-patterns"), place, { recursive: true });
      const config = readJson<Record<string, unknown>>(place, "adapter_config.json");
      change(config);
      writeFileSync(join(place, "adapter_config.json"), JSON.stringify(config));
      return place;
    };
    const refused = (place: string) => expect(Mistral.fromPretrained(base, { adapter: place })).rejects;
    // The tensors are of rank 2 for o_proj.
    await refused(changed((config) => Object.assign(config, { rank_pattern: { o_proj: 3 } }))).toThrow(/o_proj/);
    await refused(changed((config) => Object.assign(config, { rank_pattern: { o_proj: "2" } }))).toThrow(
      /rank_pattern/,
    );
    await refused(changed((config) => Object.assign(config, { use_dora: true }))).toThrow(/use_dora/);
    await refused(changed((config) => Object.assign(config, { modules_to_save: ["lm_head"] }))).toThrow(
      /modules_to_save/,
    );
  });
});
