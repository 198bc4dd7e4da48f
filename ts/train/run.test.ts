/** One step over a session that does as it is told. */
import { expect, it } from "vitest";
import type { NativeSession } from "../../bindings/node/index";
import type { Mistral } from "../model/mistral";
import { planBatches } from "./batches";
import { resolveConfig, type SftConfigInput, sftConfig } from "./config";
import { EventStream } from "./events";
import type { ExampleReport } from "./examples";
import { makeStep, newRun } from "./run";

/** `apply` answers with these one after another; a text is an error of the core. */
function runOf(answers: (Record<string, number | null> | string)[], options: SftConfigInput = {}) {
  let discarded = 0;
  const session = {
    apply: async () => {
      const answer = answers.shift()!;
      if (typeof answer === "string") throw new Error(answer);
      return JSON.stringify(answer);
    },
    gradNorm: async () => 2,
    discard: async () => {
      discarded++;
    },
  };
  const config = resolveConfig(sftConfig, { logSteps: 3, maxSteps: 9, ...options });
  const run = newRun({
    method: "sft",
    model: { native: {}, source: "a test" } as unknown as Mistral,
    config,
    session: session as unknown as NativeSession,
    plan: planBatches({ ...config, rows: 9 }),
    folder: undefined,
    events: new EventStream(),
    signal: undefined,
    report: {} as ExampleReport,
    digests: {},
    largest: () => ({ tokens: 0, predictions: 0 }),
  });
  const step = (number: number, loss = 1) =>
    makeStep(
      run,
      { step: number, epoch: number / 9, learningRate: 10 - number, supervisedTokens: 5 + number },
      async () => loss,
    );
  return { run, step, discarded: () => discarded };
}

const made = (loss: number | null, tokens: number) => ({
  loss,
  grad_norm: 2,
  learning_rate: 1,
  num_tokens: tokens,
  epoch: 0,
  step: 1,
});
const nan = "[ZA_TRAIN_NOT_FINITE] grad_norm is NaN at step 3. Remedy: lower learningRate";

it("an update that is skipped is counted in its line, and the means are those of the updates that were made", async () => {
  const { run, step, discarded } = runOf([made(4, 10), made(1, 20), nan, made(3, 30)]);
  for (const number of [1, 2, 3, 4]) await step(number, number === 3 ? Number.NaN : 1);
  expect(discarded()).toBe(1);
  expect(run.warnings).toEqual(["step 3: the update is skipped: grad_norm is NaN at step 3."]);
  expect(run.history).toHaveLength(2);
  expect(run.history[1]).toMatchObject({ step: 3, loss: 1, num_tokens: 20, skipped_updates: 1, learning_rate: 7 });
  // Of both steps, also where no update was made.
  expect(run.history[1]!.supervised_tokens).toBe(7.5);
  // What was not finite is not hidden behind the mean of the others, in no window.
  expect(run.history[1]).toMatchObject({ skipped_loss: Number.NaN, skipped_grad_norm: Number.NaN });
  expect(run.history[0]).not.toHaveProperty("skipped_loss");
  expect(run.guards.state).toMatchObject({ skipped: 1, inRow: 0 });
  expect(run.pending).toHaveLength(1);
  expect(run.doneSteps).toBe(4);
});

it("the loss of an update that was skipped for being high is logged beside the mean of the others", async () => {
  const { run, step } = runOf([made(4, 10), made(1, 20), made(3, 30), made(5, 40)], { skipZScore: 6 });
  run.guards.state.losses = Array.from({ length: 64 }, (_, index) => 1 + (index % 2));
  run.guards.state.gradNorms = [2];
  await step(1);
  await step(2, 12);
  await step(3, 14);
  expect(run.history[1]).toMatchObject({ step: 3, loss: Number.NaN, skipped_updates: 2 });
  expect(run.history[1]).toMatchObject({ skipped_loss: 13, skipped_grad_norm: 2 });
  await step(4);
  await step(5);
  await step(6, 30);
  expect(run.history[2]).toMatchObject({ step: 6, loss: 2, skipped_updates: 1, skipped_loss: 30 });
});

it("the updates that end a run are logged before it ends, whatever logSteps is", async () => {
  const { run, step } = runOf([made(4, 10), nan, nan], { maxSkippedUpdates: 2, logSteps: 100 });
  await step(1);
  await step(2);
  await expect(step(3)).rejects.toMatchObject({ code: "ZA_TRAIN_NOT_FINITE" });
  expect(run.history.at(-1)).toMatchObject({ step: 3, loss: Number.NaN, skipped_updates: 2, skipped_loss: 1 });
  expect(run.history.at(-1)!.skipped_grad_norm).toBeNaN();
});

it("a line of skipped updates alone says that there is no loss", async () => {
  const { run, step } = runOf([nan, nan, made(1, 10)]);
  await step(1);
  expect(run.history[0]).toMatchObject({ step: 1, loss: Number.NaN, skipped_updates: 1 });
  await step(2);
  await step(3);
  expect(run.history[1]).toMatchObject({ step: 3, loss: 1, skipped_updates: 1 });
});

it("a number that is not finite is not hidden in a mean", async () => {
  const { run, step } = runOf([made(1, 10), made(null, 20), made(1, 30)]);
  for (const number of [1, 2, 3]) await step(number);
  expect(run.history[1]!.loss).toBeNaN();
});

it("another error of the core is none of the guards' business", async () => {
  const { step, discarded } = runOf(["[ZA_OUT_OF_MEMORY] no memory. Remedy: buy some"]);
  await expect(step(1)).rejects.toThrow("no memory");
  expect(discarded()).toBe(0);
});
