/** Saving on a disk that has room for the weights, but not for all that belongs to them. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, expect, it } from "vitest";
import { Mistral } from "../ts/index";
import { mountSmallDisk, unmount } from "./shared";

const base = fileURLToPath(new URL("../recipes/demo/base", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "zephyr-save-"));
const whole = join(folder, "whole");
const small = join(folder, "small");

const model = await Mistral.fromPretrained(base);
await model.save(whole);
const bytes = (name: string) => statSync(join(whole, name)).size;
// Room for the weights and a page for each of the other files, which is less than tokenizer.json needs.
const room = bytes("model.safetensors") + 4 * 4096;
const mounted = mountSmallDisk(small, room);

afterAll(() => {
  if (mounted) unmount(small);
  rmSync(folder, { recursive: true, force: true });
});

it.runIf(mounted)("a tokenizer that does not fit leaves no part of a model, and keeps an earlier file", async () => {
  expect(bytes("tokenizer.json")).toBeGreaterThan(4 * 4096);
  const target = join(small, "model");
  await expect(model.save(target)).rejects.toMatchObject({ name: "IoError", code: "ZA_DISK_FULL" });
  expect(readdirSync(target)).toEqual([]);

  writeFileSync(join(target, "tokenizer.json"), "{}");
  await expect(model.save(target)).rejects.toMatchObject({ code: "ZA_DISK_FULL" });
  expect(readdirSync(target)).toEqual(["tokenizer.json"]);
  expect(readFileSync(join(target, "tokenizer.json"), "utf8")).toBe("{}");
});

it("a saved folder holds the six files and is the same model", async () => {
  expect(readdirSync(whole).sort()).toEqual([
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
  ]);
  const again = await Mistral.fromPretrained(whole);
  expect(await again.score([1, 5, 9])).toEqual(await model.score([1, 5, 9]));
  expect(again.tokenizer.encode("say two.")).toEqual(model.tokenizer.encode("say two."));
});
