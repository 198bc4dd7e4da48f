/** The documents and examples are true: tables are those of the code (`npx vitest run test/docs -u` writes them), examples run. */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { errorCodes } from "../ts/index";

const path = (name: string) => fileURLToPath(new URL(`../${name}`, import.meta.url));

it("docs/errors.md lists every code", async () => {
  const rows = Object.entries(errorCodes).map(([code, meaning]) => `| \`${code}\` | ${meaning} |`);
  const page = [
    "# Error codes",
    "",
    "Every error is a `ZephyrError` with `code`, `place` (file, row, field, tensor), `problem` and `remedy`. Codes are stable.",
    "",
    "| code | meaning |",
    "|---|---|",
    ...rows,
    "",
  ].join("\n");
  await expect(page).toMatchFileSnapshot(path("docs/errors.md"));
});

it("docs/options.md lists every option", async () => {
  const options: Record<string, { text: string; default?: string }> = JSON.parse(
    readFileSync(path("ts/cli/option-docs.json"), "utf8"),
  );
  const rows = Object.entries(options).map(
    ([key, { text, default: initial }]) => `| \`${key}\` | ${text.replaceAll("|", "\\|")} | ${initial ?? ""} |`,
  );
  const page = [
    "# Options of the trainers",
    "",
    "Keys of `SftTrainer` and `DpoTrainer`; on the command line `--learning-rate` for `learningRate`. Unknown keys and",
    "combinations that cannot be honoured are refused before work starts.",
    "",
    "| key | what | default |",
    "|---|---|---|",
    ...rows,
    "",
  ].join("\n");
  await expect(page).toMatchFileSnapshot(path("docs/options.md"));
});

it("examples/align.mjs runs", () => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [path("examples/align.mjs")], { encoding: "utf8" });
  expect(status, stderr).toBe(0);
  expect(stdout).toMatch(/dSFT step 10: loss 0\.\d+\ndDPO: margins \d/);
});
