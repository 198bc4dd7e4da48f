import { describe, expect, it } from "vitest";
import { recipes } from "../../recipes/zephyr";
import { ConfigError } from "../errors";
import type { Mistral } from "../model/mistral";
import { nearestKey } from "../nearest-key";
import {
  type ConfigSchema,
  type DpoConfigInput,
  dpoConfig,
  resolveConfig,
  type SftConfigInput,
  sftConfig,
} from "./config";
import { CpoTrainer } from "./cpo-trainer";
import { DpoTrainer } from "./dpo-trainer";
import { KtoTrainer } from "./kto-trainer";
import { methods } from "./methods";
import { OrpoTrainer } from "./orpo-trainer";
import { cpoConfig, ktoConfig, orpoConfig, simpoConfig } from "./preference-config";
import { SftTrainer } from "./sft-trainer";
import { SimpoTrainer } from "./simpo-trainer";

function refusal(work: () => unknown): ConfigError {
  try {
    work();
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigError);
    return error as ConfigError;
  }
  throw new Error("the configuration was accepted");
}

const sft = (input: object) => resolveConfig(sftConfig, input as SftConfigInput);
const dpo = (input: object) => resolveConfig(dpoConfig, input as DpoConfigInput);

describe("resolveConfig", () => {
  it("fills in TRL's defaults and freezes", () => {
    const config = sft({});
    expect(config).toMatchObject({
      learningRate: 2e-5,
      lrScheduler: "linear",
      epochs: 3,
      maxSteps: null,
      warmupSteps: 0,
      warmupRatio: null,
      batchSize: 8,
      maxLength: 1024,
      maxGradNorm: 1,
      adamEpsilon: 1e-8,
      lossOn: "assistant",
      packing: false,
    });
    expect(Object.isFrozen(config)).toBe(true);
    expect(dpo({})).toMatchObject({
      learningRate: 1e-6,
      beta: 0.1,
      lossType: ["sigmoid"],
      lossWeights: [1],
      sharedPrompt: true,
    });
    expect(Object.isFrozen(dpo({}).lossType)).toBe(true);
    expect(Object.values(dpo({}))).not.toContain(undefined);
    expect(Object.values(sft({}))).not.toContain(undefined);
  });

  it("keeps what is given, and takes undefined as left out", () => {
    expect(sft({ maxSteps: 5, warmupRatio: 0.1, maxGradNorm: null, seed: undefined })).toMatchObject({
      maxSteps: 5,
      epochs: null,
      warmupRatio: 0.1,
      warmupSteps: null,
      maxGradNorm: null,
      seed: 42,
    });
    expect(dpo({ lossType: ["sigmoid", "sft"], lossWeights: [1, 0.2] })).toMatchObject({
      lossType: ["sigmoid", "sft"],
      lossWeights: [1, 0.2],
    });
  });

  it("a resolved configuration resolves to itself where alternatives are taken out", () => {
    const { warmupRatio, maxSteps, ...rest } = sft({ epochs: 2 });
    expect([warmupRatio, maxSteps]).toEqual([null, null]);
    expect(sft(rest)).toEqual(sft({ epochs: 2 }));
  });

  it("reports all problems at once, each with field and remedy", () => {
    const error = refusal(() =>
      sft({
        learningrate: 1,
        nonsense: 2,
        batchSize: 0,
        lrScheduler: "cosin",
        warmupSteps: 3,
        warmupRatio: 0.1,
        seed: 1.5,
      }),
    );
    expect(error.code).toBe("ZA_CONFIG_INVALID");
    expect(error.problems.map(({ field }) => field).sort()).toEqual([
      "batchSize",
      "learningrate",
      "lrScheduler",
      "nonsense",
      "seed",
      "warmupRatio",
    ]);
    for (const { remedy } of error.problems) expect(remedy).toMatch(/[.?]$/);
    expect(error.message).toContain("Did you mean learningRate?");
    expect(error.message).toContain('"constant_with_warmup"');
    expect(error.problems.find(({ field }) => field === "nonsense")?.remedy).toBe("Remove it.");
  });

  it("knows TRL's spelling and near misses", () => {
    expect(nearestKey("learning_rate", ["learningRate", "seed"])).toBe("learningRate");
    expect(nearestKey("betta", ["beta", "seed"])).toBe("beta");
    expect(nearestKey("something", ["beta", "seed"])).toBeUndefined();
  });

  it.each([
    [{ warmupSteps: 3, lrScheduler: "constant" }, "lrScheduler"],
    [{ epochs: 1, maxSteps: 3 }, "maxSteps"],
    [{ resume: true }, "resume"],
    [{ saveSteps: 5 }, "saveSteps"],
    [{ keepCheckpoints: 3 }, "keepCheckpoints"],
    [{ lossOn: "all", truncation: "keep-answer" }, "truncation"],
    [{ packing: "wrapped", truncation: "keep-answer" }, "truncation"],
    [{ packing: "wrapped", lossOn: "all", truncation: "keep-start" }, "truncation"],
    [{ epochs: 0 }, "epochs"],
    [{ adamBeta2: 1 }, "adamBeta2"],
    [{ maxGradNorm: 0 }, "maxGradNorm"],
    [{ learningRate: Number.NaN }, "learningRate"],
    [{ learningRate: "1e-5" }, "learningRate"],
    [{ truncation: "keep-end" }, "truncation"],
    [{ lrScheduler: "cosine_with_min_lr" }, "minLr"],
    [{ lrScheduler: "cosine_with_min_lr", minLr: 1e-6, minLrRate: 0.1 }, "minLr"],
    [{ lrScheduler: "warmup_stable_decay" }, "lrDecaySteps"],
    [{ lrScheduler: "warmup_stable_decay", lrDecaySteps: 2, lrPower: 2 }, "lrPower"],
    [{ minLrRate: 0.1 }, "minLrRate"],
    [{ lrDecayType: "cosine" }, "lrDecayType"],
    [{ optimizer: "sgd" }, "optimizer"],
    [{ neftuneNoiseAlpha: 0 }, "neftuneNoiseAlpha"],
    [{ generateDuringEval: true }, "generateDuringEval"],
    [{ padToMultipleOf: 8 }, "padToMultipleOf"],
    [{ beta: 0.1 }, "beta"],
  ])("SFT refuses %o", (input, field) => {
    expect(refusal(() => sft(input)).problems.map((problem) => problem.field)).toEqual([field]);
  });

  it.each([
    [{ lossType: "dpo" }, "lossType"],
    [{ lossType: [] }, "lossType"],
    [{ lossType: ["sigmoid", "sft"], lossWeights: [1] }, "lossWeights"],
    [{ lossWeights: [0] }, "lossWeights"],
    [{ lossType: "hinge", labelSmoothing: 0.1 }, "labelSmoothing"],
    [{ lossType: "exo_pair" }, "labelSmoothing"],
    [{ lossType: "robust", labelSmoothing: 0.5 }, "labelSmoothing"],
    [{ lossType: "sft", labelSmoothing: 0.1 }, "labelSmoothing"],
    [{ labelSmoothing: 0.6 }, "labelSmoothing"],
    [{ lossType: "nca_pair", fDivergence: "js_divergence" }, "fDivergence"],
    [{ lossType: "sft", fDivergence: "js_divergence" }, "fDivergence"],
    [{ fAlpha: 0.3 }, "fAlpha"],
    [{ ipoNormalisation: "none" }, "ipoNormalisation"],
    [{ discopopTau: 0.1 }, "discopopTau"],
    [{ lossType: ["sigmoid", "sft"], ldAlpha: 0.5 }, "ldAlpha"],
    [{ ldAlpha: 1.5 }, "ldAlpha"],
    [{ lossType: "aot", useWeighting: true }, "useWeighting"],
    [{ lossType: ["sft", "sigmoid"], useWeighting: true }, "useWeighting"],
    [{ syncRefModel: true, precomputeRefLogps: true }, "syncRefModel"],
    [{ syncRefModel: true, refBatchSize: 4 }, "refBatchSize"],
    [{ refModelMixupAlpha: 0.5 }, "refModelMixupAlpha"],
    [{ refModelSyncSteps: 4 }, "refModelSyncSteps"],
    [{ neftuneNoiseAlpha: 5 }, "neftuneNoiseAlpha"],
    [{ refBatchSize: 2, precomputeRefLogps: false }, "refBatchSize"],
    [{ referenceCache: "reference.jsonl", precomputeRefLogps: false }, "referenceCache"],
    [{ referenceCache: "reference.jsonl", syncRefModel: true }, "referenceCache"],
    [{ maxPromptLength: 1024 }, "maxPromptLength"],
    [{ maxPromptLength: 512, truncation: "keep-start" }, "maxPromptLength"],
    [{ packing: "wrapped" }, "packing"],
    [{ packLength: 4096 }, "packLength"],
    [{ packing: true, packLength: 2047 }, "packLength"],
    [{ packingWindow: 1000 }, "packingWindow"],
  ])("DPO refuses %o", (input, field) => {
    expect(refusal(() => dpo(input)).problems.map((problem) => problem.field)).toEqual([field]);
  });

  it.each([
    [{ lossType: ["sigmoid", "sft"], labelSmoothing: 0.1 }],
    [{ lossType: "exo_pair", labelSmoothing: 1e-3 }],
    [{ fDivergence: "alpha_divergence", fAlpha: 0.3 }],
    [{ lossType: "ipo", ipoNormalisation: "none" }],
    [{ packing: true, packLength: 4096, packingWindow: 1000 }],
  ])("DPO accepts %o", (input) => {
    const { lossType = "sigmoid", ...rest } = input as DpoConfigInput;
    expect(dpo(input)).toMatchObject({ ...rest, lossType: typeof lossType === "string" ? [lossType] : lossType });
  });
});

describe("the other preference trainers", () => {
  const defaults = { learningRate: 1e-6, maxLength: 1024, optimizer: "adamw" };

  it("have TRL's defaults", () => {
    expect(resolveConfig(orpoConfig, {})).toMatchObject({ ...defaults, beta: 0.1, sharedPrompt: true });
    const cpo = { beta: 0.1, lossType: "sigmoid", labelSmoothing: 0, cpoAlpha: 1, simpoGamma: 0.5, alpha: 0 };
    expect(resolveConfig(cpoConfig, {})).toMatchObject({ ...defaults, ...cpo });
    expect(resolveConfig(simpoConfig, {})).toMatchObject({ ...defaults, beta: 2, simpoGamma: 0.5, alpha: 0 });
    const kto = { beta: 0.1, lossType: "kto", desirableWeight: 1, undesirableWeight: 1, precomputeRefLogps: true };
    expect(resolveConfig(ktoConfig, {})).toMatchObject({ ...defaults, ...kto });
    for (const config of [orpoConfig, cpoConfig, simpoConfig, ktoConfig]) {
      expect(Object.values(resolveConfig(config as ConfigSchema<object, object>, {}))).not.toContain(undefined);
    }
  });

  it("a reference that follows is not precomputed", () => {
    expect(dpo({ syncRefModel: true })).toMatchObject({ precomputeRefLogps: false, refModelMixupAlpha: 0.6 });
    expect(resolveConfig(ktoConfig, { syncRefModel: true }).precomputeRefLogps).toBe(false);
  });

  it.each([
    [orpoConfig, { labelSmoothing: 0.1 }, "labelSmoothing"],
    [orpoConfig, { maxPromptLength: 2000 }, "maxPromptLength"],
    [cpoConfig, { lossType: "hinge", labelSmoothing: 0.1 }, "labelSmoothing"],
    [cpoConfig, { simpoGamma: 0.5 }, "simpoGamma"],
    [cpoConfig, { lossType: "alphapo" }, "lossType"],
    [cpoConfig, { cpoAlpha: -1 }, "cpoAlpha"],
    [simpoConfig, { cpoAlpha: 1 }, "cpoAlpha"],
    [simpoConfig, { syncRefModel: true }, "syncRefModel"],
    [ktoConfig, { sharedPrompt: true }, "sharedPrompt"],
    [ktoConfig, { desirableWeight: 0 }, "desirableWeight"],
    [ktoConfig, { batchSize: 1 }, "batchSize"],
    [ktoConfig, { packingWindow: 4 }, "packingWindow"],
    [ktoConfig, { referenceCache: "reference.jsonl", precomputeRefLogps: false }, "referenceCache"],
    [simpoConfig, { maxPromptLength: 512, truncation: "keep-start" }, "maxPromptLength"],
  ])("refuse %#: %o", (config, input, field) => {
    const refused = refusal(() => resolveConfig(config as unknown as ConfigSchema<object, object>, input));
    expect(refused.problems.map((problem) => problem.field)).toEqual([field]);
  });

  it("accept what belongs together", () => {
    expect(resolveConfig(ktoConfig, { batchSize: 1, lossType: "apo_zero_unpaired" }).batchSize).toBe(1);
    expect(resolveConfig(ktoConfig, { batchSize: 1, gradientAccumulation: 2 }).gradientAccumulation).toBe(2);
    expect(resolveConfig(cpoConfig, { lossType: "simpo", simpoGamma: 1, labelSmoothing: 0.1 }).simpoGamma).toBe(1);
    expect(sft({ lrScheduler: "polynomial", minLr: 1e-6, lrPower: 2 }).lrPower).toBe(2);
  });
});

describe("what stands beside the options", () => {
  const here = { evaluates: false, device: "cpu" } as const;

  it.each([
    [{ evalSteps: 5 }, here, "evalSteps"],
    [{ sampleSteps: 5 }, here, "sampleSteps"],
    [{ sampleSteps: 5, outputDir: "run" }, { ...here, samples: 0 }, "sampleSteps"],
    [{ precision: "bfloat16" }, here, "precision"],
    [{ precision: "bfloat16", device: "cpu" }, { evaluates: false }, "precision"],
  ] as const)("%o beside %o is refused", (input, beside, field) => {
    for (const { config } of Object.values(methods)) {
      const refused = refusal(() => resolveConfig(config as unknown as ConfigSchema<object, object>, input, beside));
      expect(refused.problems.map((problem) => problem.field)).toEqual([field]);
      expect(refused.problems[0]!.remedy).toMatch(/, or remove it\.$/);
    }
  });

  it.each([
    [{ evalSteps: 5 }, { ...here, evaluates: true }],
    [{ evalSteps: 0, sampleSteps: 0 }, here],
    [{ sampleSteps: 5, outputDir: "run" }, here],
    [{ sampleSteps: 5 }, { ...here, samples: 1 }],
    [{ precision: "float32" }, here],
    [{ precision: "bfloat16", device: "cuda" }, here],
    [{ precision: "bfloat16" }, { evaluates: false }],
  ] as const)("%o beside %o is taken", (input, beside) => {
    expect(resolveConfig(sftConfig, input, beside)).toMatchObject(input);
  });

  it("trainers know it", async () => {
    const model = { native: {}, device: { kind: "cpu" } } as Mistral;
    const options = { evalSteps: 5, sampleSteps: 5, precision: "bfloat16" } as const;
    const fields = ["evalSteps", "precision", "sampleSteps"];
    const making = [
      () => new SftTrainer({ model, dataset: [], ...options }),
      ...[DpoTrainer, KtoTrainer, OrpoTrainer, CpoTrainer, SimpoTrainer].map(
        (Trainer) => () => new Trainer({ policy: model, ...options }),
      ),
    ];
    for (const make of making)
      expect(
        refusal(make)
          .problems.map(({ field }) => field)
          .sort(),
      ).toEqual(fields);
    const given = { evalDataset: [], samples: 1, outputDir: "run" };
    new SftTrainer({ model, dataset: [], ...options, precision: "float32", ...given });
  });
});

it("what is written down is what is done: where every token is learnt, the start is kept", () => {
  expect(sft({ lossOn: "all" }).truncation).toBe("keep-start");
  expect(sft({ lossOn: "assistant" }).truncation).toBe("keep-answer");
  expect(sft({ lossOn: "all", truncation: "keep-start" })).toEqual(sft({ lossOn: "all" }));
  expect(resolveConfig(ktoConfig, {})).not.toHaveProperty("packing");
});

describe("recipes", () => {
  it("resolve, and have the global batch of their source", () => {
    const stages = [
      [resolveConfig(sftConfig, recipes.zephyr.sft), 128],
      [resolveConfig(dpoConfig, recipes.zephyr.dpo), 128],
      [resolveConfig(sftConfig, recipes.zephyr.handbook.sft), 128],
      [resolveConfig(dpoConfig, recipes.zephyr.handbook.dpo), 128],
      [resolveConfig(sftConfig, recipes.zephyrPaper.sft), 512],
      [resolveConfig(dpoConfig, recipes.zephyrPaper.dpo), 32],
    ] as const;
    for (const [config, global] of stages) expect(config.batchSize * config.gradientAccumulation).toBe(global);
    expect(recipes.zephyr.dpo.beta).toBe(0.01);
    expect(recipes.zephyrPaper.dpo).toMatchObject({ beta: 0.1, epochs: 3, lrScheduler: "linear" });
    expect(recipes.zephyr.sft.lossOn).toBeUndefined();
    expect(recipes.zephyr.handbook.sft.lossOn).toBe("all");
  });
});
