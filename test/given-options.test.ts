/** What generating is given, as plain JavaScript may give it: taken, or refused by a typed error with field and remedy. */
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, it } from "vitest";
import {
  binarise,
  type ConfigError,
  CpoTrainer,
  DpoTrainer,
  dataset,
  fromArray,
  generateConversations,
  jsonArray,
  jsonl,
  KtoTrainer,
  Mistral,
  mistralChat,
  mix,
  OpenAiChat,
  OrpoTrainer,
  pairDataset,
  parquet,
  rateResponses,
  SftTrainer,
  SimpoTrainer,
  serve,
  setThreads,
  sftDataset,
  shuffle,
  unpairedDataset,
} from "../ts/index";

const base = fileURLToPath(new URL("../recipes/demo/base", import.meta.url));
const say = (content: string) => [{ role: "user" as const, content }];

const matching = (pattern: RegExp) => expect.stringMatching(pattern);

function thrownBy(work: () => unknown): ConfigError {
  try {
    work();
  } catch (error) {
    return error as ConfigError;
  }
  throw new Error("nothing was thrown");
}

let model: Mistral;
beforeAll(async () => {
  model = await Mistral.fromPretrained(base);
});

describe("texts", () => {
  const half = "a\ud83d b";
  it.each([
    ["a conversation", () => model.generate(say(half)), "messages[0].content"],
    ["a batch", () => model.generateBatch([say("a"), say(half)]), "messages[0].content"],
    ["a text to continue", () => model.generate(half), "prompt"],
    ["a score", () => model.score([...say("a"), { role: "assistant", content: half }]), "messages[1].content"],
    ["a pair", async () => model.tokenizer.encodePairText({ prompt: "a", chosen: half, rejected: "b" }), "chosen"],
  ])("with half a character are refused in %s", async (_, work, field) => {
    const remedy = expect.stringContaining("whole characters");
    await expect(work()).rejects.toMatchObject({ code: "ZA_MESSAGE_CONTENT", place: { field }, remedy });
  });
});

describe("options in plain JavaScript", () => {
  const one = (options: unknown) => model.generate(say("a"), options as never);
  const batch = (options: unknown) => model.generateBatch([say("a"), say("b")], options as never);
  const first = async (options: unknown) => (await model.stream(say("a"), options as never).next()).value;

  const wrong: [option: Record<string, unknown>, field: string, remedy?: RegExp][] = [
    [{ maxTokens: -1 }, "maxTokens", /whole number/],
    [{ maxTokens: Number.NaN }, "maxTokens"],
    [{ maxTokens: 1.5 }, "maxTokens"],
    [{ maxTokens: Number.POSITIVE_INFINITY }, "maxTokens"],
    [{ topK: -1 }, "topK"],
    [{ topK: 1.7 }, "topK"],
    [{ topP: 0 }, "topP"],
    [{ minP: 2 }, "minP"],
    [{ temperature: "1" }, "temperature", /a number/],
    [{ repetitionPenalty: 0 }, "repetitionPenalty"],
    [{ seed: 0.5 }, "seed"],
    [{ seed: 3n }, "seed"],
    [{ logprobs: 101 }, "logprobs", /0 to 100/],
    [{ kvCache: "q4" }, "kvCache", /"float16"/],
    [{ signal: true }, "signal"],
    [{ max_tokens: 5 }, "max_tokens", /maxTokens/],
    [{ max_new_tokens: 5 }, "max_new_tokens", /maxTokens/],
    [{ temprature: 5 }, "temprature", /temperature/],
    [{ best: 5 }, "best", /There are .*maxTokens/],
  ];

  it.each(wrong)("%o is refused with field and remedy everywhere", async (options, field, remedy = /\w/) => {
    for (const work of [one, batch, first]) {
      await expect(work(options)).rejects.toMatchObject({
        name: "ConfigError",
        code: "ZA_GENERATE_OPTION",
        place: { field },
        remedy: expect.stringMatching(remedy),
      });
    }
  });

  it.each([
    [() => one({ stop: ["a", ""] }), "stop"],
    [() => one({ stop: 5 }), "stop"],
    [() => one({ onToken: "print" }), "onToken"],
    [() => one({ seeds: [1] }), "seeds"],
    [() => one(null), "options"],
    [() => batch({ seeds: [1] }), "seeds"],
    [() => batch({ seeds: [1, 0.5] }), "seeds"],
    [() => batch({ batchSize: 0 }), "batchSize"],
    [() => batch({ stop: ["a"] }), "stop"],
    [() => batch({ onToken: () => {} }), "onToken"],
  ])("%s is refused", async (work, field) => {
    const shape = { name: "ConfigError", code: "ZA_GENERATE_OPTION", place: { field }, remedy: expect.any(String) };
    await expect(work()).rejects.toMatchObject(shape);
  });

  it.each([
    [() => model.generate(undefined as never), "ZA_ARGUMENT", "prompt"],
    [() => model.generate(5 as never), "ZA_ARGUMENT", "prompt"],
    [() => model.generateBatch(undefined as never), "ZA_ARGUMENT", "prompts"],
    [() => Mistral.fromPretrained(undefined as never), "ZA_ARGUMENT", "source"],
    [() => Mistral.fromPretrained(base, { quantisation: "auto" } as never), "ZA_CONFIG_INVALID", "quantisation"],
    [() => Mistral.fromPretrained(base, { template: 5 } as never), "ZA_CONFIG_INVALID", "template"],
    [async () => setThreads(1.5), "ZA_THREADS", "threads"],
    [async () => setThreads(-1), "ZA_THREADS", "threads"],
  ])("%s is refused", async (work, code, field) => {
    const shape = { name: "ConfigError", code, place: { field }, remedy: expect.any(String) };
    await expect(work()).rejects.toMatchObject(shape);
  });

  it("names the right spelling of an option of loading", async () => {
    const loading = Mistral.fromPretrained(base, { quantisation: "auto" } as never);
    await expect(loading).rejects.toMatchObject({ remedy: "Did you mean quantization?" });
  });

  it("takes one stop text as a text, seeds below zero, and more tokens than there is room for", async () => {
    const whole = await one({ maxTokens: 12 });
    const stop = whole.text.slice(2, 4);
    expect((await one({ maxTokens: 12, stop })).text).toBe(whole.text.slice(0, whole.text.indexOf(stop)));
    const sampled = { temperature: 1, maxTokens: 8 };
    const below = await one({ ...sampled, seed: -3 });
    expect(below.ids).toEqual((await one({ ...sampled, seed: 2 ** 47 - 3 })).ids);
    expect((await batch({ ...sampled, seeds: [-3, 1] }))[0]?.ids).toEqual(below.ids);
    expect((await one({ maxTokens: 2 ** 40, temperature: 0 })).ids.length).toBeGreaterThan(0);
  });
});

describe("trainers in plain JavaScript", () => {
  const rows = [{ prompt: "a", chosen: "b", rejected: "c" }];
  const making = (Trainer: unknown, options?: unknown) => () =>
    new (Trainer as new (options: unknown) => { fit(rows?: unknown): Promise<unknown> })(options);
  const refusedFields = (work: () => unknown) => {
    const error = thrownBy(work);
    expect(error).toMatchObject({ name: "ConfigError", code: "ZA_CONFIG_INVALID" });
    for (const { problem, remedy } of error.problems) expect([problem, remedy]).toEqual([/\w/, /^\w/].map(matching));
    return error.problems.map(({ field }) => field).sort();
  };

  it("are refused without options, model or rows, which are named", () => {
    for (const options of [undefined, null, "x", {}]) {
      expect(refusedFields(making(SftTrainer, options))).toEqual(["dataset", "model"]);
    }
    expect(refusedFields(making(SftTrainer, { model }))).toEqual(["dataset"]);
    expect(refusedFields(making(SftTrainer, { policy: model, dataset: rows }))).toEqual(["model", "policy"]);
  });

  it.each([DpoTrainer, KtoTrainer, OrpoTrainer, CpoTrainer, SimpoTrainer])("%o too", async (Trainer) => {
    for (const options of [undefined, null, {}]) expect(refusedFields(making(Trainer, options))).toEqual(["policy"]);
    const shape = { code: "ZA_CONFIG_INVALID", place: { field: "dataset" } };
    for (const given of [undefined, null, 5, Promise.resolve(rows)]) {
      await expect(making(Trainer, { policy: model })().fit(given)).rejects.toMatchObject(shape);
    }
  });

  it.each([SftTrainer, DpoTrainer])("%o refuses what is something else, all at once", (Trainer) => {
    const wrong = { dataset: 5, evalDataset: null, signal: 1, loggers: 2, samples: "x", watch: 4600, overwrite: "no" };
    const name = Trainer === SftTrainer ? "model" : "policy";
    const all = { ...wrong, [name]: Mistral.fromPretrained(base) };
    expect(refusedFields(making(Trainer, all))).toEqual([name, ...Object.keys(wrong)].sort());
    expect(refusedFields(making(Trainer, { [name]: base, dataset: rows }))).toEqual([name]);
  });

  it("says that a reference is a path or not awaited", () => {
    const problem = (ref: unknown) => thrownBy(making(DpoTrainer, { policy: model, ref })).problems[0]?.problem;
    expect([problem(base), problem(Mistral.fromPretrained(base))]).toEqual(["it is a string", "it is a promise"]);
  });
});

describe("rows in plain JavaScript", () => {
  const wrong = [undefined, null, 5, {}, Promise.resolve([])];
  const first = async (data: AsyncIterable<unknown>) => {
    for await (const row of data) return row;
    return undefined;
  };
  const readers = {
    dataset,
    fromArray,
    sftDataset,
    pairDataset,
    unpairedDataset,
    jsonl,
    jsonArray,
    parquet,
    mix,
    shuffle,
  };
  it.each(Object.entries(readers))("%s refuses what is none", async (_, read) => {
    for (const given of wrong) {
      const reading = (async () => first((read as (given: unknown) => AsyncIterable<unknown>)(given)))();
      const place = { field: expect.any(String) };
      await expect(reading).rejects.toMatchObject({ code: "ZA_ARGUMENT", place, remedy: expect.any(String) });
    }
  });

  it.each([
    ["generateConversations", () => generateConversations(undefined as never), ["teacher"]],
    ["rateResponses", () => rateResponses({} as never), ["prompts", "pool", "rater"]],
  ])("%s names what is missing", (_, make, fields) => {
    expect(thrownBy(make).problems.map(({ field }) => field)).toEqual(fields);
  });

  it.each([
    ["binarise", async () => binarise(undefined as never), "rows"],
    ["score", () => model.score(5 as never), "input"],
    ["save", () => model.save(undefined as never), "folder"],
    ["mistralChat", () => mistralChat(undefined as never), "model"],
    ["OpenAiChat", async () => new OpenAiChat(undefined as never), "model"],
  ])("%s refuses what is nothing of the kind", async (_, work, field) => {
    const shape = { name: "ConfigError", place: { field }, remedy: expect.any(String) };
    await expect(work()).rejects.toMatchObject(shape);
  });
});

describe("models to serve", () => {
  it.each([
    [{}, "models"],
    [undefined, "models"],
    [{ a: 1 }, "models.a"],
  ])("%o are refused", async (models, field) => {
    const shape = { name: "ConfigError", code: "ZA_ARGUMENT", place: { field }, remedy: expect.any(String) };
    await expect(serve(models as never, { port: 0 })).rejects.toMatchObject(shape);
    await expect(serve(model as never, { port: 0 })).rejects.toMatchObject({ place: { field: "models" } });
  });
});

describe("a function that throws", () => {
  it("ends the generation, which rejects with what was thrown; the next one works", async () => {
    const fault = new RangeError("mine");
    let calls = 0;
    const onToken = () => {
      calls++;
      throw fault;
    };
    await expect(model.generate(say("say nine."), { maxTokens: 2000, onToken })).rejects.toBe(fault);
    expect(calls).toBe(1);
    const streaming = async () => {
      for await (const _ of model.stream(say("say nine."), { onToken }));
    };
    await expect(streaming()).rejects.toBe(fault);
    const rejecting = async () => Promise.reject(fault);
    await expect(model.generate(say("say nine."), { maxTokens: 200, onToken: rejecting })).rejects.toBe(fault);
    const streamed = async () => {
      for await (const _ of model.stream(say("say nine."), { maxTokens: 200, onToken: rejecting }));
    };
    await expect(streamed()).rejects.toBe(fault);
    expect((await model.generate(say("say nine."), { maxTokens: 3 })).ids.length).toBeGreaterThan(0);
  });
});
