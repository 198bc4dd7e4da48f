/** The documents and examples are true: tables are those of the code (`npx vitest run test/docs -u` writes them), examples run. */
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { documentationOf } from "../ts/cli/option-docs";
import { binarisePresets, dropReasons, errorCodes, pairDropReasons } from "../ts/index";
import { type ConfigSchema, type DpoConfigInput, dpoConfig, dpoLosses, resolveConfig } from "../ts/train/config";
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

/**
 * For each key configurations that ask for something by it: its value, and what that value needs beside it. A key counts
 * as honoured by a trainer that takes one of them whole.
 */
const asking: Record<string, Record<string, unknown>[]> = {
  learningRate: [{ learningRate: 3e-5 }],
  lrScheduler: [{ lrScheduler: "cosine" }],
  warmupSteps: [{ warmupSteps: 3 }],
  warmupRatio: [{ warmupRatio: 0.1 }],
  minLr: [{ minLr: 1e-7, lrScheduler: "cosine_with_min_lr" }],
  minLrRate: [{ minLrRate: 0.1, lrScheduler: "cosine_with_min_lr" }],
  lrDecaySteps: [{ lrDecaySteps: 5, lrScheduler: "warmup_stable_decay" }],
  lrDecayType: [{ lrDecayType: "linear", lrDecaySteps: 5, lrScheduler: "warmup_stable_decay" }],
  lrWarmupType: [{ lrWarmupType: "cosine", lrDecaySteps: 5, lrScheduler: "warmup_stable_decay" }],
  lrPower: [{ lrPower: 2, lrScheduler: "polynomial" }],
  epochs: [{ epochs: 2 }],
  maxSteps: [{ maxSteps: 9 }],
  batchSize: [{ batchSize: 4 }],
  gradientAccumulation: [{ gradientAccumulation: 4 }],
  packingWindow: [{ packingWindow: 1000, packing: true }],
  maxLength: [{ maxLength: 512 }],
  optimizer: [{ optimizer: "adamw-8bit" }],
  weightDecay: [{ weightDecay: 0.1 }],
  adamBeta1: [{ adamBeta1: 0.8 }],
  adamBeta2: [{ adamBeta2: 0.95 }],
  adamEpsilon: [{ adamEpsilon: 1e-6 }],
  maxGradNorm: [{ maxGradNorm: 0.5 }],
  seed: [{ seed: 7 }],
  shuffle: [{ shuffle: false }],
  logSteps: [{ logSteps: 3 }],
  saveSteps: [{ saveSteps: 50, outputDir: "run" }],
  evalSteps: [{ evalSteps: 50 }],
  sampleSteps: [{ sampleSteps: 50, outputDir: "run" }],
  logTo: [{ logTo: ["tensorboard"], outputDir: "run" }],
  outputDir: [{ outputDir: "run" }],
  recompute: [{ recompute: "layer" }],
  precision: [{ precision: "float32" }],
  measurePeak: [{ measurePeak: false }],
  device: [{ device: "cuda" }],
  threads: [{ threads: 2 }],
  template: [{ template: "zephyr" }],
  answerEnd: [{ answerEnd: "turn" }],
  specialsInContent: [{ specialsInContent: "parse" }],
  truncation: [{ truncation: "keep-start" }],
  onBadRow: [{ onBadRow: "skip" }],
  lora: [{ lora: { rank: 8 } }],
  resume: [{ resume: true, outputDir: "run" }],
  resumeForce: [{ resumeForce: true, outputDir: "run" }],
  keepCheckpoints: [{ keepCheckpoints: 3, outputDir: "run" }],
  maxSkippedUpdates: [{ maxSkippedUpdates: 5 }],
  skipZScore: [{ skipZScore: 6 }],
  stepTimeoutSeconds: [{ stepTimeoutSeconds: 60 }],
  lossOn: [{ lossOn: "all" }],
  packing: [{ packing: true }],
  neftuneNoiseAlpha: [{ neftuneNoiseAlpha: 5 }],
  packLength: [{ packLength: 4096, packing: true }],
  maxPromptLength: [{ maxPromptLength: 512 }],
  sharedPrompt: [{ sharedPrompt: false }],
  precomputeRefLogps: [{ precomputeRefLogps: false }],
  referenceCache: [{ referenceCache: "reference.jsonl" }],
  refBatchSize: [{ refBatchSize: 4 }],
  syncRefModel: [{ syncRefModel: true }],
  refModelMixupAlpha: [{ refModelMixupAlpha: 0.5, syncRefModel: true }],
  refModelSyncSteps: [{ refModelSyncSteps: 5, syncRefModel: true }],
  beta: [{ beta: 0.3 }],
  lossType: [{ lossType: "hinge" }, { lossType: "apo_zero_unpaired" }],
  lossWeights: [{ lossWeights: [0.5] }],
  labelSmoothing: [{ labelSmoothing: 0.1 }],
  fDivergence: [{ fDivergence: "js_divergence" }],
  fAlpha: [{ fAlpha: 0.3, fDivergence: "alpha_divergence" }],
  ipoNormalisation: [{ ipoNormalisation: "none", lossType: "ipo" }],
  discopopTau: [{ discopopTau: 0.1, lossType: "discopop" }],
  ldAlpha: [{ ldAlpha: 0.5 }],
  useWeighting: [{ useWeighting: true }],
  desirableWeight: [{ desirableWeight: 2 }],
  undesirableWeight: [{ undesirableWeight: 2 }],
  cpoAlpha: [{ cpoAlpha: 0.5 }],
  simpoGamma: [{ simpoGamma: 1 }, { simpoGamma: 1, lossType: "simpo" }],
  alpha: [{ alpha: 0.2 }],
};

/** Held-out rows on a card: what is refused without them is not meant here. */
const beside = { evaluates: true, device: "cuda" } as const;

/** Whether a method takes a key: the resolution that a user meets is asked, with a value that asks for something. */
function honours(method: Method, key: string): boolean {
  const config = methods[method].config as unknown as ConfigSchema<object, Record<string, unknown>>;
  const usual = resolveConfig(config, {})[key];
  return asking[key]!.some((input) => {
    let resolved: Record<string, unknown>;
    try {
      resolved = resolveConfig(config, input, beside);
    } catch (error) {
      expect(error).toMatchObject({ code: "ZA_CONFIG_INVALID" });
      return false;
    }
    // A value that is the default, or that gets lost, shows nothing.
    expect(resolved[key], `${method} ${key}`).not.toEqual(usual);
    return true;
  });
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
  expect(Object.keys(asking).sort()).toEqual([...keys].sort());
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
    "Asked of the resolution that every trainer begins with, each key with a value that asks for something and with what that",
    "value needs beside it. What is refused is refused by name, with `ZA_CONFIG_INVALID`.",
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
