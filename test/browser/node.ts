/** zephyr-align/browser as Node has it, for the tests of it there; they skip where it is not built. */
import { join } from "node:path";
import type * as Package from "../../ts/browser";
import { root, wasmBuilt, web } from "./built";
import { urlOf } from "./golden";

export const browser: typeof Package = wasmBuilt ? await import(`${web}/browser.js`) : undefined;

export const base = join(root, "recipes/demo/base");
export const question = [{ role: "user" as const, content: "what is two plus five?" }];

/** Loads a model of the disk by its address. */
export const load = (path: string, options = {}) => browser.Mistral.fromPretrained(urlOf(path), options);

/** What a call rejects with, as a page sees it; a call that never ends fails its test. */
export async function failure(call: Promise<unknown>) {
  const error = await call.then(
    () => undefined,
    (thrown: unknown) => thrown as Package.ZephyrError,
  );
  return { code: error?.code, problem: error?.problem, remedy: error?.remedy, name: error?.name };
}
