/** Whole training runs of TRL, step by step: loss, gradient norm, learning rate, metrics, and the final logits. */
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { DpoTrainer, Mistral, SftTrainer } from "../ts/index";
import { golden, metricError, present, readJson, relative, tensor } from "./shared";

interface Log {
  step: number;
  loss: number;
  grad_norm: number;
  learning_rate: number;
  [name: string]: number;
}

interface Run {
  args: Record<
    "batch" | "grad_accum" | "steps" | "lr" | "warmup_steps" | "weight_decay" | "max_grad_norm" | "beta",
    number
  > & {
    scheduler: "cosine";
  };
  log: Log[];
  input_ids?: number[][];
}

const tolerances = { first: 1e-4, last: 1e-3 };

/** The tolerance grows evenly from the first step's to the last one's. */
function tolerance(step: number, steps: number): number {
  return tolerances.first + ((tolerances.last - tolerances.first) * (step - 1)) / (steps - 1);
}

function close(key: string, found: number, expected: number, within: number, what: string): void {
  const error = metricError(key, found, expected);
  expect(error, `${what}: ${found} for ${expected}`).toBeLessThan(within);
}

function common(args: Run["args"]) {
  return {
    batchSize: args.batch,
    gradientAccumulation: args.grad_accum ?? 1,
    maxSteps: args.steps,
    learningRate: args.lr,
    warmupSteps: args.warmup_steps,
    lrScheduler: args.scheduler,
    weightDecay: args.weight_decay,
    maxGradNorm: args.max_grad_norm,
    shuffle: false,
    logSteps: 1,
    // TRL's conventions: the line break after the end token is learnt, sequences are cut at their end.
    answerEnd: "turn",
    truncation: "keep-start",
  } as const;
}

const load = (folder: string) => Mistral.fromPretrained(folder, { tokenizer: join(golden, "tokenizer") });

/** Logits on the batch of forward.safetensors, row by row without its padding. */
async function finalLogits(model: Mistral, folder: string, file: string): Promise<void> {
  const ids = tensor(join(folder, "forward.safetensors"), "input_ids");
  const mask = tensor(join(folder, "forward.safetensors"), "attention_mask").values;
  const expected = tensor(file, "final_logits");
  const [rows = 0, columns = 0, vocabulary = 0] = expected.shape;
  for (let row = 0; row < rows; row++) {
    const length = mask.subarray(row * columns, (row + 1) * columns).reduce((sum, one) => sum + one, 0);
    const found = await model.logits(Array.from(ids.values.subarray(row * columns, row * columns + length)));
    const start = row * columns * vocabulary;
    const error = relative(found, expected.values.subarray(start, start + length * vocabulary));
    expect(error, `final logits of row ${row}`).toBeLessThan(tolerances.last);
  }
}

describe.runIf(present(golden))("golden runs", () => {
  for (const name of ["window", "headdim"]) {
    const folder = join(golden, name);
    const rows = () => readJson<{ sft: unknown[]; dpo: unknown[] }>(folder, "data.json");

    it(`dSFT of ${name} follows TRL`, async () => {
      const run = readJson<Run>(folder, "sft_run.json");
      const model = await load(folder);
      const maxLength = Math.max(...run.input_ids!.map((ids) => ids.length));
      const trainer = new SftTrainer({ model, dataset: rows().sft, lossOn: "all", maxLength, ...common(run.args) });
      const { history } = await trainer.fit();
      expect(history).toHaveLength(run.log.length);
      for (const [index, expected] of run.log.entries()) {
        const found = history[index]!;
        const within = tolerance(expected.step, run.log.length);
        for (const key of ["loss", "grad_norm", "num_tokens", "learning_rate"]) {
          close(key, found[key]!, expected[key]!, within, `step ${expected.step} ${key}`);
        }
        // TRL averages the two micro-batches' means, we count tokens alike: close, not equal.
        close("entropy", found.entropy!, expected.entropy!, 5e-3, `step ${expected.step} entropy`);
      }
      await finalLogits(model, folder, join(folder, "sft_run.safetensors"));
    });

    it(`dDPO of ${name} follows TRL`, async () => {
      const run = readJson<Run>(folder, "dpo_run.json");
      for (const [precomputeRefLogps, sharedPrompt] of [
        [true, true],
        [false, true],
        [true, false],
      ] as const) {
        const policy = await load(folder);
        const trainer = new DpoTrainer({
          policy,
          ref: await load(join(folder, "ref.safetensors")),
          dataset: rows().dpo,
          beta: run.args.beta,
          precomputeRefLogps,
          sharedPrompt,
          ...common(run.args),
        });
        const { history } = await trainer.fit();
        const computed = history.reduce((sum, line) => sum + line.computed_tokens!, 0);
        expect(computed < history.at(-1)!.num_tokens!).toBe(sharedPrompt);
        for (const [index, expected] of run.log.entries()) {
          const found = history[index]!;
          const within = tolerance(expected.step, run.log.length);
          for (const key of Object.keys(expected)) {
            if (key === "step") continue;
            close(key, found[key]!, expected[key]!, within, `step ${expected.step} ${key}`);
          }
        }
      }
    });
  }
});
