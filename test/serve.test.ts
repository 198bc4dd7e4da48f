/** The server as its clients see it: the built program in a process of its own, npm's and Python's `openai`. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { request as httpRequest } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { Mistral, OpenAiChat, SftTrainer } from "../ts/index";
import { folderTokenizer } from "../ts/model/tokenizer";
import { eventsIn, type Serving, startServing } from "./serving";
import { buildProgram, data, present, pythonWith, smallRows } from "./shared";

const base = fileURLToPath(new URL("../recipes/demo/base", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "zephyr-serve-"));
const at = (name: string) => join(folder, name);
const chat = "/v1/chat/completions";
const say = (content: string) => [{ role: "user" as const, content }];
/** A request that a slow model works on for many seconds. */
const long = { model: "slow", messages: say("say nine."), temperature: 0, max_tokens: 30_000 };

let server: Serving;
let slow: Serving;

beforeAll(async () => {
  buildProgram();
  const small = await Mistral.fromPretrained(base);
  const { chats } = smallRows(32);
  const { model } = await new SftTrainer({
    model: small,
    dataset: chats,
    lora: { rank: 8, alpha: 32 },
    ...{ outputDir: at("sft"), maxSteps: 12, batchSize: 8, learningRate: 1e-2, samples: 0 },
  } as never).fit();
  await model.saveAdapter(at("adapter"));
  // Large enough to be caught at work, and without an end: random weights rarely say the end token, greedily never.
  const config = {
    ...small.config,
    hidden_size: 512,
    intermediate_size: 1536,
    head_dim: 128,
    max_position_embeddings: 32_768,
  };
  await (await Mistral.random(config, small.tokenizer, 5)).save(at("slow"));
  server = await startServing(["--model", `demo=${base}`, "--adapter", at("adapter")]);
  slow = await startServing(["--model", at("slow"), "--queue", "3"]);
});

afterAll(async () => {
  await Promise.all([server?.stop(), slow?.stop()]);
  rmSync(folder, { recursive: true, force: true });
});

/** Waits until the figures are as they should be. */
async function settled(of: Serving, wanted: Record<string, number>) {
  await expect.poll(() => of.metrics(), { timeout: 20_000, interval: 50 }).toMatchObject(wanted);
}

/** The status of an answer, and its error object. */
async function refusal(response: Response) {
  const { error } = (await response.json()) as {
    error: { message: string; code: string | null; param: string | null; type: string };
  };
  return { status: response.status, ...error };
}

describe("npm's openai client", () => {
  it("gets completions whole and in pieces, the same text for the same seed", async () => {
    const { openai } = server;
    const request = { model: "demo", messages: say("say nine."), max_tokens: 24, temperature: 1, seed: 7 };
    const whole = await openai.chat.completions.create(request);
    expect(whole).toMatchObject({
      id: expect.stringMatching(/^chatcmpl-\w+$/),
      object: "chat.completion",
      model: "demo",
      choices: [{ index: 0, message: { role: "assistant", refusal: null }, logprobs: null }],
    });
    const { usage, choices } = whole;
    expect(usage!.total_tokens).toBe(usage!.prompt_tokens + usage!.completion_tokens);
    const stream = openai.chat.completions.stream({ ...request, stream_options: { include_usage: true } });
    const pieces: string[] = [];
    stream.on("content", (piece) => pieces.push(piece));
    const streamed = await stream.finalChatCompletion();
    expect(pieces.join("")).toBe(choices[0]!.message.content);
    expect(streamed.choices[0]).toMatchObject({
      message: { content: choices[0]!.message.content },
      finish_reason: choices[0]!.finish_reason,
    });
    expect(streamed.usage).toEqual(usage);
    const other = await openai.chat.completions.create({ ...request, seed: 8 });
    expect(other.choices[0]!.message.content).not.toBe(choices[0]!.message.content);
  });

  it("gets several choices, each with its own seed", async () => {
    const { openai } = server;
    const request = { model: "demo", messages: say("say nine."), max_tokens: 12, temperature: 1.5, seed: 3, n: 4 };
    const texts = async (more: object) =>
      (await openai.chat.completions.create({ ...request, ...more, stream: false })).choices.map(
        ({ message }) => message.content,
      );
    const four = await texts({});
    expect(new Set(four).size).toBeGreaterThan(1);
    // A batch of four, and one by one because of a stop text that never comes: the same answers.
    expect(await texts({ stop: ["\u0007"] })).toEqual(four);
    expect(await texts({ seed: 5, n: 1 })).toEqual([four[2]]);
    const stream = await openai.chat.completions.create({ ...request, stream: true });
    const streamed = ["", "", "", ""];
    for await (const { choices } of stream)
      for (const { index, delta } of choices) streamed[index] += delta.content ?? "";
    expect(streamed).toEqual(four);
  });

  it("gets log-probabilities that are the model's own", async () => {
    const request = {
      model: "demo:base",
      messages: say("say nine."),
      max_tokens: 6,
      temperature: 0,
      logprobs: true,
      top_logprobs: 3,
    };
    const { choices } = await server.openai.chat.completions.create(request);
    const { content } = choices[0]!.logprobs!;
    expect(content!.map(({ token }) => token).join("")).toBe(choices[0]!.message.content);
    for (const { token, logprob, bytes, top_logprobs } of content!) {
      expect(Buffer.from(bytes!).toString()).toBe(token);
      expect(top_logprobs).toHaveLength(3);
      expect(top_logprobs[0]).toMatchObject({ token, logprob });
    }
    const model = await Mistral.fromPretrained(base);
    const prompt = model.tokenizer.encodePrompt(request.messages);
    const answer = model.tokenizer.encode(choices[0]!.message.content!);
    const scored = await model.score([...prompt, ...answer]);
    const own = scored.subarray(prompt.length - 1);
    expect(own.length).toBe(content!.length);
    for (const [place, { logprob }] of content!.entries()) expect(logprob).toBeCloseTo(own[place]!, 3);
    const stream = server.openai.chat.completions.stream(request);
    expect((await stream.finalChatCompletion()).choices[0]!.logprobs!.content).toEqual(content);
  });

  it("chooses the adapter, or the model without it, by name", async () => {
    const { openai } = server;
    expect((await openai.models.list()).data.map(({ id }) => id)).toEqual(["demo", "demo:base"]);
    expect(await openai.models.retrieve("demo:base")).toMatchObject({ id: "demo:base", object: "model" });
    const ask = async (model: string) =>
      (await openai.chat.completions.create({ model, messages: say("say nine."), temperature: 0, max_tokens: 16 }))
        .choices[0]!.message.content;
    const bare = await (await Mistral.fromPretrained(base)).generate(say("say nine."), { maxTokens: 16 });
    expect(await ask("demo:base")).toBe(bare.text);
    expect(await ask("demo")).not.toBe(bare.text);
    await expect(ask("other")).rejects.toMatchObject({
      status: 404,
      code: "model_not_found",
      message: expect.stringContaining("demo:base"),
    });
  });

  it("gets answers that fit a schema, whatever the model would say", async () => {
    const shape = z.strictObject({
      rating: z.enum(["1", "2", "3"]),
      good: z.boolean(),
      words: z.array(z.string().max(8)).min(1).max(2),
      note: z.union([z.null(), z.strictObject({ page: z.literal(4) })]),
    });
    for (const temperature of [0, 1]) {
      const parsed = await server.openai.chat.completions.parse({
        ...{ model: "demo", messages: say("say nine."), temperature, seed: 1, max_tokens: 200 },
        response_format: zodResponseFormat(shape, "answer"),
      });
      expect(parsed.choices[0]!.finish_reason).toBe("stop");
      expect(shape.parse(parsed.choices[0]!.message.parsed)).toEqual(JSON.parse(parsed.choices[0]!.message.content!));
    }
    const free = {
      model: "demo",
      messages: say("say nine."),
      temperature: 1,
      seed: 2,
      max_tokens: 300,
      response_format: { type: "json_object" as const },
    };
    const { choices } = await server.openai.chat.completions.create(free);
    if (choices[0]!.finish_reason === "stop") expect(typeof JSON.parse(choices[0]!.message.content!)).toBe("object");
    const stream = server.openai.chat.completions.stream(free);
    expect((await stream.finalChatCompletion()).choices[0]!.message.content).toBe(choices[0]!.message.content);
    const refused = server.openai.chat.completions.create({
      ...free,
      response_format: { type: "json_schema", json_schema: { name: "x", schema: { type: "string", pattern: "a" } } },
    });
    await expect(refused).rejects.toMatchObject({
      status: 400,
      code: "unsupported_schema",
      param: "response_format.json_schema.schema.pattern",
    });
  });

  it("continues texts and tokens, and scores given ones as lm-eval asks for it", async () => {
    const { openai } = server;
    const model = await Mistral.fromPretrained(base);
    const text = "say nine and ten.";
    const ids = [...model.tokenizer.encode(text)];
    const ask = { model: "demo:base", temperature: 0, max_tokens: 4 };
    const plain = await openai.completions.create({ ...ask, prompt: [text, "say two."] });
    expect(plain.choices.map(({ index }) => index)).toEqual([0, 1]);
    const own = await model.generate(text, { maxTokens: 4 });
    expect(plain.choices[0]!.text).toBe(own.text);
    const asTokens = await openai.completions.create({ ...ask, prompt: ids });
    expect(asTokens.choices[0]!.text).toBe(own.text);

    const scored = await openai.completions.create({
      ...ask,
      max_tokens: 1,
      prompt: [ids, [5, 9]],
      logprobs: 1,
      echo: true,
      seed: 1234,
    });
    const { tokens, token_logprobs, top_logprobs, text_offset } = scored.choices[0]!.logprobs!;
    expect(tokens!.length).toBe(ids.length + 1);
    expect(tokens!.join("")).toBe(scored.choices[0]!.text);
    expect(text_offset!.map((offset) => offset)).toEqual(tokens!.map((_, i) => tokens!.slice(0, i).join("").length));
    expect([token_logprobs![0], top_logprobs![0]]).toEqual([null, null]);
    const expected = await model.score(ids);
    for (const [i, logprob] of expected.entries()) {
      expect(token_logprobs![i + 1]).toBeCloseTo(logprob, 4);
      const best = Math.max(...Object.values(top_logprobs![i + 1]!));
      expect(best).toBeGreaterThanOrEqual(token_logprobs![i + 1]!);
      expect(top_logprobs![i + 1]![tokens![i + 1]!]).toBeCloseTo(logprob, 4);
    }
    const only = await openai.completions.create({ ...ask, max_tokens: 0, prompt: text, logprobs: 0, echo: true });
    expect(only.choices[0]).toMatchObject({ text, finish_reason: "length" });
    expect(only.choices[0]!.logprobs!.token_logprobs!.slice(1)).toHaveLength(ids.length - 1);
    const pieces: string[] = [];
    for await (const chunk of await openai.completions.create({ ...ask, prompt: text, echo: true, stream: true })) {
      pieces.push(chunk.choices[0]!.text);
    }
    expect(pieces.join("")).toBe(text + own.text);
  });
});

describe.runIf(present(join(data, "tokenizer")))("a tokenizer that takes the space off a text's beginning", () => {
  it("keeps it where a text goes on, whole and in pieces", async () => {
    const tokenizer = await folderTokenizer(join(data, "tokenizer"));
    const { config } = await Mistral.fromPretrained(base);
    const sizes = { vocab_size: tokenizer.vocabularySize, hidden_size: 32, intermediate_size: 32, head_dim: 8 };
    await (await Mistral.random({ ...config, ...sizes }, tokenizer, 3)).save(at("spaces"));
    const spaces = await startServing(["--model", at("spaces")]);
    const found: string[] = [];
    for (const [seed, prompt] of ["Say nine", "One and", "The hat is", "Two", "Then we"].entries()) {
      const ask = { model: "spaces", prompt, max_tokens: 6, temperature: 2, seed };
      const { choices } = await spaces.openai.completions.create({ ...ask, logprobs: 0 });
      const { text, logprobs } = choices[0]!;
      if (!text.includes("\ufffd")) expect(logprobs!.tokens!.join("")).toBe(text);
      let streamed = "";
      for await (const { choices } of await spaces.openai.completions.create({ ...ask, stream: true })) {
        streamed += choices[0]!.text;
      }
      expect(streamed).toBe(text);
      found.push(text);
    }
    expect(found.some((text) => text.startsWith(" "))).toBe(true);
    expect(await spaces.stop()).toBe(0);
  });
});

describe.each(["openai"])("Python's %s client", (name) => {
  const python = pythonWith(name);
  it.runIf(python)("gets the same answers", async () => {
    const script = `
import json, sys
from openai import OpenAI, BadRequestError
client = OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)
ask = dict(model="demo", messages=[{"role": "user", "content": "say nine."}], temperature=0, max_tokens=12)
whole = client.chat.completions.create(**ask, logprobs=True, top_logprobs=2)
pieces = [c for c in client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True})]
scored = client.completions.create(model="demo", prompt="say nine.", max_tokens=1, echo=True, logprobs=1)
try:
    client.chat.completions.create(**ask, tools=[{"type": "function", "function": {"name": "f"}}])
    refused = None
except BadRequestError as error:
    refused = error.param
print(json.dumps({
    "whole": whole.choices[0].message.content, "tokens": "".join(t.token for t in whole.choices[0].logprobs.content),
    "streamed": "".join(c.choices[0].delta.content or "" for c in pieces if c.choices), "usage": pieces[-1].usage.completion_tokens,
    "scored": scored.choices[0].logprobs.token_logprobs, "models": [m.id for m in client.models.list()], "refused": refused,
}))`;
    const { status, stdout, stderr } = spawnSync(python!, ["-c", script, `${server.url}/v1`], { encoding: "utf8" });
    expect(status, stderr).toBe(0);
    const found = JSON.parse(stdout);
    const own = await server.openai.chat.completions.create({
      model: "demo",
      messages: say("say nine."),
      temperature: 0,
      max_tokens: 12,
    });
    expect(found).toMatchObject({
      ...{ whole: own.choices[0]!.message.content, streamed: found.whole, tokens: found.whole, refused: "tools" },
      ...{ usage: own.usage!.completion_tokens, models: ["demo", "demo:base"] },
    });
    expect(found.scored[0]).toBeNull();
    expect(found.scored.slice(1).every((logprob: number) => logprob < 0)).toBe(true);
  });
});

describe("our own client", () => {
  it("asks for text, pieces, log-probabilities and JSON", async () => {
    const model = new OpenAiChat({ model: "demo", baseUrl: `${server.url}/v1` });
    const pieces: string[] = [];
    const request = { messages: say("say nine."), sampling: { maxTokens: 16, temperature: 0, topLogprobs: 2 } };
    const answer = await model.complete({ ...request, onToken: (piece) => pieces.push(piece) });
    expect(pieces.join("")).toBe(answer.text);
    expect(answer).toMatchObject({ model: "demo", usage: { completionTokens: expect.any(Number) } });
    expect(answer.logprobs!.map(({ token }) => token).join("")).toBe(answer.text);
    const schema = {
      name: "grade",
      schema: { type: "object", properties: { grade: { enum: [1, 2, 3] } }, required: ["grade"] },
    };
    const graded = await model.complete({ ...request, sampling: { maxTokens: 20, schema } });
    expect([1, 2, 3]).toContain(JSON.parse(graded.text).grade);
    const tooLong = model.complete({ ...request, messages: say("say nine. ".repeat(600)) });
    await expect(tooLong).rejects.toMatchObject({ code: "ZA_CLIENT_CONTEXT" });
  });
});

describe("what goes over the wire", () => {
  it("is framed as OpenAI frames it, to the byte", async () => {
    const response = await server.post(chat, {
      model: "demo",
      messages: say("say nine."),
      temperature: 0,
      max_tokens: 5,
      stream: true,
    });
    expect(response.headers.get("content-type")).toBe("text/event-stream; charset=utf-8");
    expect(response.headers.get("cache-control")).toBe("no-cache");
    const body = await response.text();
    const events = eventsIn(body);
    expect(events.at(-1)).toBe("[DONE]");
    const chunks = events.slice(0, -1).map((event) => JSON.parse(event));
    expect(body).toBe(
      `${[...chunks.map((chunk) => JSON.stringify(chunk)), "[DONE]"].map((data) => `data: ${data}\n\n`).join("")}`,
    );
    const [first, ...rest] = chunks;
    expect(first).toEqual({
      ...{
        id: expect.stringMatching(/^chatcmpl-/),
        object: "chat.completion.chunk",
        created: expect.any(Number),
        model: "demo",
      },
      choices: [
        { index: 0, delta: { role: "assistant", content: "", refusal: null }, logprobs: null, finish_reason: null },
      ],
    });
    for (const chunk of rest) expect(chunk).toMatchObject({ id: first.id, created: first.created });
    expect(rest.at(-1).choices).toEqual([
      { index: 0, delta: {}, logprobs: null, finish_reason: expect.stringMatching(/^(stop|length)$/) },
    ]);
  });

  it.each([
    ["tools", { tools: [{ type: "function", function: { name: "f" } }] }, "tools"],
    ["logit_bias", { logit_bias: { 5: 100 } }, "logit_bias"],
    ["frequency_penalty", { frequency_penalty: 0.5 }, "frequency_penalty"],
    ["presence_penalty", { presence_penalty: 1 }, "presence_penalty"],
    ["reasoning_effort", { reasoning_effort: "high" }, "reasoning_effort"],
    ["an unknown field", { temprature: 0 }, "temprature"],
    ["a name in a message", { messages: [{ role: "user", content: "a", name: "b" }] }, "messages[0].name"],
    ["an unknown role", { messages: [{ role: "robot", content: "a" }] }, "messages[0].role"],
    ["no messages", { messages: [] }, "messages"],
    ["temperature", { temperature: 3 }, "temperature"],
    ["top_p", { top_p: "1" }, "top_p"],
    ["n", { n: 0 }, "n"],
    ["n of halves", { n: 1.5 }, "n"],
    ["max_tokens", { max_tokens: 0 }, "max_tokens"],
    ["two limits", { max_tokens: 5, max_completion_tokens: 6 }, "max_tokens"],
    ["stop", { stop: [""] }, "stop"],
    ["seed", { seed: 0.5 }, "seed"],
    ["top_logprobs alone", { top_logprobs: 2 }, "top_logprobs"],
    ["too many top_logprobs", { logprobs: true, top_logprobs: 21 }, "top_logprobs"],
    ["stream_options alone", { stream_options: { include_usage: true } }, "stream_options"],
    ["an unknown stream option", { stream: true, stream_options: { x: 1 } }, "stream_options.x"],
    ["response_format", { response_format: { type: "xml" } }, "response_format.type"],
    ["no model", { model: null }, "model"],
  ])("refuses %s by name", async (_, change, param) => {
    const found = await refusal(await server.post(chat, { model: "demo", messages: say("a"), ...change }));
    expect(found).toMatchObject({ status: 400, type: "invalid_request_error", param });
    expect(found.message).toContain(param);
  });

  it("takes what asks for nothing", async () => {
    const neutral = {
      ...{
        tools: [],
        tool_choice: "none",
        logit_bias: {},
        frequency_penalty: 0,
        presence_penalty: 0,
        user: "me",
        metadata: { a: "b" },
      },
      ...{
        response_format: { type: "text" },
        logprobs: false,
        stop: null,
        seed: null,
        n: null,
        parallel_tool_calls: true,
        store: false,
      },
    };
    const response = await server.post(chat, { model: "demo", messages: say("a"), max_tokens: 2, ...neutral });
    expect(response.status).toBe(200);
  });

  it("refuses bodies and texts that are too long, with the numbers, and what is no JSON", async () => {
    const messages = say("say nine. ".repeat(400));
    const found = await refusal(await server.post(chat, { model: "demo", messages }));
    expect(found).toMatchObject({ status: 400, code: "context_length_exceeded", param: "messages" });
    const [, limit, length] = /length is (\d+) tokens.* resulted in (\d+) tokens/.exec(found.message)!;
    const model = await Mistral.fromPretrained(base);
    expect([Number(limit), Number(length)]).toEqual([512, model.tokenizer.encodePrompt(messages).length]);
    expect(await refusal(await server.post("/v1/completions", { model: "demo", prompt: [1, 99_999] }))).toMatchObject({
      status: 400,
      param: "prompt",
    });
    expect(await refusal(await server.post("/v1/completions", { model: "demo", prompt: "" }))).toMatchObject({
      status: 400,
      param: "prompt",
    });
    expect(await refusal(await server.post(chat, "{"))).toMatchObject({ status: 400, code: "invalid_json" });
    expect(await refusal(await server.post(chat, "[]"))).toMatchObject({ status: 400 });
    expect(await refusal(await server.post(chat, "{}", { headers: { "content-type": "text/plain" } }))).toMatchObject({
      status: 415,
    });
    const large = "x".repeat(9 * 2 ** 20);
    expect(await refusal(await server.post(chat, { model: "demo", messages: say(large) }))).toMatchObject({
      status: 413,
      code: "request_too_large",
    });
    expect(await refusal(await fetch(`${server.url}/v1/nothing`))).toMatchObject({ status: 404 });
    expect(await refusal(await fetch(`${server.url}${chat}`))).toMatchObject({ status: 405 });
    // What went wrong has left nothing behind.
    expect((await server.post(chat, { model: "demo", messages: say("a"), max_tokens: 2 })).status).toBe(200);
    expect((await server.metrics()).zephyr_requests_underway).toBe(0);
  });

  it("answers whatever bytes come with a refusal, never with a 500", async () => {
    const { default: fc } = await import("fast-check");
    const keys = [
      "model",
      "messages",
      "prompt",
      "n",
      "stop",
      "stream",
      "response_format",
      "max_tokens",
      "logprobs",
      "seed",
      "x",
    ];
    const body = fc.oneof(fc.jsonValue(), fc.dictionary(fc.constantFrom(...keys), fc.jsonValue()));
    await fc.assert(
      fc.asyncProperty(body, fc.constantFrom(chat, "/v1/completions"), async (value, path) => {
        const response = await server.post(path, value);
        await response.text();
        expect([200, 400, 404]).toContain(response.status);
      }),
      { numRuns: 150 },
    );
  });
});

describe("a server with much to do", () => {
  it("stops when the client leaves, and goes on with the next", async () => {
    const before = await slow.metrics();
    for (const stream of [true, false]) {
      const leave = new AbortController();
      const asked = slow.post(chat, { ...long, stream }, { signal: leave.signal }).then(async (response) => {
        for await (const _ of response.body!) leave.abort();
      });
      asked.catch(() => {});
      await settled(slow, { zephyr_answers_running: 1 });
      leave.abort();
      await expect(asked).rejects.toThrow();
      await settled(slow, { zephyr_answers_running: 0, zephyr_requests_underway: 0 });
    }
    const after = await slow.metrics();
    const aborted = 'zephyr_answers_total{model="slow",end="aborted"}';
    expect(after[aborted]! - (before[aborted] ?? 0)).toBe(2);
    expect(after[`zephyr_requests_total{path="${chat}",status="499"}`]).toBe(2);
    const next = await slow.post(chat, { ...long, max_tokens: 3 });
    expect(((await next.json()) as { usage: object }).usage).toMatchObject({ completion_tokens: 3 });
  });

  it("takes in so many, refuses more with a time to wait, and forgets who leaves the queue", async () => {
    const leave = new AbortController();
    const asked = [1, 2, 3, 4].map((seed) =>
      slow.post(chat, { ...long, seed, temperature: 0.01 * seed }, { signal: leave.signal }),
    );
    for (const each of asked) each.catch(() => {});
    await settled(slow, { zephyr_requests_underway: 4, zephyr_answers_running: 1, zephyr_answers_waiting: 3 });
    const refused = await slow.post(chat, { ...long, max_tokens: 1 });
    expect(Number(refused.headers.get("retry-after"))).toBeGreaterThanOrEqual(1);
    expect(await refusal(refused)).toMatchObject({ status: 429, code: "queue_full", type: "rate_limit_error" });
    leave.abort();
    await settled(slow, { zephyr_requests_underway: 0, zephyr_answers_running: 0, zephyr_answers_waiting: 0 });
  });

  it("lets a small request in between the answers of a large one, and answers like ones together", async () => {
    const done: string[] = [];
    const large = slow.post(chat, { ...long, n: 6, max_tokens: 100, stop: "\u0007" }).then(async (response) => {
      await response.text();
      done.push("large");
    });
    await settled(slow, { zephyr_answers_running: 1 });
    await (await slow.post(chat, { ...long, max_tokens: 4 })).text();
    done.push("small");
    await large;
    expect(done).toEqual(["small", "large"]);

    const leave = new AbortController();
    const together = [1, 2, 3].map(() => slow.post(chat, { ...long, temperature: 1 }, { signal: leave.signal }));
    for (const each of together) each.catch(() => {});
    // The first may begin alone; the others are one batch, or all three are.
    await expect.poll(async () => (await slow.metrics()).zephyr_requests_underway).toBe(3);
    leave.abort();
    await settled(slow, { zephyr_requests_underway: 0, zephyr_answers_running: 0 });
    const batch = slow.post(chat, { ...long, n: 8, max_tokens: 200 });
    await settled(slow, { zephyr_answers_running: 8 });
    expect((await batch).status).toBe(200);
  });

  it("gives up when the time is over, says so, and not to try again", async () => {
    const hasty = await startServing(["--model", at("slow"), "--timeout", "1"]);
    const whole = await hasty.post(chat, long);
    expect(whole.headers.get("x-should-retry")).toBe("false");
    expect(await refusal(whole)).toMatchObject({ status: 504, code: "timeout" });
    const events = eventsIn(await (await hasty.post(chat, { ...long, stream: true })).text());
    expect(JSON.parse(events.at(-1)!)).toMatchObject({ error: { code: "timeout" } });
    expect((await hasty.metrics()).zephyr_answers_running).toBe(0);
    expect(await hasty.stop()).toBe(0);
  });

  it("answers those inside first when it is stopped, and nobody else", async () => {
    const patient = await startServing(["--model", at("slow"), "--grace", "60"]);
    const last = patient.post(chat, { ...long, max_tokens: 200 });
    await settled(patient, { zephyr_requests_underway: 1 });
    const code = patient.stop("SIGINT");
    await expect
      .poll(() =>
        fetch(`${patient.url}/health`).then(
          ({ status }) => status,
          () => 503,
        ),
      )
      .toBe(503);
    expect((await last).status).toBe(200);
    expect(await code).toBe(0);
  });

  it("ends at SIGTERM even when an answer has no end", async () => {
    const stubborn = await startServing(["--model", at("slow"), "--grace", "1"]);
    const stream = await stubborn.post(chat, { ...long, stream: true });
    const body = stream.text();
    await settled(stubborn, { zephyr_answers_running: 1 });
    expect(await stubborn.stop()).toBe(0);
    expect(JSON.parse(eventsIn(await body).at(-1)!)).toMatchObject({ error: { code: "stopping" } });
    expect(stubborn.said()).toContain("/v1/chat/completions 503");
    expect(stubborn.said()).not.toContain("say nine");
  });

  it("writes its figures as Prometheus reads them", async () => {
    const text = await (await fetch(`${server.url}/metrics`)).text();
    for (const line of text.trim().split("\n")) {
      expect(line).toMatch(/^(# (HELP|TYPE) \w+ .+|\w+(\{(\w+="[^"]*",?)+\})? -?[\d.e+-]+)$/);
    }
    const found = await server.metrics();
    expect(found[`zephyr_requests_total{path="${chat}",status="200"}`]).toBeGreaterThan(5);
    const count = found[`zephyr_request_seconds_count{path="${chat}"}`];
    expect(found[`zephyr_request_seconds_bucket{path="${chat}",le="+Inf"}`]).toBe(count);
    expect(found['zephyr_completion_tokens_total{model="demo"}']).toBeGreaterThan(50);
  });
});

describe("who may ask", () => {
  /** The status of a request with any headers, which fetch would not send. */
  const status = (of: Serving, headers: Record<string, string>, path = "/v1/models") =>
    new Promise<number | undefined>((resolve, reject) => {
      const request = httpRequest(`${of.url}${path}`, { headers }, (response) => {
        response.resume();
        resolve(response.statusCode);
      });
      request.on("error", reject).end();
    });

  it("this machine's own programs and pages; no foreign page, and no page by a foreign name", async () => {
    const { host } = new URL(server.url);
    for (const own of ["localhost", "127.0.0.1:1", "[::1]:80"]) expect(await status(server, { host: own })).toBe(200);
    for (const foreign of ["example.com", "localhost.example.com"])
      expect(await status(server, { host: foreign })).toBe(403);
    expect(await status(server, { origin: `http://${host}` })).toBe(200);
    expect(await status(server, { origin: "https://example.com" })).toBe(403);
    expect(await status(server, { origin: "null" })).toBe(403);
    expect(await status(server, { "sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors" })).toBe(403);
    expect(await status(server, { "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate" }, "/")).toBe(200);
    const response = await fetch(`${server.url}/v1/models`);
    expect([...response.headers.keys()].filter((name) => name.startsWith("access-control"))).toEqual([]);
  });

  it("whoever has the key, and pages that were named", async () => {
    const flags = ["--model", `demo=${base}`, "--api-key-env", "ZEPHYR_SERVE_KEY", "--cors", "https://example.com"];
    const locked = await startServing(flags, { ZEPHYR_SERVE_KEY: "sesame-4711" });
    expect((await locked.openai.models.list()).data).toHaveLength(1);
    // One model answers by any name.
    const { model } = await locked.openai.chat.completions.create({
      model: "gpt-4o",
      messages: say("a"),
      max_tokens: 1,
    });
    expect(model).toBe("demo");
    const stranger = new OpenAI({ baseURL: `${locked.url}/v1`, apiKey: "sesame-4712", maxRetries: 0 });
    await expect(stranger.models.list()).rejects.toMatchObject({ status: 401, code: "invalid_api_key" });
    for (const path of ["/v1/models", "/metrics", chat]) expect(await status(locked, {}, path), path).toBe(401);
    for (const path of ["/", "/health"]) expect(await status(locked, {}, path), path).toBe(200);
    expect(await status(locked, { authorization: "Bearer sesame-4711", origin: "https://example.com" })).toBe(200);
    expect(await status(locked, { authorization: "Bearer sesame-4711", origin: "https://example.org" })).toBe(403);
    const asked = {
      origin: "https://example.com",
      "access-control-request-method": "POST",
      "access-control-request-headers": "authorization",
    };
    const preflight = await fetch(`${locked.url}${chat}`, { method: "OPTIONS", headers: asked });
    expect([preflight.status, preflight.headers.get("access-control-allow-origin")]).toEqual([
      204,
      "https://example.com",
    ]);
    expect(await locked.stop()).toBe(0);
    expect(locked.said()).not.toContain("sesame");
  });

  it("nobody beyond this machine without a key, unless it is said", async () => {
    const refused = (...flags: string[]) => startServing(["--model", base, ...flags]).then(() => "started", String);
    expect(await refused("--host", "0.0.0.0")).toMatch(/ended with 77[\s\S]*ZA_SERVE_OPEN[\s\S]*--without-key/);
    expect(await refused("--api-key-env", "ZEPHYR_NO_SUCH_KEY")).toMatch(/ended with 77[\s\S]*ZEPHYR_NO_SUCH_KEY/);
    expect(await refused("--port", new URL(server.url).port)).toMatch(
      /ended with 77[\s\S]*ZA_SERVE_ADDRESS[\s\S]*is taken/,
    );
    expect(await refused("--model", `${base}/`)).toMatch(/ended with 77[\s\S]*two models have the name base/);
    expect(await refused("--model", at("none"))).toMatch(/ended with 77[\s\S]*ZA_MODEL_NOT_FOUND/);
    const open = await startServing(["--model", base, "--host", "0.0.0.0", "--without-key"]);
    expect(await status(open, { host: "example.com" })).toBe(200);
    expect(await open.stop()).toBe(0);
  });
});
