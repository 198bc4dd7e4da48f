/** Faults that users of comparable trainers met, each with the right behaviour (`../shared/cases`, area train). */
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { DpoTrainer, type Message, Mistral, SftTrainer } from "../ts/index";
import type { EncodedRow } from "../ts/model/tokenizer";
import type { StartEvent } from "../ts/train/events";
import { eventsOf, warningsOf } from "./runs";
import { cases, present, readJson, readJsonl } from "./shared";

const at = (...path: string[]) => join(cases, ...path);

describe.runIf(present(at("14-last-accumulation-window")))("case 14: the last, smaller accumulation window", () => {
  const folder = at("14-last-accumulation-window");
  const options = { batchSize: 1, gradientAccumulation: 4, epochs: 1, learningRate: 1e-12, maxGradNorm: null } as const;

  it("is not scaled down in DPO", async () => {
    const reference = readJson<{ log: { grad_norm: number; epoch: number }[] }>(folder, "reference.json").log;
    const policy = await Mistral.fromPretrained(join(folder, "model"));
    const trainer = new DpoTrainer({ policy, ...options, lrScheduler: "constant", answerEnd: "turn", logSteps: 1 });
    const { history } = await trainer.fit(join(folder, "pairs.jsonl"));
    expect(history).toHaveLength(2);
    for (const [index, expected] of reference.entries()) {
      const step = history[index]!;
      expect(step.loss).toBeCloseTo(Math.LN2, 6);
      expect(Math.abs(step["rewards/margins"]!)).toBeLessThan(1e-6);
      expect(Math.abs(step.grad_norm! / expected.grad_norm - 1)).toBeLessThan(1e-4);
      expect(step.epoch).toBeCloseTo(expected.epoch, 10);
    }
  });

  it("is not scaled down in SFT", async () => {
    const model = await Mistral.fromPretrained(join(folder, "model"));
    const row = {
      messages: [
        { role: "user", content: "Pick one." },
        { role: "assistant", content: "left" },
      ],
    };
    const dataset = Array.from({ length: 5 }, () => row);
    const trainer = new SftTrainer({ model, dataset, ...options, lrScheduler: "constant", logSteps: 1 });
    const { history } = await trainer.fit();
    expect(history[1]!.grad_norm! / history[0]!.grad_norm!).toBeCloseTo(1, 4);
  });
});

describe.runIf(present(at("15-nothing-left-to-learn")))("case 15: rows whose answer is cut away or empty", () => {
  const folder = at("15-nothing-left-to-learn");
  let whole: (messages: Message[]) => EncodedRow;
  const train = async (file: string) => {
    const model = await Mistral.fromPretrained(join(folder, "model"));
    whole = (messages) => model.tokenizer.encodeChat(messages);
    const dataset = join(folder, file);
    const trainer = new SftTrainer({ model, dataset, maxLength: 64, batchSize: 1, epochs: 1, logSteps: 1 });
    const { result, events } = await eventsOf(trainer);
    return { ...result, events };
  };

  it.each([
    ["mixed.jsonl", 1],
    ["all-long.jsonl", 4],
  ])("%s: the question is shortened, the answer stays, and it is said", async (file, cut) => {
    const { history, events, report } = await train(file);
    for (const { loss } of history) {
      expect(Number.isFinite(loss)).toBe(true);
      expect(loss).toBeGreaterThan(0);
    }
    // Each cut row is as long as it may be; what it lost is what it had more.
    const rows = readJsonl<{ messages: Message[] }>(folder, file).map(({ messages }) => whole(messages));
    const lost = rows.reduce((sum, { ids }) => sum + Math.max(0, ids.length - 64), 0);
    // A row a step: the answers' bytes and the end token, whole, in the order of the shuffle.
    const answers = rows.map(({ supervised }) => supervised.reduce((sum, one) => sum + one, 0));
    expect(Math.max(...answers)).toBe(14);
    expect(history.map((line) => line.supervised_tokens).sort()).toEqual(answers.sort());
    const supervisedTokens = answers.reduce((sum, one) => sum + one, 0);
    expect(report).toMatchObject({ rows: 4, kept: 4, cutRows: cut, cutTokens: lost, supervisedTokens });
    const said = `${cut} row${cut > 1 ? "s" : ""} cut to maxLength 64: ${lost} tokens`;
    expect(warningsOf(events)).toContain(said);
  });

  it("an empty answer is a typed error with file, line and field", async () => {
    await expect(train("empty-answer.jsonl")).rejects.toMatchObject({
      code: "ZA_EMPTY_ANSWER",
      place: { row: 2, field: "messages[1].content" },
    });
  });
});

describe.runIf(present(at("16-packing-at-odd-lengths")))("case 16: packing at any maximal length", () => {
  const folder = at("16-packing-at-odd-lengths");
  const start = async (file: string, maxLength: number) => {
    const model = await Mistral.fromPretrained(join(folder, "model"));
    const trainer = new SftTrainer({ model, dataset: join(folder, file), packing: true, maxLength, maxSteps: 1 });
    const events = trainer[Symbol.asyncIterator]();
    const fitted = trainer.fit();
    const first = await events.next();
    const { report } = await fitted;
    const tokens = readJsonl<{ text: string }>(folder, file).map(
      ({ text }) => model.tokenizer.encodeText(text).ids.length,
    );
    return { ...(first.value as StartEvent), report, documents: tokens };
  };

  it.each([
    [64, 8],
    [65, 8],
    [127, 4],
    [128, 4],
    [129, 4],
    [257, 2],
  ])("eight texts at length %i make %i packs", async (maxLength, packs) => {
    const { packing, report, supervisedTokens, documents } = await start("eight.jsonl", maxLength);
    expect(packing?.packs).toBe(packs);
    // All tokens of a text but its first, over all documents: no document is predicted from the one before it.
    expect(supervisedTokens).toBe(documents.reduce((sum, tokens) => sum + tokens - 1, 0));
    expect(report).toMatchObject({ supervisedTokens, cutRows: 0, cutTokens: 0 });
  });

  it("the tail of a cut text is counted, not packed as a document of its own", async () => {
    const { packing, rows, report, documents } = await start("one-long.jsonl", 64);
    expect(packing?.packs).toBe(2);
    expect(rows).toBe(3);
    const [long = 0, ...short] = documents;
    expect(report).toMatchObject({ cutRows: 1, cutTokens: long - 64 });
    expect(report.cutTokens).toBeGreaterThanOrEqual(136);
    expect(report.cutTokens).toBeLessThanOrEqual(138);
    expect(report.supervisedTokens).toBe([64, ...short].reduce((sum, tokens) => sum + tokens - 1, 0));
  });
});
