/** The documents and examples are true: tables are those of the code (`npx vitest run test/docs -u` writes them), examples run. */
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { documentationOf } from "../ts/cli/option-docs";
import { binarisePresets, dropReasons, errorCodes, pairDropReasons } from "../ts/index";
import { type DpoConfigInput, dpoConfig, dpoLosses, resolveConfig } from "../ts/train/config";
import { type Method, methods } from "../ts/train/methods";

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

const names = Object.keys(methods) as Method[];

/** Whether a method knows a key: its schema is asked, as for a user. */
function honours(method: Method, key: string): boolean {
  const refusals = methods[method].config.schema.safeParse({ [key]: undefined }).error?.issues ?? [];
  return !refusals.some(({ code }) => code === "unrecognized_keys");
}

/** Whether the whole configuration is taken. */
function accepted(config: DpoConfigInput): boolean {
  try {
    resolveConfig(dpoConfig, config);
    return true;
  } catch {
    return false;
  }
}

const cell = (yes: boolean) => (yes ? "honoured" : "refused");
const table = (head: readonly string[], rows: readonly (readonly string[])[]) =>
  [head, head.map(() => "---"), ...rows].map((row) => `| ${row.join(" | ")} |`);

it("docs/options.md lists every option, for every trainer", async () => {
  const keys = [...new Set(names.flatMap((method) => Object.keys(methods[method].fields)))];
  const rows = keys.flatMap((key) => {
    const having = names.filter((method) => key in methods[method].fields);
    // A key that trainers document differently has a line for each.
    const texts = new Map<string, Method[]>();
    for (const method of having) {
      const { text, default: initial } = documentationOf(method, key)!;
      const line = `${text.replaceAll("|", "\\|")} | ${initial}`;
      texts.set(line, [...(texts.get(line) ?? []), method]);
    }
    return [...texts].map(([line, of]) => [`\`${key}\`${texts.size > 1 ? ` (${of.join(", ")})` : ""}`, line]);
  });
  const byTrainer = keys.map((key) => [`\`${key}\``, ...names.map((method) => cell(honours(method, key)))]);
  const byLoss = dpoLosses.map((lossType) => {
    // exo_pair is infinite without smoothing: what is asked of it is asked with a little.
    const base: DpoConfigInput = lossType === "exo_pair" ? { lossType, labelSmoothing: 1e-3 } : { lossType };
    expect(accepted(base), lossType).toBe(true);
    return [
      `\`${lossType}\``,
      cell(accepted({ ...base, labelSmoothing: 0.1 })),
      cell(accepted({ ...base, fDivergence: "js_divergence" })),
      cell(accepted({ ...base, ipoNormalisation: "none" })),
      cell(accepted({ ...base, discopopTau: 0.1 })),
      cell(accepted({ ...base, ldAlpha: 0.5 })),
      cell(accepted({ ...base, useWeighting: true })),
    ];
  });
  const page = [
    "# Options of the trainers",
    "",
    "Keys of the trainers; on the command line `--learning-rate` for `learningRate`. Unknown keys and combinations that",
    "cannot be honoured are refused before work starts; none is ignored.",
    "",
    ...table(["key", "what", "default"], rows),
    "",
    "## Every option, every trainer",
    "",
    "Asked of the schemas themselves. What is refused is refused by name, with `ZA_CONFIG_INVALID`.",
    "",
    ...table(["key", ...names.map((name) => `\`${name}\``)], byTrainer),
    "",
    "## Options that only some losses of DPO read",
    "",
    ...table(
      [
        "loss",
        ...["labelSmoothing", "fDivergence", "ipoNormalisation", "discopopTau", "ldAlpha", "useWeighting"].map(
          (key) => `\`${key}\``,
        ),
      ],
      byLoss,
    ),
    "",
  ].join("\n");
  await expect(page).toMatchFileSnapshot(path("docs/options.md"));
});

it("docs/distil.md names every reason to drop, and every preset", () => {
  const page = readFileSync(path("docs/distil.md"), "utf8");
  const names = [dropReasons, pairDropReasons, binarisePresets].flatMap((table) => Object.keys(table));
  expect(names.filter((name) => !page.includes(`\`${name}\``))).toEqual([]);
});

const example = (name: string) => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [path(`examples/${name}`)], { encoding: "utf8" });
  expect(status, stderr).toBe(0);
  return stdout;
};

it("examples/align.mjs runs", () => {
  expect(example("align.mjs")).toMatch(/dSFT step 10: loss 0\.\d+\ndDPO: margins \d/);
});

it("examples/infer.mjs answers, streams, scores and batches", () => {
  const printed = example("infer.mjs");
  expect(printed).toMatch(
    /1,312,384 parameters, weights float32\n\n.+\n {2}\(\d+ tokens, ended by (stop|length)\)\n.+\n/,
  );
  expect(printed).toMatch(/\nNine. {2}log-probability -\d+\.\d\d over \d tokens\nNever\. log-probability -/);
  expect(printed.match(/^Say (one|two|ten)\. → ".+"$/gm)).toHaveLength(3);
});

it("examples/serve.mjs serves, and npm's openai asks", () => {
  const printed = example("serve.mjs");
  expect(printed).toMatch(/^mine at http:\/\/127\.0\.0\.1:\d+\/v1\n.+\ngrade (\d|10) of 10\n"/);
  expect(printed).toMatch(/\n400 unsupported_parameter: logit_bias\n$/);
});

it("every example is named in the README", () => {
  const page = readFileSync(path("README.md"), "utf8");
  const names = readdirSync(path("examples"));
  expect(names.filter((name) => !page.includes(`examples/${name}`))).toEqual([]);
});
