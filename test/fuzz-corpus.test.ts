/** The inputs that fuzzing begins with, and those that it once found a fault with: each goes through its target once. */
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";

const root = join(import.meta.dirname, "..");
const corpus = join(root, "fuzz", "corpus");
const driver = join(process.env.CARGO_TARGET_DIR ?? join(root, "target"), "release", "examples", "mutate");
const built = existsSync(driver);
if (!built) console.warn(`SKIPPED: ${driver} is missing (cargo test builds it), the fuzz corpus is not replayed`);

it("every target has inputs, and every input a target", () => {
  const targets = readdirSync(join(root, "fuzz", "fuzz_targets")).map((name) => name.replace(/\.rs$/, ""));
  expect(readdirSync(corpus).sort()).toEqual(targets.sort());
});

describe.runIf(built)("the fuzz corpus", () => {
  const inputs = readdirSync(corpus).flatMap((target) =>
    readdirSync(join(corpus, target)).map((file) => ({ target, file })),
  );

  it.each(inputs)("$target: $file", ({ target, file }) => {
    const input = join(corpus, target, file);
    const { status, stdout, stderr } = spawnSync(driver, [target, "--input", input], { encoding: "utf8" });
    expect(status, `${stdout}${stderr}`).toBe(0);
    // Names say what was broken; all others are whole, so that mutations of them go deep.
    expect(stdout.trim()).toBe(`${input}: ${file.startsWith("crash-") ? "refused" : "accepted"}`);
  });
});
