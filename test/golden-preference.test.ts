/** KTO, ORPO, CPO and SimPO through their trainers: TRL's runs step by step, modifiers, and what is refused. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import {
  ConfigError,
  CpoTrainer,
  DataError,
  DpoTrainer,
  KtoTrainer,
  Mistral,
  OrpoTrainer,
  SftTrainer,
  SimpoTrainer,
  type TrainResult,
} from "../ts/index";
import { eventsOf, stopAt, warningsOf } from "./runs";
import { golden, metricError, present, readJson, relative } from "./shared";

type Messages = { role: string; content: string }[];
interface Pair {
  prompt: Messages;
  chosen: Messages;
  rejected: Messages;
}
interface Run {
  args: Record<string, number> & { scheduler: "cosine" };
  log: Record<string, number>[];
  final_logits_row0: number[][];
}

const load = (folder: string) => Mistral.fromPretrained(folder, { tokenizer: join(golden, "tokenizer") });
const window = join(golden, "window");
const place = mkdtempSync(join(tmpdir(), "zephyr-preference-"));
afterAll(() => rmSync(place, { recursive: true, force: true }));

function common(args: Run["args"]) {
  return {
    batchSize: args.batch!,
    maxSteps: args.steps!,
    learningRate: args.lr!,
    warmupSteps: args.warmup_steps!,
    lrScheduler: args.scheduler,
    weightDecay: args.weight_decay!,
    maxGradNorm: args.max_grad_norm!,
    beta: args.beta!,
    shuffle: false,
    logSteps: 1,
    truncation: "keep-start",
  } as const;
}

/** Compares every step; the tolerance grows evenly from 1e-4 to 1e-3. */
function follows({ history }: TrainResult, run: Run, apart: readonly string[]): void {
  expect(history).toHaveLength(run.log.length);
  for (const [index, expected] of run.log.entries()) {
    const within = 1e-4 + (9e-4 * index) / (run.log.length - 1);
    for (const [name, value] of Object.entries(expected)) {
      if (apart.includes(name)) continue;
      const found = history[index]![name]!;
      const error = metricError(name, found, value);
      expect(error, `step ${index + 1} ${name}: ${found} for ${value}`).toBeLessThan(within);
    }
  }
}

/** Two micro-batches of half the size are the same step. */
const halves = ({ batchSize, ...rest }: ReturnType<typeof common>) => ({
  ...rest,
  batchSize: batchSize / 2,
  gradientAccumulation: 2,
});

async function endsAlike(model: Mistral, run: Run, ids: readonly number[]): Promise<void> {
  const logits = await model.logits([...ids]);
  expect(relative(logits, run.final_logits_row0.flat())).toBeLessThan(1e-3);
}

/** The first eight tokens of forward.safetensors, as the golden runs end. */
function firstIds(folder: string): number[] {
  const bytes = readFileSync(join(folder, "forward.safetensors"));
  const length = Number(bytes.readBigUInt64LE(0));
  const [start] = JSON.parse(bytes.subarray(8, 8 + length).toString("utf8")).input_ids.data_offsets;
  return Array.from({ length: 8 }, (_, i) => Number(bytes.readBigInt64LE(8 + length + start + 8 * i)));
}

describe.runIf(present(golden))("preference trainers", () => {
  const pairs = readJson<{ dpo: Pair[] }>(window, "data.json").dpo;
  const answers = (rows: readonly Pair[]) =>
    rows.flatMap(({ prompt, chosen, rejected }) => [
      { prompt, completion: chosen, label: true },
      { prompt, completion: rejected, label: false },
    ]);
  // Means over prompts and padding there, over answers here; crates/align/test/golden_preference.rs checks TRL's too.
  const logits = ["logits/chosen", "logits/rejected"];

  for (const name of ["window", "headdim"]) {
    const folder = join(golden, name);
    const rows = () => readJson<{ dpo: Pair[] }>(folder, "data.json").dpo;
    // TRL's experimental trainers put the start token before the prompt and end an answer at its end token.
    const withStart = (model: Mistral) => `{{ bos_token }}${model.tokenizer.chatTemplate}`;

    it(`KTO of ${name} follows TRL`, async () => {
      const run = readJson<Run>(folder, "kto_run.json");
      for (const [precomputeRefLogps, options] of [
        [true, common(run.args)],
        [false, common(run.args)],
        [true, halves(common(run.args))],
      ] as const) {
        const ref = await load(join(folder, "ref.safetensors"));
        const policy = await load(folder);
        const trainer = new KtoTrainer({ policy, ref, ...options, precomputeRefLogps, answerEnd: "turn" });
        follows(await trainer.fit(answers(rows())), run, []);
        await endsAlike(policy, run, firstIds(folder));
      }
    });

    it(`ORPO of ${name} follows TRL`, async () => {
      const run = readJson<Run>(folder, "orpo_run.json");
      for (const [sharedPrompt, options] of [
        [true, common(run.args)],
        [false, halves(common(run.args))],
      ] as const) {
        const policy = await load(folder);
        const trainer = new OrpoTrainer({ policy, ...options, sharedPrompt, template: withStart(policy) });
        follows(await trainer.fit(rows()), run, logits);
        await endsAlike(policy, run, firstIds(folder));
      }
    });

    it(`CPO and SimPO of ${name} follow TRL`, async () => {
      const cpo = readJson<Run>(folder, "cpo_run.json");
      const simpo = readJson<Run>(folder, "simpo_run.json");
      const one = await load(folder);
      const template = withStart(one);
      follows(await new CpoTrainer({ policy: one, ...common(cpo.args), template }).fit(rows()), cpo, logits);
      await endsAlike(one, cpo, firstIds(folder));
      const { simpo_gamma: simpoGamma } = simpo.args;
      const two = await load(folder);
      const trainer = new SimpoTrainer({ policy: two, ...halves(common(simpo.args)), simpoGamma, template });
      follows(await trainer.fit(rows()), simpo, logits);
      await endsAlike(two, simpo, firstIds(folder));
      // CPO's own simpo is the same loss.
      const three = await load(folder);
      const same = new CpoTrainer({ policy: three, ...common(simpo.args), lossType: "simpo", cpoAlpha: 0, template });
      follows(await same.fit(rows()), simpo, logits);
    });
  }

  it("a run of each has a folder, an evaluation, a report, and goes on where it was stopped", async () => {
    const shared = { dataset: pairs.slice(0, 12), evalDataset: pairs.slice(12), batchSize: 2, epochs: 1, logSteps: 1 };
    const rate = { learningRate: 1e-3, saveSteps: 2, samples: 1 };
    const make = {
      kto: (rest: object) => new KtoTrainer({ ...shared, ...rate, ...rest } as never),
      orpo: (rest: object) => new OrpoTrainer({ ...shared, ...rate, ...rest } as never),
      cpo: (rest: object) => new CpoTrainer({ ...shared, ...rate, packing: true, maxLength: 130, ...rest } as never),
      simpo: (rest: object) => new SimpoTrainer({ ...shared, ...rate, alpha: 0.1, ...rest } as never),
    };
    for (const [method, trainer] of Object.entries(make)) {
      const whole = join(place, `${method}-whole`);
      const first = await trainer({ policy: await load(window), outputDir: whole }).fit();
      expect(first.steps).toBeGreaterThan(2);
      const training = first.history.filter((line) => "loss" in line);
      expect(
        training.every((line) => Number.isFinite(line.loss!)),
        method,
      ).toBe(true);
      expect(
        first.history.some((line) => "eval_loss" in line && "eval_rewards/margins" in line),
        method,
      ).toBe(true);
      expect(readFileSync(join(whole, "report.html"), "utf8")).toContain(
        method.toUpperCase().replace("SIMPO", "SimPO"),
      );

      const outputDir = join(place, `${method}-stopped`);
      const stop = new AbortController();
      const stopped = trainer({ policy: await load(window), outputDir, signal: stop.signal });
      await stopAt(stopped, stop, "step", 2);
      const resumed = await trainer({ policy: await load(window), outputDir, resume: true }).fit();
      expect(
        resumed.history.map(({ tokens_per_second, ...line }) => line),
        method,
      ).toEqual(first.history.map(({ tokens_per_second, ...line }) => line));
    }
  });

  it("KTO takes pairs apart, and says when the kinds are not in balance", async () => {
    const trainer = new KtoTrainer({ policy: await load(window), batchSize: 4, maxSteps: 2, logSteps: 1 });
    const { report, history } = await trainer.fit(pairs);
    expect(report.description).toContain("{prompt, chosen, rejected}");
    // Neighbours are of different pairs, so that every batch has both kinds.
    expect(history[0]).toHaveProperty("rewards/chosen");
    expect(history[0]).toHaveProperty("rewards/rejected");
    // From its own start every reward and the KL estimate are 0, and the loss is a half.
    expect(history[0]!["rewards/chosen"]).toBeCloseTo(0, 5);
    expect(history[0]!.loss).toBeCloseTo(0.5, 5);

    const wanted = answers(pairs).filter(({ label }, index) => label || index % 8 === 1);
    const uneven = new KtoTrainer({
      policy: await load(window),
      dataset: wanted,
      batchSize: 4,
      maxSteps: 2,
      lossType: "apo_zero_unpaired",
    });
    const { result, events } = await eventsOf(uneven);
    const { history: lines } = result;
    expect(warningsOf(events).join()).toContain("16 wanted and 4 unwanted");
    expect(lines.every((line) => line.kl === 0)).toBe(true);
  });

  it("a step with one kind of answers logs that kind alone", async () => {
    const wanted = answers(pairs).filter(({ label }) => label);
    const { history } = await new KtoTrainer({ policy: await load(window), batchSize: 4, maxSteps: 1 }).fit(wanted);
    expect(history[0]).toHaveProperty("rewards/chosen");
    expect(history[0]).not.toHaveProperty("rewards/rejected");
    expect(history[0]).not.toHaveProperty("rewards/margins");
  });

  it("a reference that follows the policy: fully at α = 1, not at all at α = 0", async () => {
    const options = { batchSize: 4, maxSteps: 3, learningRate: 1e-2, logSteps: 1, seed: 1 };
    const follow = async (refModelMixupAlpha: number | undefined) => {
      const ref = await load(join(window, "ref.safetensors"));
      const before = await ref.logits([1, 2, 3]);
      const sync =
        refModelMixupAlpha === undefined ? {} : { syncRefModel: true, refModelMixupAlpha, refModelSyncSteps: 2 };
      const trainer = new DpoTrainer({
        policy: await load(window),
        ref,
        evalDataset: pairs.slice(0, 4),
        ...options,
        ...sync,
      });
      const { history } = await trainer.fit(pairs);
      expect(await ref.logits([1, 2, 3])).toEqual(before);
      return history;
    };
    const [none, zero, one] = [await follow(undefined), await follow(0), await follow(1)];
    for (const [index, line] of none.entries()) {
      for (const [name, value] of Object.entries(line)) {
        if (name !== "tokens_per_second") expect(zero[index]![name], name).toBeCloseTo(value, 5);
      }
    }
    // After step 2 the reference is the policy: rewards of step 3 are 0 before its update.
    expect(one[1]!["rewards/margins"]).toBeCloseTo(none[1]!["rewards/margins"]!, 5);
    expect(one[2]!["rewards/chosen"]).toBeCloseTo(0, 4);
    expect(Math.abs(none[2]!["rewards/chosen"]!)).toBeGreaterThan(1e-2);

    const adapted = await (await load(window)).withLora({
      rank: 2,
      alpha: 2,
      dropout: 0,
      targetModules: "all-linear",
      useRslora: false,
    });
    const refused = new DpoTrainer({ policy: adapted, ...options, syncRefModel: true }).fit(pairs);
    await expect(refused).rejects.toMatchObject({ code: "ZA_CONFIG_INVALID", place: { field: "syncRefModel" } });
  });

  it("discounted tails, weights of pairs, noise and optimizers reach the core", async () => {
    const ref = await load(join(window, "ref.safetensors"));
    const loss = async (options: object) => {
      const trainer = new DpoTrainer({
        policy: await load(window),
        ref,
        batchSize: 4,
        maxSteps: 1,
        shuffle: false,
        ...options,
      });
      return (await trainer.fit(pairs)).metrics.loss!;
    };
    const plain = await loss({});
    expect(await loss({ ldAlpha: 1 })).toBeCloseTo(plain, 12);
    const half = [
      await loss({ ldAlpha: 0.5 }),
      await loss({ ldAlpha: 0.5, precomputeRefLogps: false, sharedPrompt: false }),
    ];
    expect(half[0]).not.toBeCloseTo(plain, 4);
    expect(half[0]).toBeCloseTo(half[1]!, 5);
    expect(await loss({ useWeighting: true })).toBeLessThan(plain);

    const learn = async (options: object) => {
      const dataset = readJson<{ sft: unknown[] }>(window, "data.json").sft;
      const model = await load(window);
      const shared = { model, dataset, batchSize: 4, maxSteps: 4, learningRate: 1e-3, logSteps: 1 };
      const { history } = await new SftTrainer({ ...shared, ...options }).fit();
      return history.map((line) => line.loss!);
    };
    const [exact, noisy, again] = [
      await learn({}),
      await learn({ neftuneNoiseAlpha: 5 }),
      await learn({ neftuneNoiseAlpha: 5 }),
    ];
    expect(noisy).toEqual(again);
    expect(noisy[0]).not.toBe(exact[0]);
    for (const optimizer of ["adamw-8bit", "adamw-bf16"]) {
      const found = await learn({ optimizer });
      expect(found[0]).toBe(exact[0]);
      expect(found[3]).not.toBe(exact[3]);
      expect(Math.abs(found[3]! - exact[3]!)).toBeLessThan(0.05);
    }
    const wsd = { lrScheduler: "warmup_stable_decay", lrDecaySteps: 2, lrDecayType: "linear", warmupSteps: 1 };
    const model = await load(window);
    const dataset = readJson<{ sft: unknown[] }>(window, "data.json").sft;
    const shared = { model, dataset, batchSize: 4, maxSteps: 5, learningRate: 1e-3, logSteps: 1 };
    const { history } = await new SftTrainer({ ...shared, ...wsd } as never).fit();
    expect(history.map((line) => line.learning_rate)).toEqual([0, 1e-3, 1e-3, 1e-3, 5e-4]);
  });

  it("data of the other kind is refused with the way out", async () => {
    const file = join(place, "thumbs.jsonl");
    writeFileSync(
      file,
      answers(pairs)
        .map((row) => JSON.stringify(row))
        .join("\n"),
    );
    for (const Trainer of [DpoTrainer, OrpoTrainer, CpoTrainer, SimpoTrainer]) {
      const outputDir = join(place, "refused");
      const error = await new Trainer({ policy: await load(window), outputDir }).fit(file).catch((error) => error);
      expect(error).toBeInstanceOf(DataError);
      expect(error.code).toBe("ZA_DATA_UNPAIRED");
      expect(error.remedy).toContain("KtoTrainer");
    }
    const kto = async (rows: unknown[]) =>
      new KtoTrainer({ policy: await load(window) }).fit(rows).catch((error) => error);
    const text = await kto([{ text: "only text" }]);
    expect(text.code).toBe("ZA_DATA_FORMAT");
    expect(text.remedy).toContain("{prompt, completion, label}");
    const label = await kto([{ prompt: "Hello", completion: "World", label: "good" }]);
    expect(label).toMatchObject({ code: "ZA_DATA_ROW", place: { field: "label" } });
    const empty = await kto([{ prompt: "Hello", completion: "", label: true }]);
    expect(empty).toMatchObject({ code: "ZA_EMPTY_ANSWER", place: { field: "completion" } });
  });

  it("options that a trainer cannot honour are refused by name", async () => {
    const policy = await load(window);
    const fields = (make: () => unknown) => {
      try {
        make();
      } catch (error) {
        expect(error).toBeInstanceOf(ConfigError);
        return (error as ConfigError).problems.map(({ field }) => field);
      }
      return [];
    };
    expect(fields(() => new OrpoTrainer({ policy, labelSmoothing: 0.1, precomputeRefLogps: true } as never))).toEqual([
      "labelSmoothing",
      "precomputeRefLogps",
    ]);
    expect(fields(() => new KtoTrainer({ policy, sharedPrompt: true, packing: true } as never))).toEqual([
      "sharedPrompt",
      "packing",
    ]);
    expect(fields(() => new SimpoTrainer({ policy, cpoAlpha: 1, generateDuringEval: true } as never))).toEqual([
      "cpoAlpha",
      "generateDuringEval",
    ]);
  });
});
