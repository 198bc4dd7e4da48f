import { copyFileSync, existsSync } from "node:fs";
import { basename } from "node:path";
import { defineConfig, type Options } from "tsup";

/** The module for one thread; that for several is left out where it cannot be built. */
const wasm = "bindings/wasm/zephyr_bg.wasm";
const threads = "bindings/wasm/zephyr-threads_bg.wasm";
if (!existsSync(wasm)) console.log("zephyr-align/browser is left out: `npm run build:wasm` builds it");

const node: Options = {
  entry: { index: "ts/index.ts", cli: "ts/cli/main.ts" },
  format: "esm",
  target: "node20",
  platform: "node",
  dts: { entry: { index: "ts/index.ts" } },
  splitting: true,
  clean: ["!web/**"],
};

/** For web pages: nothing of Node, and the modules beside the scripts, where they look for them. */
const browser: Options = {
  entry: { bench: "ts/bench.ts", browser: "ts/browser.ts", "browser-worker": "ts/browser/worker.ts" },
  format: "esm",
  target: "es2022",
  platform: "browser",
  dts: { entry: { bench: "ts/bench.ts", browser: "ts/browser.ts" } },
  splitting: true,
  minify: true,
  outDir: "dist/web",
  clean: true,
  onSuccess: async () => {
    for (const module of [wasm, threads]) if (existsSync(module)) copyFileSync(module, `dist/web/${basename(module)}`);
  },
};

export default defineConfig(existsSync(wasm) ? [node, browser] : [node]);
