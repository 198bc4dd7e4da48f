/** zephyr-align/browser in Node: the same ids, log-probabilities and answers as the native core, and typed errors. */
import { spawnSync } from "node:child_process";
import { openAsBlob, readFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { randomGgufHeader } from "../bench/random-gguf.mjs";
import type * as Browser from "../ts/browser";
import { Mistral } from "../ts/model/mistral";
import { root, wasmBuilt, web } from "./browser/built";
import { ask, bound, comparisons, farthest, urlOf } from "./browser/golden";
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

  describe.runIf(present(golden) && present(cases) && present(smollm2))("says what the native core says", () => {
    it.each(comparisons())("$name", async ({ path, conversations, quantization }) => {
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
    });
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

  it("another architecture, and a file that is cut off, are refused by name", async () => {
    const shape = { hidden: 64, inner: 96, layers: 2, heads: 4, kvHeads: 2, vocabulary: 600, context: 256 };
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
