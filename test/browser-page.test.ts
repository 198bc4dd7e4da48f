/** zephyr-align/browser in Chromium: bundled by Vite, beside the native core, with its cache, its worker and the bench page. */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import type { Browser, Page } from "playwright-core";
import { build } from "vite";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { converse, makeTasks } from "../recipes/demo/world";
import { Mistral } from "../ts/model/mistral";
import { SftTrainer } from "../ts/train/sft-trainer";
import { root, wasmBuilt, web } from "./browser/built";
import {
  ask,
  bound,
  type Comparison,
  comparisons,
  farthest,
  type Said,
  typeComparisons,
  writeTypes,
} from "./browser/golden";
import { type Site, serveSite } from "./browser/site";
import { browsable, drawingFaults, launch, looks, watchedPage } from "./chromium";
import { cases, golden, present, readJson, smollm2 } from "./shared";

/** Where the pages' pictures are left for a person to look at; nowhere without it. */
const pictures = process.env.ZEPHYR_PICTURES;

const base = join(root, "recipes/demo/base");

describe.runIf(wasmBuilt && browsable)("zephyr-align/browser in Chromium", () => {
  let folder: string;
  let types: string;
  let browser: Browser;
  let site: Site;
  const warnings: string[] = [];

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "zephyr-page-"));
    await build({
      root: join(root, "examples/browser"),
      configFile: false,
      logLevel: "warn",
      customLogger: logger(warnings),
      resolve: { alias: [{ find: /^zephyr-align\/(browser|bench)$/, replacement: `${web}/$1.js` }] },
      build: { outDir: join(folder, "site"), emptyOutDir: true, target: "es2022" },
    });
    await align(join(folder, "aligned"));
    writeFileSync(join(folder, "blank.html"), "<!doctype html><meta charset=utf-8><link rel=icon href=data:,>");
    types = await writeTypes();
    browser = await launch();
    site = await serveSite({
      "/": join(folder, "site"),
      "/blank": join(folder, "blank.html"),
      "/web": web,
      "/models/base": base,
      "/models/aligned": join(folder, "aligned"),
      "/models/smollm2.gguf": smollm2,
      "/models/case-09": join(cases, "09-null-and-array-content", "model"),
      "/types": types,
      "/case-17": join(cases, "17-merges-as-pairs"),
    });
  }, 600_000);
  afterAll(async () => {
    await browser?.close();
    await site?.close();
    for (const each of [folder, types]) if (each) rmSync(each, { recursive: true, force: true });
  });

  /** A page with the package's exports as `zephyr`; runs a body there. */
  async function inPage<T>(body: string, argument: unknown = null, from: Browser = browser): Promise<T> {
    const { page, faults } = await watchedPage(from);
    try {
      await page.goto(`${site.url}/blank`);
      const run = `(async (argument) => { const zephyr = await import("/web/browser.js"); ${body} })(${JSON.stringify(argument)})`;
      const found = await page.evaluate(run);
      expect(faults).toEqual([]);
      return found as T;
    } finally {
      await page.close();
    }
  }

  async function compare(each: Comparison & { address: string }): Promise<void> {
    const { path, address, conversations, quantization } = each;
    using native = await Mistral.fromPretrained(path, { quantization });
    const there = await ask(native, conversations);
    const here = await inPage<Said[]>(
      `const ask = ${ask.toString()};
       const model = await zephyr.Mistral.fromPretrained(argument.address, { cache: false, quantization: argument.quantization });
       const said = await ask(model, argument.conversations);
       model.dispose();
       return said;`,
      { address, conversations, quantization },
    );
    for (const [index, said] of here.entries()) {
      const { logprobs, ...rest } = there[index]!;
      expect({ ...said, logprobs: undefined }, `conversation ${index}`).toEqual({ ...rest, logprobs: undefined });
      expect(farthest(said.logprobs, logprobs), `log-probs of conversation ${index}`).toBeLessThan(bound);
    }
  }

  it("Vite bundles it: worker and module are found, nothing of Node is", () => {
    expect(warnings).toEqual([]);
    const assets = readdirSync(join(folder, "site", "assets"));
    expect(assets.some((name) => /^zephyr_bg.*\.wasm$/.test(name))).toBe(true);
    expect(assets.some((name) => /^browser-worker.*\.js$/.test(name))).toBe(true);
    expect(assets.filter((name) => name.endsWith(".node"))).toEqual([]);
    for (const name of assets.filter((name) => name.endsWith(".js"))) {
      const script = readFileSync(join(folder, "site", "assets", name), "utf8");
      expect(script, name).not.toMatch(/from\s*["']node:|require\(["']|__vite-browser-external/);
    }
  });

  describe.runIf(present(golden) && present(cases) && present(smollm2))("says what the native core says", () => {
    const addresses = ["/models/smollm2.gguf", "/models/smollm2.gguf", "/models/case-09", "/models/base"];
    it.each(comparisons().map((each, index) => ({ ...each, address: addresses[index]! })))("$name", compare);
  });

  describe("says what the native core says of every type of GGUF", () => {
    it.each(typeComparisons().map((each) => ({ ...each, address: `/types/${basename(each.path)}` })))("$name", compare);
  });

  it.runIf(present(cases))("case 17: merges as pairs, as strings, none, and broken", async () => {
    const { texts, ids, refused } = readJson<{ texts: string[]; ids: object; refused: object }>(
      join(cases, "17-merges-as-pairs"),
      "expected.json",
    );
    const found = await inPage(
      `const read = async (name) => {
         const response = await fetch("/case-17/tokenizer-" + name + ".json");
         return zephyr.Tokenizer.fromFiles({ tokenizer: new Uint8Array(await response.arrayBuffer()) });
       };
       const ids = {}, codes = [];
       for (const name of argument.names) {
         for (const broken of argument.broken)
           codes.push(await read(broken).then(() => "read", (error) => error instanceof zephyr.TokenizerError && error.code));
         const tokenizer = await read(name);
         ids[name] = await Promise.all(argument.texts.map(async (text) => [...await tokenizer.encode(text)]));
       }
       return { ids, codes: [...new Set(codes)] };`,
      { texts, names: Object.keys(ids), broken: Object.keys(refused) },
    );
    expect(found).toEqual({ ids, codes: ["ZA_TOKENIZER_MERGE"] });
  });

  it("keeps fetched files, asks whether they are current, and forgets them when told to", async () => {
    const load = (address: string) =>
      `{ const files = new Map();
         const model = await zephyr.Mistral.fromPretrained("${address}", { onProgress: (step) => files.set(step.file, step.cached) });
         const answer = await model.generate("the hat", { maxTokens: 6 });
         model.dispose();
         seen.push([Object.fromEntries(files), answer.text]); }`;
    const context = await browser.newContext();
    const page = await context.newPage();
    await page.goto(`${site.url}/blank`);
    const run = <T>(body: string) =>
      page.evaluate(`(async () => { const zephyr = await import("/web/browser.js"); ${body} })()`) as Promise<T>;
    const weights = () => site.requests.filter((each) => each === "GET /models/base/model.safetensors").length;
    const before = weights();
    const seen = await run<[object, string][]>(
      `const seen = []; ${load("/models/base")} ${load("/models/base")} return seen;`,
    );
    expect(seen.map(([files]) => files)).toEqual([{ "model.safetensors": false }, { "model.safetensors": true }]);
    expect(seen[0]![1]).toBe(seen[1]![1]);
    expect(weights()).toBe(before + 1);
    const kept = await run<{ url: string; bytes: number }[]>("return zephyr.modelCache.list();");
    expect(kept).toMatchObject([{ url: `${site.url}/models/base/model.safetensors`, bytes: 2_630_752 }]);
    site.etag = '"2"';
    await run(`const seen = []; ${load("/models/base")}`);
    expect(weights()).toBe(before + 2);
    expect(await run("await zephyr.modelCache.clear(); return zephyr.modelCache.list();")).toEqual([]);
    // A loading that is stopped leaves nothing behind. Half-way: a whole file may stay.
    site.stalled = "/models/base/model.safetensors";
    const stopped = await run(
      `const control = new AbortController();
       const code = await zephyr.Mistral.fromPretrained("/models/base", { signal: control.signal, onProgress: () => control.abort() })
         .then(() => "loaded", (error) => error.code);
       return [code, await zephyr.modelCache.list()];`,
    );
    expect(stopped).toEqual(["ZA_ABORTED", []]);
    site.stalled = "";
    await context.close();
  });

  it("stops at its signal while the page goes on, and reports what is wrong as typed errors", async () => {
    const found = await inPage<{ frames: number; stopped: string; late: number; codes: string[] }>(
      `const model = await zephyr.Mistral.fromPretrained("/models/base", { cache: false });
       const control = new AbortController();
       let frames = 0, aborted = 0;
       const frame = () => { frames++; requestAnimationFrame(frame); };
       requestAnimationFrame(frame);
       const stopped = await model.generate("the", { maxTokens: 4000, signal: control.signal, onToken: () => {
         if (aborted) return;
         setTimeout(() => { aborted = performance.now(); control.abort(); }, 100);
         aborted = Infinity;
       } }).then(() => "ended", (error) => error instanceof zephyr.AbortedError && error.code);
       const late = performance.now() - aborted;
       const codes = [];
       for (const call of [
         () => model.generate(Uint32Array.of(1e6)),
         () => model.score(new Uint32Array(1e5)),
         () => model.generate("a", { temperature: -1 }),
         () => zephyr.Mistral.fromPretrained("/models/none"),
         () => zephyr.Mistral.fromPretrained(new Blob(["no model"])),
         () => zephyr.Mistral.fromPretrained("/models/base", { wasm: "/models/base/config.json" }),
         () => { model.dispose(); return model.generate("a"); },
       ]) codes.push(await call().then(() => "none", (error) => [error.code, !!error.remedy].join()));
       return { frames, stopped, late, codes };`,
    );
    expect(found.stopped).toBe("ZA_ABORTED");
    expect(found.late).toBeLessThan(1000);
    expect(found.frames).toBeGreaterThan(3);
    expect(found.codes).toEqual(
      [
        "ZA_TOKEN_RANGE",
        "ZA_CONTEXT_LENGTH",
        "ZA_GENERATE_OPTION",
        "ZA_MODEL_NOT_FOUND",
        "ZA_MODEL_FORMAT",
        "ZA_WASM_LOAD",
        "ZA_MODEL_DISPOSED",
      ].map((code) => `${code},true`),
    );
  });

  it("a browser without SIMD is told so", async () => {
    const old = await launch(["--js-flags=--no-enable-sse4-1 --no-enable-avx"]);
    try {
      const code = await inPage(
        `return zephyr.Mistral.fromPretrained("/models/base").then(() => "loaded", (error) => [error.code, !!error.remedy].join());`,
        null,
        old,
      );
      expect(code).toBe("ZA_WASM_UNSUPPORTED,true");
    } finally {
      await old.close();
    }
  });

  describe("the bench page", () => {
    const address = "/?model=/models/base&model=/models/aligned&tasks=1&run";

    it("loads two models, lets them answer, judges, and shows table, radar and answers", async () => {
      for (const [index, { colorScheme, viewport }] of looks.entries()) {
        const { page, faults } = await watchedPage(browser, { colorScheme, viewport });
        await page.goto(`${site.url}${address}`);
        await page.waitForSelector("body[data-state=idle]", { timeout: 120_000 });
        expect(await page.locator("[role=alert]").isVisible()).toBe(false);
        const rows = await page.locator("#results tbody tr").allTextContents();
        expect(rows).toHaveLength(2);
        const means = rows.map((row) => Number(/(\d+\.\d+) ±/.exec(row)?.[1]));
        expect(means[1]).toBeGreaterThan(means[0]!);
        expect(await page.locator("#results figure path.line").count()).toBeGreaterThanOrEqual(2);
        // Eight tasks of two turns, both models.
        expect(await page.locator("#results .answers > div").count()).toBe(32);
        expect(await drawingFaults(page)).toEqual([]);
        expect(faults).toEqual([]);
        await picture(page, `bench-${colorScheme}-${viewport.width}`);
        if (index === 0) {
          await page.getByRole("button", { name: "Forget" }).click();
          await page.getByText("2 files forgotten").waitFor();
        }
        await page.close();
      }
    });

    it("takes files, stops, and says what is wrong", async () => {
      const { page, faults } = await watchedPage(browser, { viewport: { width: 1000, height: 800 } });
      await page.goto(site.url);
      await page.getByRole("button", { name: "Answer and judge" }).click();
      expect(await page.getByRole("alert").textContent()).toContain("Give the address");
      const names = ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"];
      await page
        .locator("input[type=file]")
        .first()
        .setInputFiles(names.map((name) => join(base, name)));
      await page.getByLabel("Tasks of each category").fill("30");
      await page.getByRole("button", { name: "Answer and judge" }).click();
      await page.getByText("of 480 answers").waitFor();
      await page.getByRole("button", { name: "Stop" }).click();
      await page.getByText("Stopped.", { exact: true }).waitFor();
      await page.locator("input[type=file]").first().setInputFiles(join(base, "config.json"));
      await page.getByRole("button", { name: "Answer and judge" }).click();
      await page.getByText("Choose one .gguf").waitFor();
      expect(await drawingFaults(page)).toEqual([]);
      await picture(page, "bench-refused");
      expect(faults).toEqual([]);
      await page.close();
    });
  });
});

async function picture(page: Page, name: string): Promise<void> {
  if (!pictures) return;
  mkdirSync(pictures, { recursive: true });
  await page.screenshot({ path: join(pictures, `${name}.png`), fullPage: true });
}

/** A minute of the demo's dSFT: a model that answers better than its base. */
async function align(out: string): Promise<void> {
  const model = await Mistral.fromPretrained(base);
  const tasks = makeTasks({ seed: 1, split: "train", count: 800 });
  const dataset = tasks.map((task) => ({ messages: converse(task) }));
  const options = { learningRate: 2e-3, batchSize: 16, maxSteps: 60, maxLength: 256, recompute: "none" } as const;
  await new SftTrainer({ model, dataset, seed: 1, ...options }).fit();
  await model.save(out);
}

/** Collects what Vite warns of. */
function logger(warnings: string[]) {
  const warn = (message: string) => void warnings.push(message);
  return {
    info: () => {},
    warn,
    warnOnce: warn,
    error: warn,
    clearScreen: () => {},
    hasErrorLogged: () => false,
    hasWarned: false,
  };
}
