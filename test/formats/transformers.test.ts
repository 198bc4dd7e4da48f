/** Folders in Hugging Face's layout: transformers loads ours, and we load what it saves. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Mistral } from "../../ts/index";
import { golden, lastJson, present, pythonWith, readJson, relative } from "../shared";

const scratch = mkdtempSync(join(tmpdir(), "zephyr-folder-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const python = pythonWith("transformers");
const script = fileURLToPath(new URL("load_and_save.py", import.meta.url));
const demo = fileURLToPath(new URL("../../recipes/demo/base", import.meta.url));
const ids = [1, 40, 7, 99, 12, 33, 64, 5, 20, 11, 300, 2, 17, 18, 19, 21];
const texts = ["Hello world", "  two  spaces\tand\n\na line", "naïve — 12345 don't", "日本語 🦙", ""];
const messages = [
  { role: "system" as const, content: "Be kind." },
  { role: "user" as const, content: "Say two." },
];

const models = {
  "tied embeddings": { needs: demo, folder: demo, options: {} },
  "a window": { needs: golden, folder: join(golden, "window"), options: { tokenizer: join(golden, "tokenizer") } },
  "heads wider than the hidden size": {
    needs: golden,
    folder: join(golden, "headdim"),
    options: { tokenizer: join(golden, "tokenizer") },
  },
};

describe.runIf(python)("transformers", () => {
  const there = Object.entries(models).filter(([, { needs }]) => present(needs));
  const jobs = there.flatMap(([title, { folder, options }]) =>
    (["float32", "bfloat16"] as const).map((dtype) => ({ title, folder, options, dtype })),
  );
  const saved = ({ title, dtype }: (typeof jobs)[number]) => join(scratch, `${title} ${dtype}`);
  let answers: { logits: number[]; tokens: number[][]; rendered: string; eos: number | number[] }[];

  // One process for all: it takes longer to start than to answer.
  beforeAll(async () => {
    for (const job of jobs) {
      const model = await Mistral.fromPretrained(job.folder, job.options);
      await model.save(saved(job), { dtype: job.dtype, maxShardBytes: 100_000 });
    }
    const folders = jobs.map((job) => [saved(job), `${saved(job)} theirs`]);
    answers = lastJson(python!, [script, JSON.stringify({ folders, ids, texts, messages, shard: "200KB" })]);
  });

  it.each(jobs)("$title, $dtype, sharded, there and back", async (job) => {
    const model = await Mistral.fromPretrained(job.folder, job.options);
    const ours = saved(job);
    const index = readJson<{ metadata: { total_size: number }; weight_map: Record<string, string> }>(
      ours,
      "model.safetensors.index.json",
    );
    const shards = readdirSync(ours).filter((name) => /^model-\d{5}-of-\d{5}\.safetensors$/.test(name));
    expect([...new Set(Object.values(index.weight_map))].sort()).toEqual(shards.sort());
    expect(index.metadata.total_size).toBe(model.parameters * (job.dtype === "float32" ? 4 : 2));

    const expected = await (await Mistral.fromPretrained(ours)).logits(ids);
    if (job.dtype === "float32") expect(expected).toEqual(await model.logits(ids));
    const found = answers[jobs.indexOf(job)]!;
    expect(relative(found.logits, expected)).toBeLessThan(1e-4);
    expect(found.tokens).toEqual(texts.map((text) => Array.from(model.tokenizer.encode(text))));
    expect(found.rendered).toBe(model.tokenizer.render(messages, { addGenerationPrompt: true }));
    expect([found.eos].flat()).toEqual([model.config.eos_token_id].flat());

    const back = await Mistral.fromPretrained(`${ours} theirs`);
    expect(await back.logits(ids)).toEqual(expected);
    expect(back.tokenizer.chatTemplate).toBe(model.tokenizer.chatTemplate);
    for (const text of texts) expect(back.tokenizer.encode(text)).toEqual(model.tokenizer.encode(text));
  });
});

describe("a saved folder", () => {
  it("replaces the chat template of what was there", async () => {
    const model = await Mistral.fromPretrained(demo);
    const folder = join(scratch, "template");
    await model.save(folder);
    writeFileSync(join(folder, "chat_template.jinja"), "an older one");
    await model.save(folder);
    expect(readFileSync(join(folder, "chat_template.jinja"), "utf8")).toBe(model.tokenizer.chatTemplate);
    expect((await Mistral.fromPretrained(folder)).tokenizer.chatTemplate).toBe(model.tokenizer.chatTemplate);
  });

  it("keeps what the generation configuration says", async () => {
    const model = await Mistral.fromPretrained(demo);
    const folder = join(scratch, "generation");
    await model.save(folder);
    const written = readJson<Record<string, unknown>>(folder, "generation_config.json");
    writeFileSync(
      join(folder, "generation_config.json"),
      JSON.stringify({ ...written, temperature: 0.7, eos_token_id: [2, 5] }),
    );
    const again = join(scratch, "generation again");
    await (await Mistral.fromPretrained(folder)).save(again);
    expect(readJson(again, "generation_config.json")).toMatchObject({ temperature: 0.7, eos_token_id: [2, 5] });
  });
});
