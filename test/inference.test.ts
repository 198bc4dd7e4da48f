/** Generating and scoring as users do it, on the real model as its GGUF file has it, beside the same model in float32. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { shapes, writeRandomGguf } from "../bench/random-gguf.mjs";
import { evaluateConversations, type Message, Mistral, SftTrainer } from "../ts/index";
import { narrowed } from "./sampling";
import { golden, present, readJson, smallRows, smollm2 } from "./shared";

const base = join(import.meta.dirname, "../recipes/demo/base");

interface GoldenCase {
  messages: Message[];
  input_ids: number[];
  greedy: number[];
  continuation_ids: number[];
  continuation_logps: number[];
}

/** What the f32 path itself can hardly decide, and what a text's rounding may move. */
const MARGIN = 0.05;

const question: Message[] = [{ role: "user", content: "Name the days of the week." }];
const greedy = { maxTokens: 24, temperature: 0 } as const;

describe.runIf(present(smollm2))("a quantised GGUF file", () => {
  let model: Mistral;
  let whole: Mistral;
  beforeAll(async () => {
    model = await Mistral.fromPretrained(smollm2, { quantization: "auto" });
    whole = await Mistral.fromPretrained(smollm2);
  });
  afterAll(() => {
    model?.dispose();
    whole?.dispose();
  });

  it("is kept as it is by auto, dequantised by default", () => {
    expect([model.storage, whole.storage]).toEqual(["gguf", "float32"]);
    expect(whole.weightBytes).toBe(4 * whole.parameters);
    expect(model.weightBytes).toBeLessThan(whole.weightBytes / 5);
  });

  const goldenCases = join(golden, "smollm2", "smollm2.json");
  it.runIf(present(goldenCases))("says what transformers says of the dequantised model", async () => {
    const { cases } = readJson<{ cases: GoldenCase[] }>(goldenCases);
    const batch = await model.generateBatch(
      cases.map(({ messages }) => messages),
      { ...greedy, specialsInContent: "parse" },
    );
    for (const [index, { messages, greedy: expected, ...rest }] of cases.entries()) {
      const { ids, finishReason } = await model.generate(messages, { ...greedy, specialsInContent: "parse" });
      // The golden ids hold the end token.
      const found = finishReason === "stop" ? [...ids, expected.at(-1)] : [...ids];
      const place = expected.findIndex((id, at) => found[at] !== id);
      if (place >= 0) {
        const logits = await whole.logits([...rest.input_ids, ...expected.slice(0, place)]);
        const [best = 0, second = 0] = logits.subarray(-whole.config.vocab_size).toSorted().toReversed();
        expect(best - second, `case ${index}, token ${place}`).toBeLessThan(MARGIN);
      }
      expect([...batch[index]!.ids]).toEqual([...ids]);

      const logprobs = await model.score([...rest.input_ids, ...rest.continuation_ids]);
      for (const [at, logprob] of rest.continuation_logps.entries()) {
        expect(Math.abs(logprobs[rest.input_ids.length - 1 + at]! - logprob)).toBeLessThan(0.03);
      }
    }
  });

  it("gives log-probabilities with an answer: those of score, and the likeliest beside them", async () => {
    const { ids, text, logprobs, finishReason, timing } = await model.generate(question, { ...greedy, logprobs: 5 });
    expect(logprobs).toHaveLength(ids.length);
    expect(logprobs!.map(({ token }) => token).join("")).toBe(text);
    const prompt = model.tokenizer.encodePrompt(question);
    expect(timing).toMatchObject({ promptTokens: prompt.length });
    const scored = await model.score([...prompt, ...ids]);
    for (const [at, { id, logprob, top }] of logprobs!.entries()) {
      expect(id).toBe(ids[at]);
      expect(Math.abs(logprob - scored[prompt.length - 1 + at]!)).toBeLessThan(0.02);
      expect(top.map((each) => each.logprob)).toEqual(top.map((each) => each.logprob).toSorted((a, b) => b - a));
      expect(top).toHaveLength(5);
      // Greedy: the chosen one is the likeliest.
      expect(top[0]).toEqual({ id, token: logprobs![at]!.token, logprob });
    }
    expect(finishReason).toBe("length");
    const plain = await model.generate(question, { ...greedy, logprobs: true });
    expect(plain.logprobs!.every(({ top }) => top.length === 0)).toBe(true);
    expect((await model.generate(question, greedy)).logprobs).toBeUndefined();
    for (const wrong of [-1, 1.5, 101, Number.NaN]) {
      await expect(model.generate(question, { logprobs: wrong })).rejects.toMatchObject({ code: "ZA_GENERATE_OPTION" });
    }
  });

  it("gives log-probabilities under sampling that are the model's own", async () => {
    const sampling = { maxTokens: 12, temperature: 1.3, topK: 40, topP: 0.95, minP: 0.02, repetitionPenalty: 1.1 };
    const first = await model.generate(question, { ...sampling, seed: 7, logprobs: true });
    const again = await model.generate(question, { ...sampling, seed: 7, logprobs: true });
    expect(again.ids).toEqual(first.ids);
    expect(again.logprobs).toEqual(first.logprobs);
    const other = await model.generate(question, { ...sampling, seed: 8 });
    expect(other.ids).not.toEqual(first.ids);
    const prompt = model.tokenizer.encodePrompt(question);
    const scored = await model.score([...prompt, ...first.ids]);
    for (const [at, { logprob }] of first.logprobs!.entries()) {
      expect(Math.abs(logprob - scored[prompt.length - 1 + at]!)).toBeLessThan(0.05);
    }
  });

  it("scores a conversation: every token, and which are the assistant's", async () => {
    const answer: Message = { role: "assistant", content: "Monday, Tuesday, Wednesday." };
    const { ids, logprobs, answers, answerLogprob, answerTokens } = await model.score([...question, answer]);
    const encoded = model.tokenizer.encodeChat([...question, answer]);
    expect(ids).toEqual(encoded.ids);
    expect([logprobs.length, answers.length]).toEqual([ids.length - 1, ids.length - 1]);
    expect(answers).toEqual(encoded.supervised.subarray(1));
    const text = model.tokenizer.decode(ids.filter((_, at) => encoded.supervised[at]));
    expect(text).toContain("Monday, Tuesday, Wednesday.");
    // From the logits of the float32 model, by hand.
    const rows = await whole.logits(ids);
    const width = whole.config.vocab_size;
    let sum = 0;
    for (let at = 0; at + 1 < ids.length; at++) {
      if (!answers[at]) continue;
      const row = rows.subarray(at * width, (at + 1) * width);
      const most = row.reduce((most, logit) => Math.max(most, logit), -Infinity);
      const mass = row.reduce((mass, logit) => mass + Math.exp(logit - most), 0);
      sum += row[ids[at + 1]!]! - most - Math.log(mass);
    }
    expect(answerTokens).toBe(answers.filter((each) => each === 1).length);
    expect(Math.abs(answerLogprob - sum)).toBeLessThan(0.01 * answerTokens);
    expect(await model.score(ids)).toEqual(logprobs);
  });

  it("scores as it reads prompts where exactness is not asked for", async () => {
    const ids = model.tokenizer.encodeChat([...question, { role: "assistant", content: "Monday, Tuesday." }]).ids;
    const [exact, rounded] = [await model.score(ids), await model.score(ids, { exact: false })];
    expect(await model.score(ids, { exact: true })).toEqual(exact);
    const off = exact.map((logprob, at) => Math.abs(logprob - rounded[at]!));
    expect(Math.max(...off)).toBeLessThan(0.03);
    expect(Math.max(...off)).toBeGreaterThan(0);
    const logits = await model.logits(ids, { exact: false });
    expect(logits.subarray(-5)).not.toEqual((await model.logits(ids)).subarray(-5));
    // Of float32 weights nothing is rounded.
    expect(await whole.score(ids, { exact: false })).toEqual(await whole.score(ids));
    for (const wrong of [{ exact: "no" as never }, { exactly: true }, { rounded: true }]) {
      await expect(model.score(ids, wrong)).rejects.toMatchObject({ code: "ZA_GENERATE_OPTION" });
      await expect(model.logits(ids, wrong)).rejects.toMatchObject({ code: "ZA_GENERATE_OPTION" });
    }
  });

  it("streams its pieces; leaving the loop stops the work", async () => {
    const pieces: string[] = [];
    for await (const piece of model.stream(question, greedy)) pieces.push(piece);
    expect(pieces.length).toBeGreaterThan(5);
    expect(pieces.join("")).toBe((await model.generate(question, greedy)).text);
    const started = performance.now();
    let first = "";
    for await (const piece of model.stream(question, { maxTokens: 1900, temperature: 1 })) {
      first += piece;
      break;
    }
    expect(first).not.toBe("");
    // 1900 tokens take many times that.
    expect(performance.now() - started).toBeLessThan(5000);
  });

  it("ends at a stop text, which is no part of the answer", async () => {
    const { text } = await model.generate(question, { ...greedy, maxTokens: 40 });
    const stop = text.slice(15, 20);
    const stopped = await model.generate(question, { ...greedy, maxTokens: 40, stop: [stop, "never said"] });
    expect(stopped).toMatchObject({ text: text.slice(0, text.indexOf(stop)), finishReason: "stop" });
  });

  it("is stopped by a signal, before the work and in it", async () => {
    await expect(model.generate(question, { signal: AbortSignal.abort() })).rejects.toMatchObject({
      name: "AbortedError",
    });
    const controller = new AbortController();
    let said = 0;
    const work = model.generate(question, {
      maxTokens: 1900,
      temperature: 1,
      signal: controller.signal,
      onToken: () => {
        if (++said === 3) controller.abort();
      },
    });
    await expect(work).rejects.toMatchObject({ name: "AbortedError", code: "ZA_ABORTED" });
    expect(said).toBeLessThan(500);
    const batch = model.generateBatch([question, question], { maxTokens: 1900, signal: AbortSignal.timeout(200) });
    await expect(batch).rejects.toMatchObject({ name: "AbortedError" });
  });

  it("goes on from the keys and values that it has", async () => {
    const next: Message[] = [
      ...question,
      { role: "assistant", content: "Monday." },
      { role: "user", content: "And the next one?" },
    ];
    for (const kvCache of ["float16", "float32", "q8"] as const) {
      const options = { ...greedy, kvCache, logprobs: true };
      const expected = await model.generate(next, options);
      await model.generate(question, { ...options, reuse: true });
      const found = await model.generate(next, { ...options, reuse: true });
      const bound = kvCache === "q8" ? 1 : 0.05;
      // As far as both say the same.
      for (const [at, { id, logprob }] of expected.logprobs!.entries()) {
        if (found.ids[at] !== id) break;
        expect(Math.abs(found.logprobs![at]!.logprob - logprob)).toBeLessThan(bound);
      }
      expect(found.ids[0]).toBe(expected.ids[0]);
    }
    await expect(model.generate(question, { kvCache: "q4" as never })).rejects.toMatchObject({
      code: "ZA_GENERATE_OPTION",
      message: expect.stringContaining("q4"),
    });
  });

  it("its caches of fewer bits move log-probabilities by what they round, and no more", async () => {
    // Given tokens, so that every cache is asked about the same places.
    const text = "The days of the week are Monday, Tuesday, Wednesday, Thursday, Friday, Saturday and Sunday. ".repeat(
      4,
    );
    const ids = model.tokenizer.encode(text, { addSpecialTokens: true });
    const at = [...Array(6).keys()].map((place) => ids.length - 3 * place);
    const found = async (kvCache: "float32" | "float16" | "q8") => {
      const all: Map<number, number>[] = [];
      for (const length of at) {
        const options = { maxTokens: 1, temperature: 0, kvCache, logprobs: 100 } as const;
        const { logprobs } = await whole.generate(ids.slice(0, length), options);
        all.push(new Map(logprobs![0]!.top.map(({ id, logprob }) => [id, logprob])));
      }
      return all;
    };
    const exact = await found("float32");
    /** The root of the mean square of what the likely tokens differ by, and the farthest. */
    const moved = async (kvCache: "float16" | "q8") => {
      const differences = (await found(kvCache)).flatMap((each, place) =>
        [...each].flatMap(([id, logprob]) => {
          const wanted = exact[place]!.get(id);
          return wanted === undefined || wanted < -8 ? [] : [Math.abs(logprob - wanted)];
        }),
      );
      expect(differences.length).toBeGreaterThan(25);
      const rms = Math.sqrt(differences.reduce((sum, each) => sum + each ** 2, 0) / differences.length);
      console.log(
        `${kvCache}: log-probabilities move by ${rms.toExponential(1)} rms, ${Math.max(...differences).toExponential(1)} at most`,
      );
      return { rms, most: Math.max(...differences) };
    };
    const [half, eighth] = [await moved("float16"), await moved("q8")];
    expect(half.most).toBeGreaterThan(0);
    expect(half.rms).toBeLessThan(0.003);
    expect(eighth.rms).toBeGreaterThan(half.rms);
    expect(eighth.rms).toBeLessThan(0.08);
    expect(eighth.most).toBeLessThan(0.3);
  });

  it("is given back by dispose; a running answer ends", async () => {
    const other = await Mistral.fromPretrained(smollm2);
    const view = other.withTemplate("zephyr");
    const running = other.generate(question, greedy);
    const before = process.memoryUsage().rss;
    other.dispose();
    other.dispose();
    expect((await running).ids).toHaveLength(greedy.maxTokens);
    await expect(other.generate(question)).rejects.toMatchObject({ code: "ZA_MODEL_DISPOSED" });
    await expect(other.score([1, 2])).rejects.toMatchObject({ code: "ZA_MODEL_DISPOSED" });
    expect(() => other.config).toThrow(/dispose/);
    await expect(view.generate(question)).rejects.toMatchObject({ code: "ZA_MODEL_DISPOSED" });
    const freed = before - process.memoryUsage().rss;
    expect(freed).toBeGreaterThan(0.8 * 4 * 134_515_008);
  });
});

describe("sampling", () => {
  it("under filters that leave one token is greedy; a large penalty repeats none", async () => {
    using model = await Mistral.fromPretrained(base);
    await narrowed(model);
  });

  it("is given back by dispose at once where it was evaluated or trained before", async () => {
    const chats = [{ messages: [...question, { role: "assistant" as const, content: "Blue." }] }];
    const model = await Mistral.fromPretrained(base);
    await evaluateConversations(model, chats);
    await new SftTrainer({ model, dataset: chats, maxSteps: 1, samples: 0, measurePeak: false }).fit();
    const { native } = model;
    expect(native.weightBytes).toBeGreaterThan(4e6);
    model.dispose();
    expect(native.weightBytes).toBe(0);
  });

  it("log-probabilities of a long text stop at their signal, between two pieces", async () => {
    using small = await Mistral.fromPretrained(base);
    const sizes = { hidden_size: 256, intermediate_size: 512, head_dim: 64, max_position_embeddings: 32_768 };
    using model = await Mistral.random({ ...small.config, ...sizes }, small.tokenizer, 1);
    const long = Uint32Array.from({ length: 32_768 }, (_, at) => 3 + (at % 200));
    for (const ask of ["score", "logits"] as const) {
      const started = performance.now();
      const work = model[ask](long, { signal: AbortSignal.timeout(100) });
      await expect(work).rejects.toMatchObject({ name: "AbortedError", code: "ZA_ABORTED" });
      expect(performance.now() - started).toBeLessThan(5000);
      const before = model[ask](long, { signal: AbortSignal.abort() });
      await expect(before).rejects.toMatchObject({ name: "AbortedError" });
    }
    // The engine is free again.
    expect(await model.score(long.subarray(0, 3))).toHaveLength(2);
  });
});

describe("a GGUF file of random weights", () => {
  const folder = mkdtempSync(join(tmpdir(), "zephyr-inference-"));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  const files = ["Q4_0", "Q8_0"].map((kind) => {
    const file = join(folder, `${kind}.gguf`);
    writeRandomGguf(file, kind, shapes.tiny);
    return file;
  });

  it("computes what its values do, kept or not", async () => {
    for (const file of files) {
      using whole = await Mistral.fromPretrained(file);
      using kept = await Mistral.fromPretrained(file, { quantization: "gguf" });
      const ids = Array.from({ length: 80 }, (_, index) => (index * 37 + 5) % 600);
      const [expected, found] = [await whole.logits(ids), await kept.logits(ids)];
      const most = expected.reduce((most, logit) => Math.max(most, Math.abs(logit)), 0);
      const off = expected.reduce((off, logit, at) => Math.max(off, Math.abs(logit - found[at]!)), 0);
      expect(most).toBeGreaterThan(0.01);
      expect(off).toBeLessThan(2e-3 * most);
    }
  });

  it("is not trained itself; an adapter over it is", async () => {
    const [file = ""] = files;
    const model = await Mistral.fromPretrained(file, { quantization: "gguf", template: "zephyr" });
    const training = { dataset: smallRows(8).chats, maxSteps: 3, batchSize: 4, learningRate: 1e-2, logSteps: 1 };
    await expect(new SftTrainer({ model, ...training }).fit()).rejects.toMatchObject({ code: "ZA_MODEL_FROZEN" });
    const { model: trained, history } = await new SftTrainer({ model, lora: { rank: 4 }, ...training }).fit();
    expect(trained.storage).toBe("gguf");
    expect(history.at(-1)!.loss).toBeLessThan(history[0]!.loss! - 1e-3);
  });
});
