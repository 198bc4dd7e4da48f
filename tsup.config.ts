import { copyFileSync, existsSync } from "node:fs";
import { defineConfig, type Options } from "tsup";

const wasm = "bindings/wasm/zephyr_bg.wasm";
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

/** For web pages: nothing of Node, and the module beside the scripts, where they look for it. */
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
  onSuccess: async () => copyFileSync(wasm, "dist/web/zephyr_bg.wasm"),
};

export default defineConfig(existsSync(wasm) ? [node, browser] : [node]);
