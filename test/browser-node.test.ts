/** zephyr-align/browser in Node: the same ids, log-probabilities and answers as the native core, and typed errors. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
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
import { base, browser, failure, load, question } from "./browser/node";
import { narrowed } from "./sampling";
import { cases, golden, present, readJson, smollm2 } from "./shared";

describe.runIf(wasmBuilt)("zephyr-align/browser in Node", () => {
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

  it.runIf(present(golden) && present(smollm2))(
    "scores as it reads prompts where exactness is not asked for",
    async () => {
      using native = await Mistral.fromPretrained(smollm2, { quantization: "auto" });
      using model = await load(smollm2, { quantization: "auto" });
      const ids = native.tokenizer.encode("The hat is red, and the coat of Ben is blue. ".repeat(12));
      const [exact, rounded] = [await model.score(ids), await model.score(ids, { exact: false })];
      const off = farthest([...rounded], [...exact]);
      expect(off).toBeGreaterThan(0);
      expect(off).toBeLessThan(0.03);
      expect(farthest([...rounded], [...(await native.score(ids, { exact: false }))])).toBeLessThan(0.03);
      await expect(model.logits(ids, { exact: 1 as never })).rejects.toMatchObject({ code: "ZA_GENERATE_OPTION" });
    },
  );

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
