/** The files that zephyr-align/browser is given, in Node: of every kind, sharded, by their headers, and refused by name. */
import {
  cpSync,
  mkdtempSync,
  openAsBlob,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { randomGgufHeader } from "../bench/random-gguf.mjs";
import { Mistral } from "../ts/model/mistral";
import { wasmBuilt } from "./browser/built";
import { urlOf } from "./browser/golden";
import { base, browser, failure, load, question } from "./browser/node";
import { serveSite } from "./browser/site";
import { splitPart } from "./formats/split-part";
import { cases, present, readJson } from "./shared";

describe.runIf(wasmBuilt)("files of zephyr-align/browser in Node", () => {
  it("loads bytes, a Blob and the files of a folder as well", async () => {
    const file = (name: string) => openAsBlob(join(base, name));
    using fromFiles = await browser.Mistral.fromPretrained({
      config: await file("config.json"),
      tokenizer: readFileSync(join(base, "tokenizer.json")),
      tokenizerConfig: urlOf(join(base, "tokenizer_config.json")),
      generationConfig: await file("generation_config.json"),
      weights: [await file("model.safetensors")],
    });
    using whole = await load(base);
    const said = await whole.generate(question, { maxTokens: 12 });
    expect((await fromFiles.generate(question, { maxTokens: 12 })).text).toBe(said.text);
    using half = await load(base, { dtype: "bfloat16" });
    expect([half.storage, half.weightBytes < 0.52 * whole.weightBytes]).toEqual(["bfloat16", true]);
  });

  it("a tokenizer.json larger than any is not read, here and natively", async () => {
    const folder = mkdtempSync(join(tmpdir(), "zephyr-browser-large-"));
    cpSync(base, folder, { recursive: true });
    for (const name of ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]) {
      writeFileSync(join(folder, name), "");
      truncateSync(join(folder, name), 64 * 2 ** 20 + 1);
      const problem = expect.stringContaining("67108865 bytes are too many");
      expect(await failure(load(folder))).toMatchObject({ code: "ZA_MODEL_FORMAT", problem });
      expect(await failure(Mistral.fromPretrained(folder))).toMatchObject({ code: "ZA_TOKENIZER_FILE", problem });
      rmSync(join(folder, name));
      if (name !== "chat_template.jinja") cpSync(join(base, name), join(folder, name));
    }
    rmSync(folder, { recursive: true, force: true });
  });

  const shape = { hidden: 256, inner: 512, layers: 2, heads: 4, kvHeads: 2, vocabulary: 600, context: 256 };

  it("another architecture, and a file that is cut off, are refused by name", async () => {
    const { header } = randomGgufHeader("Q4_0", shape);
    expect(await failure(browser.Mistral.fromPretrained(header))).toMatchObject({
      code: "ZA_MODEL_FORMAT",
      problem: expect.stringContaining("cut off"),
    });
    const text = Buffer.from(header);
    text.write("qwen2", text.indexOf("llama"));
    const whole = Buffer.concat([text, Buffer.alloc(1 << 20)]);
    expect(await failure(browser.Mistral.fromPretrained(whole))).toMatchObject({
      code: "ZA_MODEL_UNSUPPORTED",
      problem: expect.stringContaining("qwen2"),
    });
  });

  /** What a file is refused with of which only the header comes. */
  async function byHeader(name: string, header: Uint8Array, bytes: number, options = {}) {
    const server = createServer((_, response) => {
      response.writeHead(200, { "content-length": bytes });
      // As much of the rest as a look at a header may take; then nothing comes any more.
      response.write(
        Buffer.concat([header, Buffer.alloc(Math.min(bytes - header.length, 2 * header.length + 2 ** 18))]),
      );
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    try {
      return await failure(browser.Mistral.fromPretrained(`http://127.0.0.1:${port}/${name}`, options));
    } finally {
      server.closeAllConnections();
      server.close();
    }
  }

  it.each([
    ["Q2_K", {}],
    ["Q3_K", {}],
    ["Q2_K", { quantization: "none" }],
    ["Q3_K", { quantization: "gguf" }],
  ] as const)("%s, which WebAssembly does not know, is refused by its header (%o)", async (kind, options) => {
    const { header, bytes } = randomGgufHeader(kind, { ...shape, layers: 8, vocabulary: 4000 });
    expect(await byHeader("m.gguf", header, bytes, options)).toMatchObject({
      code: "ZA_MODEL_UNSUPPORTED",
      problem: expect.stringMatching(new RegExp(`${kind} of tensor .token_embd.weight.`)),
      remedy: expect.stringMatching(/native package[\s\S]*Q4_K/),
    });
  });

  it("a part of a split file is refused by its header, with the name of one that is missing", async () => {
    const { header, bytes } = randomGgufHeader("Q4_0", { ...shape, layers: 8, vocabulary: 4000 });
    const second = splitPart(Buffer.from(header), 1, 3);
    const more = second.length - header.length;
    expect(await byHeader("m%20x-00002-of-00003.gguf", second, bytes + more)).toMatchObject({
      code: "ZA_SHARD_MISSING",
      problem: expect.stringContaining("m x-00001-of-00003.gguf"),
      remedy: expect.stringContaining("--merge"),
    });
    const first = Buffer.concat([splitPart(Buffer.from(header), 0, 3), Buffer.alloc(bytes)]);
    expect(await failure(browser.Mistral.fromPretrained(first))).toMatchObject({
      code: "ZA_SHARD_MISSING",
      problem: expect.stringContaining("part 2 of 3"),
    });
  });

  it.each(["Q8_0", "Q4_0"])("a 7B model in %s is refused by its header, before the rest is fetched", async (kind) => {
    const shape = { hidden: 4096, inner: 14336, layers: 32, heads: 32, kvHeads: 8, vocabulary: 32000, context: 4096 };
    const { header, bytes } = randomGgufHeader(kind, shape);
    let sent = 0;
    const server = createServer((_, response) => {
      response.writeHead(200, { "content-length": bytes });
      const more = Buffer.alloc(1 << 16);
      response.write(header);
      const go = setInterval(() => {
        sent += more.length;
        response.write(more);
      }, 1);
      response.on("close", () => clearInterval(go));
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    const error = await failure(browser.Mistral.fromPretrained(`http://127.0.0.1:${port}/7b.gguf`));
    server.closeAllConnections();
    server.close();
    expect(error).toMatchObject({
      code: "ZA_MODEL_TOO_LARGE",
      problem: expect.stringMatching(/needs \d{10} bytes/),
      remedy: expect.stringContaining("4 GiB"),
    });
    expect(sent).toBeLessThan(100e6);
  });

  const case12 = join(cases, "12-index-against-shards");
  describe.runIf(present(case12))("case 12: shards and index disagree", () => {
    interface Expected {
      ids: number[];
      sum: number;
      missing_file: string;
      missing_tensor: string;
    }
    const sum = (logprobs: Float32Array) => logprobs.reduce((sum, logprob) => sum + logprob, 0);
    const shard = (number: number) => `model-0000${number}-of-00002.safetensors`;
    const index = "model.safetensors.index.json";
    const scratch = mkdtempSync(join(tmpdir(), "zephyr-browser-index-"));
    afterAll(() => rmSync(scratch, { recursive: true, force: true }));

    /** The folder of the stale copy, with the shards' names swapped: the copy stands in another place then. */
    function swapped(): string {
      const place = join(scratch, "swapped");
      cpSync(join(case12, "stale-copy-in-other-shard"), place, { recursive: true });
      renameSync(join(place, shard(1)), join(place, "kept"));
      renameSync(join(place, shard(2)), join(place, shard(1)));
      renameSync(join(place, "kept"), join(place, shard(2)));
      const text = readFileSync(join(place, index), "utf8");
      writeFileSync(
        join(place, index),
        text.replace(/-0000([12])-of/g, (_, number) => `-0000${3 - number}-of`),
      );
      return place;
    }

    it("the index decides between two copies, whichever comes first, here and natively", async () => {
      const expected = readJson<Expected>(case12, "expected.json");
      for (const place of [join(case12, "stale-copy-in-other-shard"), swapped()]) {
        using model = await load(place);
        using native = await Mistral.fromPretrained(place);
        for (const each of [model, native]) {
          expect(Math.abs(sum(await each.score(expected.ids)) / expected.sum - 1)).toBeLessThan(1e-4);
        }
        // As files one by one, in any order; they are known by their names.
        const at = (name: string) => urlOf(join(place, name));
        const files = { config: at("config.json"), tokenizer: at("tokenizer.json"), index: at(index) };
        using one = await browser.Mistral.fromPretrained({ ...files, weights: [at(shard(2)), at(shard(1))] });
        expect(Math.abs(sum(await one.score(expected.ids)) / expected.sum - 1)).toBeLessThan(1e-4);
        const { index: _, ...unsaid } = files;
        const weights = [at(shard(1)), at(shard(2))];
        expect(await failure(browser.Mistral.fromPretrained({ ...unsaid, weights }))).toMatchObject({
          code: "ZA_MODEL_FORMAT",
          problem: expect.stringContaining(index),
        });
        const bytes = weights.map((url) => readFileSync(new URL(url)));
        expect(await failure(browser.Mistral.fromPretrained({ ...files, weights: bytes }))).toMatchObject({
          code: "ZA_MODEL_FORMAT",
          problem: expect.stringContaining("names"),
        });
      }
    });

    it("what is missing is named, and nothing is loaded in part", async () => {
      const { missing_file, missing_tensor } = readJson<Expected>(case12, "expected.json");
      expect(await failure(load(join(case12, "shard-file-missing")))).toMatchObject({
        code: "ZA_SHARD_MISSING",
        problem: expect.stringContaining(missing_file),
      });
      const error = await failure(load(join(case12, "tensor-not-in-its-shard")));
      expect(error).toMatchObject({ code: "ZA_TENSOR_MISSING", problem: expect.stringContaining(missing_tensor) });
      expect(error.problem).toContain(missing_file);
    });

    it("a model.safetensors beside an index is taken before it, here and natively", async () => {
      const { ids } = readJson<Expected>(case12, "expected.json");
      const place = join(scratch, "both");
      cpSync(join(case12, "stale-copy-in-other-shard"), place, { recursive: true });
      const other = await Mistral.random(
        JSON.parse(readFileSync(join(place, "config.json"), "utf8")),
        (await Mistral.fromPretrained(place)).tokenizer,
        9,
      );
      await other.save(join(scratch, "single"));
      cpSync(join(scratch, "single", "model.safetensors"), join(place, "model.safetensors"));
      using model = await load(place);
      using native = await Mistral.fromPretrained(place);
      const wanted = sum(await other.score(ids));
      for (const each of [model, native]) expect(Math.abs(sum(await each.score(ids)) / wanted - 1)).toBeLessThan(1e-4);
      const site = await serveSite({ "/m": place });
      using served = await browser.Mistral.fromPretrained(`${site.url}/m`);
      expect(Math.abs(sum(await served.score(ids)) / wanted - 1)).toBeLessThan(1e-4);
      expect(site.requests.filter((line) => line.includes("-of-"))).toEqual([]);
      await site.close();
    });
  });

  const case17 = join(cases, "17-merges-as-pairs");
  it.runIf(present(case17))("case 17: merges as pairs, as strings, none, and broken", async () => {
    const { texts, ids, refused } = readJson<{
      texts: string[];
      ids: Record<string, number[][]>;
      refused: Record<string, string>;
    }>(case17, "expected.json");
    const read = (name: string) =>
      browser.Tokenizer.fromFiles({ tokenizer: readFileSync(join(case17, `tokenizer-${name}.json`)) });
    for (const [name, expected] of Object.entries(ids)) {
      for (const broken of Object.keys(refused)) {
        expect(await failure(read(broken))).toMatchObject({ code: "ZA_TOKENIZER_MERGE", name: "TokenizerError" });
      }
      const tokenizer = await read(name);
      for (const [index, text] of texts.entries()) {
        expect([...(await tokenizer.encode(text))], `${name}: ${text}`).toEqual(expected[index]);
      }
    }
    expect((await failure(read("bad-merge-out-of-vocabulary"))).problem).toContain("dw");
  });
});
