/** Several threads in WebAssembly: in Node, and in Chromium where the page is cross-origin isolated. */
import { mkdtempSync, openAsBlob, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { Worker } from "node:worker_threads";
import type { Browser } from "playwright-core";
import { build } from "vite";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Mistral } from "../ts/model/mistral";
import { root, threadsBuilt, web } from "./browser/built";
import { ask, bound, comparisons, farthest, type Said, urlOf } from "./browser/golden";
import { base, browser, failure, load, question } from "./browser/node";
import { type Site, serveSite } from "./browser/site";
import { browsable, launch, watchedPage } from "./chromium";
import { cases, golden, present, smollm2 } from "./shared";

const goldenThere = present(golden) && present(cases) && present(smollm2);

describe.runIf(threadsBuilt)("threads in Node", () => {
  /** Starts the package's worker, or another script, and keeps the threads. */
  function starter(script = (_: number) => pathToFileURL(join(web, "browser-worker.js"))) {
    const threads: Worker[] = [];
    const ends: Promise<unknown>[] = [];
    const worker = () => {
      const thread = new Worker(script(threads.length));
      threads.push(thread);
      ends.push(new Promise((resolve) => thread.once("exit", resolve)));
      return {
        postMessage: (message: unknown) => thread.postMessage(message),
        addEventListener: (type: string, listener: (event: { data?: unknown; message?: string }) => void) => {
          if (type === "message") thread.on("message", (data) => listener({ data }));
          else thread.on(type, ({ message }: Error) => listener({ message }));
          if (type === "error") thread.on("exit", () => listener({ message: "it ended" }));
        },
        terminate: () => void thread.terminate(),
      };
    };
    return { worker, threads, ended: () => Promise.all(ends) };
  }

  describe.runIf(goldenThere)("say what the native core says, and what one thread says to the last bit", () => {
    it.each(comparisons())("$name", async ({ path, conversations, quantization }) => {
      using native = await Mistral.fromPretrained(path, { quantization });
      using one = await load(path, { quantization, threads: 1 });
      using two = await load(path, { quantization, threads: 2 });
      expect(two.config).toEqual(native.config);
      const [here, alone, there] = [
        await ask(two, conversations),
        await ask(one, conversations),
        await ask(native, conversations),
      ];
      expect(here).toEqual(alone);
      for (const [index, said] of here.entries()) {
        const { logprobs, ...rest } = there[index]!;
        expect({ ...said, logprobs: undefined }, `conversation ${index}`).toEqual({ ...rest, logprobs: undefined });
        expect(farthest(said.logprobs, logprobs), `log-probs of conversation ${index}`).toBeLessThan(bound);
      }
    });
  });

  it("three threads, samples and batches: the bits of one", async () => {
    using one = await load(base);
    using three = await load(base, { threads: 3 });
    const options = { maxTokens: 20, temperature: 1, seed: 5, logprobs: 2 } as const;
    const prompts = Array.from({ length: 5 }, () => question);
    expect(await three.generateBatch(prompts, options)).toEqual(await one.generateBatch(prompts, options));
    const ids = await one.tokenizer.encode("the hat is on the mat. ".repeat(8));
    expect(await three.logits(ids)).toEqual(await one.logits(ids));
  });

  it("stops at its signal, and goes on", async () => {
    using model = await load(base, { threads: 2 });
    const stopping = new AbortController();
    const generating = model.generate("the", {
      maxTokens: 4000,
      signal: stopping.signal,
      onToken: () => stopping.abort(),
    });
    expect(await failure(generating)).toMatchObject({ code: "ZA_ABORTED", name: "AbortedError" });
    expect((await model.generate(question, { maxTokens: 2 })).ids.length).toBeGreaterThan(0);
  });

  it("dispose() ends every thread, at rest and at work", async () => {
    for (const busy of [false, true]) {
      const { worker, threads, ended } = starter();
      const model = await load(base, { threads: 3, worker });
      expect(threads.length).toBe(3);
      const generating = busy ? failure(model.generate("the", { maxTokens: 4000 })) : undefined;
      if (busy) await new Promise((resolve) => setTimeout(resolve, 100));
      model.dispose();
      await ended();
      if (generating) expect((await generating).code).toBe("ZA_MODEL_DISPOSED");
      expect((await failure(model.generate("the"))).code).toBe("ZA_MODEL_DISPOSED");
    }
  });

  it("a thread that ends in the middle of work ends the call, not only itself", async () => {
    const { worker, threads, ended } = starter();
    const model = await load(base, { threads: 2, worker });
    const generating = failure(model.generate("the", { maxTokens: 4000, onToken: () => void threads[1]!.terminate() }));
    expect(await generating).toMatchObject({ code: "ZA_WASM_LOAD", problem: expect.stringContaining("broke off") });
    await ended();
    expect((await failure(model.generate("the"))).code).toBe("ZA_WASM_LOAD");
  });

  it("a fault in a thread is the fault of the call that waits for it", async () => {
    const folder = mkdtempSync(join(tmpdir(), "zephyr-threads-"));
    // The package's worker, in an engine where the thread's own work traps.
    const script = join(folder, "trap.mjs");
    writeFileSync(
      script,
      `const { Instance, Module } = WebAssembly;
       const bytes = Uint8Array.of(0,97,115,109,1,0,0,0,1,4,1,96,0,0,3,2,1,0,7,5,1,1,102,0,0,10,5,1,3,0,0,11);
       const trap = () => new Instance(new Module(bytes)).exports.f();
       WebAssembly.Instance = function (module, imports) {
         const { exports } = new Instance(module, imports);
         return { exports: { ...exports, runThread: trap } };
       };
       await import(${JSON.stringify(pathToFileURL(join(web, "browser-worker.js")).href)});`,
    );
    const { worker, ended } = starter((index) => pathToFileURL(index === 1 ? script : join(web, "browser-worker.js")));
    try {
      const error = await failure(load(base, { threads: 3, worker }));
      expect(error).toMatchObject({ code: "ZA_INTERNAL", problem: expect.stringMatching(/trapped: unreachable/) });
      await ended();
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it("a fault of the model's own thread ends the others, and later calls say so", async () => {
    const { worker, ended } = starter();
    const model = await load(base, { threads: 2, worker });
    // More than can be addressed at once.
    const long = "a".repeat(2 ** 29 - 24);
    expect((await failure(model.tokenizer.encode(long))).code).toMatch(/^ZA_(INTERNAL|OUT_OF_MEMORY)$/);
    await ended();
    expect((await failure(model.generate("the"))).code).toBe("ZA_WASM_STOPPED");
  });

  it('"auto" takes the processors, up to four', async () => {
    const { worker, threads } = starter();
    using _model = await load(base, { threads: "auto", worker });
    expect(threads.length).toBe(Math.min(4, (await import("node:os")).availableParallelism()));
  });

  it("a file that cannot be sent to a worker is refused with what can", async () => {
    const file = await openAsBlob(join(base, "model.safetensors"));
    const [config, tokenizer] = [urlOf(join(base, "config.json")), urlOf(join(base, "tokenizer.json"))];
    const source = { config, tokenizer, weights: file };
    expect(await failure(browser.Mistral.fromPretrained(source, { threads: 2 }))).toMatchObject({
      code: "ZA_MODEL_INVALID",
      remedy: "Give the file's address, or its bytes.",
    });
    const model = await load(base, { threads: 2 });
    model.dispose();
  });

  it("refuses what cannot be", async () => {
    const worker = starter().worker;
    for (const options of [
      ...[0, 1.5, 65, -1, "two", Number.NaN].map((threads) => ({ threads })),
      { threads: 2, worker: false },
      { threads: 2, worker: { postMessage() {}, addEventListener() {}, terminate() {} } },
    ]) {
      expect(await failure(load(base, options)), JSON.stringify(options)).toMatchObject({
        code: "ZA_THREADS",
        name: "ConfigError",
        remedy: expect.stringMatching(/\S/),
      });
    }
    // The module for one thread has no memory to share.
    const alone = urlOf(join(web, "zephyr_bg.wasm"));
    expect(await failure(load(base, { threads: 2, worker, wasm: alone }))).toMatchObject({ code: "ZA_WASM_LOAD" });
  });
});

describe.runIf(threadsBuilt && browsable)("threads in Chromium", () => {
  let folder: string;
  let browser: Browser;
  let isolated: Site;
  let open: Site;

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "zephyr-threads-"));
    await build({
      root: join(root, "examples/browser"),
      configFile: false,
      logLevel: "error",
      resolve: { alias: [{ find: /^zephyr-align\/(browser|bench)$/, replacement: `${web}/$1.js` }] },
      build: { outDir: join(folder, "site"), emptyOutDir: true, target: "es2022" },
    });
    writeFileSync(join(folder, "blank.html"), "<!doctype html><meta charset=utf-8><link rel=icon href=data:,>");
    browser = await launch();
    const mounts = {
      "/": join(folder, "site"),
      "/blank": join(folder, "blank.html"),
      "/web": web,
      "/models/base": base,
      "/models/smollm2.gguf": smollm2,
      "/models/case-09": join(cases, "09-null-and-array-content", "model"),
    };
    isolated = await serveSite(mounts, { isolated: true });
    open = await serveSite(mounts);
  }, 600_000);
  afterAll(async () => {
    await browser?.close();
    for (const site of [isolated, open]) await site?.close();
    if (folder) rmSync(folder, { recursive: true, force: true });
  });

  /** A page with the package's exports as `zephyr`; runs bodies there, one after the other. */
  async function pageOf(site: Site) {
    const { page, faults } = await watchedPage(browser);
    await page.goto(`${site.url}/blank`);
    const run = <T>(body: string, argument: unknown = null) =>
      page.evaluate(
        `(async (argument) => { const zephyr = await import("/web/browser.js"); ${body} })(${JSON.stringify(argument)})`,
      ) as Promise<T>;
    return { page, faults, run };
  }

  it.runIf(goldenThere).each(
    comparisons().map((each, index) => ({
      ...each,
      address: ["/models/smollm2.gguf", "/models/smollm2.gguf", "/models/case-09", "/models/base"][index]!,
    })),
  )("two say what the native core says, and the bits of one: $name", async (each) => {
    const { path, address, conversations, quantization } = each;
    using native = await Mistral.fromPretrained(path, { quantization });
    const there = await ask(native, conversations);
    const { page, faults, run } = await pageOf(isolated);
    const found = await run<{ isolated: boolean; said: Said[][] }>(
      `const ask = ${ask.toString()};
       const said = [];
       for (const threads of [1, 2]) {
         const model = await zephyr.Mistral.fromPretrained(argument.address, { cache: false, threads, quantization: argument.quantization });
         said.push(await ask(model, argument.conversations));
         model.dispose();
       }
       return { isolated: crossOriginIsolated, said };`,
      { address, conversations, quantization },
    );
    expect(found.isolated).toBe(true);
    const [one, two] = found.said;
    expect(two).toEqual(one);
    for (const [index, said] of two!.entries()) {
      const { logprobs, ...rest } = there[index]!;
      expect({ ...said, logprobs: undefined }, `conversation ${index}`).toEqual({ ...rest, logprobs: undefined });
      expect(farthest(said.logprobs, logprobs), `log-probs of conversation ${index}`).toBeLessThan(bound);
    }
    expect(faults).toEqual([]);
    await page.close();
  });

  it("stops at its signal while the page goes on; dispose() ends the workers, at work too", async () => {
    const { page, faults, run } = await pageOf(isolated);
    await run(`globalThis.model = await zephyr.Mistral.fromPretrained("/models/base", { cache: false, threads: 2 });`);
    expect(page.workers().length).toBe(2);
    const found = await run<{ stopped: string; frames: number; codes: string[]; after: number }>(
      `let frames = 0;
       const frame = () => { frames++; requestAnimationFrame(frame); };
       requestAnimationFrame(frame);
       const control = new AbortController();
       setTimeout(() => control.abort(), 150);
       const code = (call) => call.then(() => "ended", (error) => error.code);
       const stopped = await code(model.generate("the", { maxTokens: 4000, signal: control.signal }));
       const after = (await model.generate("the", { maxTokens: 3 })).ids.length;
       const working = code(model.generate("the", { maxTokens: 4000 }));
       await new Promise((resolve) => setTimeout(resolve, 100));
       model.dispose();
       return { stopped, frames, after, codes: [await working, await code(model.generate("a"))] };`,
    );
    expect(found.stopped).toBe("ZA_ABORTED");
    expect(found.frames).toBeGreaterThan(3);
    expect(found.after).toBe(3);
    expect(found.codes).toEqual(["ZA_MODEL_DISPOSED", "ZA_MODEL_DISPOSED"]);
    // Chromium gives a worker at work two seconds.
    await expect.poll(() => page.workers().length, { timeout: 20_000 }).toBe(0);
    expect(faults).toEqual([]);
    await page.close();
  });

  it("without isolation more than one is refused with the headers' names, and auto is one", async () => {
    const { page, faults, run } = await pageOf(open);
    const found = await run<{ code: string; problem: string; remedy: string }>(
      `return zephyr.Mistral.fromPretrained("/models/base", { threads: 2 })
         .then(() => ({}), ({ code, problem, remedy }) => ({ code, problem, remedy }));`,
    );
    expect(found).toMatchObject({
      code: "ZA_THREADS",
      problem: expect.stringContaining("not cross-origin isolated"),
      remedy: expect.stringMatching(/Cross-Origin-Opener-Policy.*Cross-Origin-Embedder-Policy.*threads: 1/),
    });
    const text = await run<string>(
      `globalThis.model = await zephyr.Mistral.fromPretrained("/models/base", { cache: false, threads: "auto" });
       return (await model.generate("the hat", { maxTokens: 4 })).text;`,
    );
    expect(text.length).toBeGreaterThan(0);
    expect(page.workers().length).toBe(1);
    expect(open.requests.filter((each) => each.includes("zephyr-threads"))).toEqual([]);
    expect(faults).toEqual([]);
    await page.close();
  });

  it("an isolated page's own thread does not compute", async () => {
    const { page, run } = await pageOf(isolated);
    const code = await run<string>(
      `return zephyr.Mistral.fromPretrained("/models/base", { threads: 2, worker: false }).then(() => "", ({ code }) => code);`,
    );
    expect(code).toBe("ZA_THREADS");
    await page.close();
  });

  it("bundled by Vite, the page finds module and workers", async () => {
    const { page, faults } = await watchedPage(browser);
    await page.addInitScript("Object.defineProperty(navigator, 'hardwareConcurrency', { value: 2 })");
    let workers = 0;
    page.on("worker", () => workers++);
    await page.goto(`${isolated.url}/?model=/models/base&tasks=1&run`);
    await page.waitForSelector("body[data-state=idle]", { timeout: 120_000 });
    expect(await page.locator("[role=alert]").isVisible()).toBe(false);
    expect(await page.locator("#results tbody tr").count()).toBe(1);
    expect(workers).toBe(2);
    expect(isolated.requests.some((each) => /assets\/zephyr-threads_bg.*\.wasm$/.test(each))).toBe(true);
    expect(faults).toEqual([]);
    await page.close();
  });
});
