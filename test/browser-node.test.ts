/** zephyr-align/browser in Node: the same ids, log-probabilities and answers as the native core, and typed errors. */
import { spawnSync } from "node:child_process";
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
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { randomGgufHeader } from "../bench/random-gguf.mjs";
import type * as Browser from "../ts/browser";
import { Mistral } from "../ts/model/mistral";
import { root, wasmBuilt, web } from "./browser/built";
import {
  ask,
  bound,
  type Comparison,
  comparisons,
  farthest,
  typeComparisons,
  urlOf,
  writeTypes,
} from "./browser/golden";
import { serveSite } from "./browser/site";
import { splitPart } from "./formats/split-part";
import { narrowed } from "./sampling";
import { cases, golden, present, readJson, smollm2 } from "./shared";

const base = join(root, "recipes/demo/base");
const question = [{ role: "user" as const, content: "what is two plus five?" }];

/** What a call rejects with, as a page sees it. */
async function failure(call: Promise<unknown>) {
  const error = await call.then(
    () => undefined,
    (thrown: unknown) => thrown as Browser.ZephyrError,
  );
  return { code: error?.code, problem: error?.problem, remedy: error?.remedy, name: error?.name };
}

describe.runIf(wasmBuilt)("zephyr-align/browser in Node", () => {
  let browser: typeof Browser;
  beforeAll(async () => {
    browser = await import(`${web}/browser.js`);
  });
  const load = (path: string, options = {}) => browser.Mistral.fromPretrained(urlOf(path), options);

  async function compare({ path, conversations, quantization }: Comparison): Promise<void> {
    using native = await Mistral.fromPretrained(path, { quantization });
    using model = await load(path, { quantization });
    expect([model.parameters, model.storage, model.stopTokenIds]).toEqual([
      native.parameters,
      native.storage,
      native.stopTokenIds,
    ]);
    expect(model.config).toEqual(native.config);
    const [here, there] = [await ask(model, conversations), await ask(native, conversations)];
    for (const [index, said] of here.entries()) {
      const { logprobs, ...rest } = there[index]!;
      expect({ ...said, logprobs: undefined }, `conversation ${index}`).toEqual({ ...rest, logprobs: undefined });
      expect(said.stream).toBe(said.greedy);
      expect(farthest(said.logprobs, logprobs), `log-probs of conversation ${index}`).toBeLessThan(bound);
    }
  }

  describe.runIf(present(golden) && present(cases) && present(smollm2))("says what the native core says", () => {
    it.each(comparisons())("$name", compare);
  });

  describe("says what the native core says of every type of GGUF", () => {
    let types: string;
    beforeAll(async () => {
      types = await writeTypes();
    });
    afterAll(() => rmSync(types, { recursive: true, force: true }));
    it.each(typeComparisons())("$name", compare);
  });

  it("draws the same samples from the same seed, alone and in a batch", async () => {
    using native = await Mistral.fromPretrained(base);
    using model = await load(base);
    const options = { maxTokens: 20, temperature: 1, topK: 50, topP: 0.9, seed: 5, logprobs: 2 } as const;
    const [here, there] = [await model.generate(question, options), await native.generate(question, options)];
    expect([here.text, here.finishReason]).toEqual([there.text, there.finishReason]);
    expect(here.logprobs!.map(({ id, token, top }) => [id, token, top.map(({ id }) => id)])).toEqual(
      there.logprobs!.map(({ id, token, top }) => [id, token, top.map(({ id }) => id)]),
    );
    const { text, ids } = here;
    const [first] = await model.generateBatch([question, question], { ...options, seeds: [5, 6] });
    expect([first!.text, [...first!.ids]]).toEqual([text, [...ids]]);
  });

  it("stops at a stop text, streams, and goes on from what it has", async () => {
    using model = await load(base);
    const { text } = await model.generate("the hat", { maxTokens: 16 });
    const stop = text.slice(5, 9);
    const pieces: string[] = [];
    for await (const piece of model.stream("the hat", { maxTokens: 16, stop: [stop] })) pieces.push(piece);
    expect(pieces.join("")).toBe(text.slice(0, text.indexOf(stop)));
    const first = await model.generate("the hat", { maxTokens: 8, reuse: true });
    const ids = await model.tokenizer.encode("the hat", { addSpecialTokens: true });
    const longer = Uint32Array.of(...ids, ...first.ids);
    const again = await model.generate(longer, { maxTokens: 4, reuse: true });
    expect([...again.ids]).toEqual([...(await model.generate(longer, { maxTokens: 4 })).ids]);
  });

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

  it("takes the memory of the model, not of its file beside it", async () => {
    if (!present(smollm2)) return;
    // A process of its own: WebAssembly's memory is that of all models of a thread.
    const script = `
      import { Mistral } from ${JSON.stringify(`${web}/browser.js`)};
      let events = 0;
      const model = await Mistral.fromPretrained(${JSON.stringify(urlOf(smollm2))}, { onProgress: () => events++ });
      console.log(JSON.stringify({ taken: await model.memoryBytes(), weights: model.weightBytes, events }));`;
    const { stdout, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", script], { encoding: "utf8" });
    expect(stderr).toBe("");
    const { taken, weights, events } = JSON.parse(stdout);
    expect(events).toBeGreaterThan(10);
    // Beside the weights: the tokenizer, its JSON while it is made, and the largest tensor while it is packed.
    expect(taken).toBeLessThan(weights + 90e6);
  });

  it("a loading and a generation stop at their signal", async () => {
    const controller = new AbortController();
    const loading = load(base, { signal: controller.signal, onProgress: () => controller.abort() });
    expect((await failure(loading)).code).toBe("ZA_ABORTED");
    using model = await load(base);
    const stopping = new AbortController();
    let pieces = 0;
    const onToken = () => {
      pieces++;
      setImmediate(() => stopping.abort());
    };
    const generating = model.generate("the", { maxTokens: 4000, signal: stopping.signal, onToken });
    expect(await failure(generating)).toMatchObject({ code: "ZA_ABORTED", name: "AbortedError" });
    expect(pieces).toBeLessThan(3000);
    expect((await model.generate(question, { maxTokens: 2 })).ids.length).toBeGreaterThan(0);
  });

  it("log-probabilities of a long text stop at their signal, between two pieces", async () => {
    const small = await Mistral.fromPretrained(base);
    const config = { ...small.config, hidden_size: 256, intermediate_size: 512, head_dim: 64 };
    const folder = mkdtempSync(join(tmpdir(), "zephyr-browser-score-"));
    await (await Mistral.random({ ...config, max_position_embeddings: 4096 }, small.tokenizer, 1)).save(folder);
    using model = await load(folder);
    rmSync(folder, { recursive: true, force: true });
    const long = Uint32Array.from({ length: 4096 }, (_, at) => 3 + (at % 200));
    for (const ask of ["score", "logits"] as const) {
      const control = new AbortController();
      setTimeout(() => control.abort(), 30);
      const started = performance.now();
      expect(await failure(model[ask](long, { signal: control.signal }))).toMatchObject({ code: "ZA_ABORTED" });
      const stopped = performance.now() - started;
      expect(await failure(model[ask](long, { signal: AbortSignal.abort() }))).toMatchObject({ code: "ZA_ABORTED" });
      const all = performance.now();
      await model.score(long.subarray(0, 1536));
      expect(stopped).toBeLessThan(performance.now() - all);
    }
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

  it("a module of another version is refused by both versions' names", async () => {
    const bytes = readFileSync(join(web, "zephyr_bg.wasm"));
    const { version } = readJson<{ version: string }>(root, "package.json");
    const other = version.replace(/\d+$/, (last) => String((Number(last) + 1) % 10));
    expect(other).toHaveLength(version.length);
    const script = `
      import { readFileSync } from "node:fs";
      import { Mistral } from ${JSON.stringify(`${web}/browser.js`)};
      const load = (wasm) => Mistral.fromPretrained(${JSON.stringify(urlOf(base))}, { wasm, worker: false });
      const say = ({ code, problem, remedy }) => console.log(JSON.stringify({ code, problem, remedy }));
      await load(readFileSync(process.argv[1])).catch(say);`;
    // All places of the text, of which the module's own answer is one.
    const wrong = Buffer.from(bytes);
    for (let at = wrong.indexOf(version); at >= 0; at = wrong.indexOf(version, at + 1)) wrong.write(other, at);
    const folder = mkdtempSync(join(tmpdir(), "zephyr-browser-version-"));
    writeFileSync(join(folder, "other.wasm"), wrong);
    const args = ["--input-type=module", "-e", script, join(folder, "other.wasm")];
    const { stdout, stderr } = spawnSync(process.execPath, args, { encoding: "utf8" });
    rmSync(folder, { recursive: true, force: true });
    expect(JSON.parse(stdout), stderr).toMatchObject({
      code: "ZA_WASM_LOAD",
      problem: `the WebAssembly module is version ${other}, the package is ${version}`,
      remedy: expect.stringContaining("cache"),
    });
  });

  it("choices so narrow that one token is left are greedy ones; a large penalty repeats none", async () => {
    using model = await load(base);
    await narrowed(model);
  });

  it("refuses what is wrong, with code and remedy, and goes on", async () => {
    using model = await load(base);
    const wrong: [() => Promise<unknown>, string][] = [
      [() => load(join(root, "no-such-folder")), "ZA_MODEL_NOT_FOUND"],
      [() => load(join(root, "no-such.gguf")), "ZA_MODEL_NOT_FOUND"],
      [() => browser.Mistral.fromPretrained("not an address"), "ZA_MODEL_NOT_FOUND"],
      [() => browser.Mistral.fromPretrained(new TextEncoder().encode("no model")), "ZA_MODEL_FORMAT"],
      [() => browser.Mistral.fromPretrained(new Uint8Array(0)), "ZA_MODEL_FORMAT"],
      [() => load(base, { quantization: "gguf" }), "ZA_MODEL_UNSUPPORTED"],
      [() => load(base, { dtype: "float64" }), "ZA_MODEL_INVALID"],
      [() => model.generate(question, { temperature: -1 }), "ZA_GENERATE_OPTION"],
      [() => model.generate(question, { kvCache: "q1" as never }), "ZA_GENERATE_OPTION"],
      [() => model.generate(new Uint32Array(0)), "ZA_EMPTY_PROMPT"],
      [() => model.generate(Uint32Array.of(1e6)), "ZA_TOKEN_RANGE"],
      [() => model.generate(new Uint32Array(1e5)), "ZA_CONTEXT_LENGTH"],
      [() => model.score(new Uint32Array(1e5)), "ZA_CONTEXT_LENGTH"],
      [() => model.generate([{ role: "judge" as never, content: "?" }]), "ZA_ROLE_ORDER"],
      [() => model.generate([{ role: "user", content: 5 as never }]), "ZA_MESSAGE_CONTENT"],
    ];
    for (const [call, code] of wrong) {
      const error = await failure(call());
      expect(error).toMatchObject({ code, remedy: expect.stringMatching(/\S/) });
      expect(error.problem).not.toMatch(/Remedy|\[ZA_/);
    }
    const { ids } = await model.generate(question, { maxTokens: 3 });
    expect(ids.length).toBe(3);
    model.dispose();
    expect((await failure(model.generate(question))).code).toBe("ZA_MODEL_DISPOSED");
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

  it("an engine without SIMD is told so", () => {
    const script = `
      import { Tokenizer } from ${JSON.stringify(`${web}/browser.js`)};
      await Tokenizer.fromFiles({ tokenizer: new Uint8Array() }).catch(({ code, remedy }) => console.log(code, !!remedy));`;
    // SIMD of WebAssembly needs these instructions.
    const flags = ["--no-enable-sse4-1", "--no-enable-avx", "--input-type=module", "-e", script];
    const { stdout, stderr } = spawnSync(process.execPath, flags, { encoding: "utf8" });
    expect(stdout.trim(), stderr).toBe("ZA_WASM_UNSUPPORTED true");
  });

  it("a fault inside stops the instance, and says so from then on", () => {
    const script = `
      import { Mistral, Tokenizer } from ${JSON.stringify(`${web}/browser.js`)};
      const say = ({ code, problem }) => console.log(code, problem.split(":")[0]);
      const model = await Mistral.fromPretrained(${JSON.stringify(urlOf(base))});
      const read = (tokenizer) => Tokenizer.fromFiles({ tokenizer }).catch(say);
      const answer = () => model.generate("a", { maxTokens: 1 }).then(() => console.log("ok"), say);
      // Deeper than the stack is.
      await read(new TextEncoder().encode("[".repeat(5e6)));
      await answer();
      // More than can be addressed at once.
      await read(new Uint8Array(2 ** 31));
      await answer();
      await answer();
      model.dispose();`;
    const { stdout, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", script], { encoding: "utf8" });
    const [broken, well, fault, ...after] = stdout.trim().split("\n");
    expect(broken, stderr).toMatch(/^ZA_TOKENIZER_FILE/);
    expect(well).toBe("ok");
    expect(fault).toMatch(/^ZA_(INTERNAL|OUT_OF_MEMORY) /);
    expect(after.map((line) => line.split(" ")[0])).toEqual(["ZA_WASM_STOPPED", "ZA_WASM_STOPPED"]);
    expect(stderr).toBe("");
  });

  it("examples/wasm.mjs runs", () => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [join(root, "examples/wasm.mjs")], {
      encoding: "utf8",
    });
    expect(status, stderr).toBe(0);
    expect(stdout).toMatch(/M parameters, float32\n[\s\S]+log-probability -\d/);
  });
});
