/** One model and its trainings: never two at once, never given back beside one, and the policy itself as its reference. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { DpoTrainer, KtoTrainer, Mistral, SftTrainer } from "../ts/index";
import { reached, stopAt } from "./runs";
import { smallRows } from "./shared";

const base = join(import.meta.dirname, "../recipes/demo/base");
const load = () => Mistral.fromPretrained(base);
const { chats, pairs } = smallRows(8);
const steps = { maxSteps: 4, batchSize: 2, logSteps: 1, learningRate: 1e-3, shuffle: false };
const scratch = mkdtempSync(join(tmpdir(), "zephyr-in-training-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

describe("a model in training", () => {
  it("is trained by one run at a time, and that run is not touched", async () => {
    const alone = await new SftTrainer({ model: await load(), dataset: chats, ...steps }).fit();
    const model = await load();
    const first = new SftTrainer({ model, dataset: chats, ...steps });
    const running = first.fit();
    await reached(first, "step");
    const refused = { name: "ModelError", code: "ZA_MODEL_IN_TRAINING" };
    const second = new DpoTrainer({ policy: model, dataset: pairs, ...steps, outputDir: join(scratch, "second") });
    await expect(second.fit()).rejects.toMatchObject(refused);
    await expect(first.fit()).rejects.toMatchObject(refused);
    await expect(
      new SftTrainer({ model: model.withTemplate(model.tokenizer.chatTemplate!), dataset: chats, ...steps }).fit(),
    ).rejects.toMatchObject(refused);
    // An adapter of its own changes nothing of the model.
    await new SftTrainer({ model, dataset: chats, ...steps, lora: { rank: 2 } }).fit();
    expect((await running).history).toEqual(alone.history);
    // Over means over.
    await new SftTrainer({ model, dataset: chats, ...steps }).fit();
  });

  it("is not given back beside it", async () => {
    const model = await load();
    const trainer = new SftTrainer({ model, dataset: chats, ...steps });
    const running = trainer.fit();
    await reached(trainer, "step");
    expect(() => model.dispose()).toThrow(/is being trained and cannot be given back/);
    await running;
    model.dispose();
  });

  it("can be trained again after a run that failed or was stopped", async () => {
    const model = await load();
    const stop = new AbortController();
    const trainer = new SftTrainer({ model, dataset: chats, ...steps, maxSteps: 1000, signal: stop.signal });
    await stopAt(trainer, stop, "step");
    expect((await new SftTrainer({ model, dataset: chats, ...steps }).fit()).steps).toBe(4);
  });
});

it("a policy that is given as its own reference stays as it was, live too", async () => {
  const history = async (live: boolean) => {
    const policy = await load();
    const trainer = new DpoTrainer({ policy, ref: policy, dataset: pairs, ...steps, precomputeRefLogps: !live });
    return (await trainer.fit()).history;
  };
  const [cached, live] = [await history(false), await history(true)];
  for (const [index, line] of cached.entries()) {
    expect(live[index]!.loss).toBeCloseTo(line.loss!, 4);
    expect(live[index]!["rewards/margins"]).toBeCloseTo(line["rewards/margins"]!, 4);
  }
  expect(live[3]!.loss).toBeLessThan(live[0]!.loss! - 1e-3);

  const answers = pairs.flatMap(({ prompt, chosen, rejected }) => [
    { prompt, completion: chosen, label: true },
    { prompt, completion: rejected, label: false },
  ]);
  const policy = await load();
  const kto = await new KtoTrainer({
    policy,
    ref: policy,
    dataset: answers,
    ...steps,
    precomputeRefLogps: false,
  }).fit();
  expect(kto.history[3]!["rewards/chosen"]).not.toBe(0);
});
