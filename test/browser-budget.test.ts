/** What a web page has to fetch, and that nothing of Node is in it. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { threadsBuilt, wasmBuilt, web } from "./browser/built";

/** Bytes, gzipped. A larger module or script is a decision, made here. */
const budgets = { wasm: 1_700_000, threads: 1_800_000, browser: 30_000, bench: 40_000 };

/** What a script imports, and hands on from others. */
function importsOf(source: string): string[] {
  const statements = /\b(?:import|export)\s*(?:[\w$*{},\s]*?\bfrom\s*)?["']([^"']+)["']|\bimport\(["']([^"']+)["']/g;
  return [...source.matchAll(statements)].map(([, named, dynamic]) => (named ?? dynamic)!);
}

/** A script with all that it imports, without what other entries import alone. */
function withImports(entry: string, seen = new Set<string>()): Set<string> {
  if (seen.has(entry)) return seen;
  seen.add(entry);
  for (const found of importsOf(readFileSync(join(web, entry), "utf8"))) withImports(found.replace("./", ""), seen);
  return seen;
}

function gzipped(entry: string): number {
  return [...withImports(entry)].reduce((sum, name) => sum + gzipSync(readFileSync(join(web, name))).length, 0);
}

describe.runIf(wasmBuilt)("the browser build", () => {
  it("keeps its budgets", () => {
    const module = readFileSync(join(web, "zephyr_bg.wasm"));
    // Fetched instead of the other, where threads are asked for.
    const threads = threadsBuilt ? gzipSync(readFileSync(join(web, "zephyr-threads_bg.wasm"))).length : 0;
    const sizes = {
      wasm: gzipSync(module).length,
      threads,
      browser: gzipped("browser.js"),
      bench: gzipped("bench.js"),
    };
    const brotli = brotliCompressSync(module, { params: { [constants.BROTLI_PARAM_QUALITY]: 5 } }).length;
    console.log(
      `module ${module.length} bytes, gzip ${sizes.wasm}, brotli (5) ${brotli}; with threads gzip ${threads}; scripts ${sizes.browser}, ${sizes.bench}`,
    );
    for (const [name, most] of Object.entries(budgets)) {
      expect(sizes[name as keyof typeof budgets], name).toBeLessThan(most);
    }
    expect(gzipped("browser-worker.js")).toBeLessThan(budgets.browser);
  });

  it("imports nothing but its own scripts", () => {
    for (const name of readdirSync(web).filter((each) => each.endsWith(".js"))) {
      const source = readFileSync(join(web, name), "utf8");
      const foreign = importsOf(source).filter((from) => !/^\.\/[\w.-]+\.js$/.test(from));
      expect(foreign, name).toEqual([]);
      expect(source, name).not.toMatch(/\brequire\(|\.node["']/);
    }
  });
});
