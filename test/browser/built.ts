/** What the tests of the browser build stand on: the module, built; a loud skip without it. */
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

export const root = fileURLToPath(new URL("../..", import.meta.url));

/** The bundle that web pages load. */
export const web = fileURLToPath(new URL("../../dist/web", import.meta.url));

export const wasmBuilt = existsSync(`${web}/browser.js`) && existsSync(`${web}/zephyr_bg.wasm`);
if (!wasmBuilt) console.warn("SKIPPED: dist/web is missing (npm run build:wasm), zephyr-align/browser is not tested");

export const threadsBuilt = wasmBuilt && existsSync(`${web}/zephyr-threads_bg.wasm`);
if (wasmBuilt && !threadsBuilt) console.warn("SKIPPED: dist/web has no module with threads, which are not tested");
