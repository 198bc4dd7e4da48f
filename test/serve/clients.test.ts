/** The server as its clients see it: npm's and Python's `openai`, and our own. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { zodResponseFormat } from "openai/helpers/zod";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { Mistral, OpenAiChat, SftTrainer } from "../../ts/index";
import { folderTokenizer } from "../../ts/model/tokenizer";
import { buildProgram, data, present, pythonWith, smallRows } from "../shared";
import { base, type Serving, say, startServing } from "./serving";

const folder = mkdtempSync(join(tmpdir(), "zephyr-serve-clients-"));
const at = (name: string) => join(folder, name);

let server: Serving;

beforeAll(async () => {
  buildProgram();
  const { chats } = smallRows(32);
  const { model } = await new SftTrainer({
    model: await Mistral.fromPretrained(base),
    dataset: chats,
    lora: { rank: 8, alpha: 32 },
    ...{ outputDir: at("sft"), maxSteps: 12, batchSize: 8, learningRate: 1e-2, samples: 0 },
  } as never).fit();
  await model.saveAdapter(at("adapter"));
  server = await startServing(["--model", `demo=${base}`, "--adapter", at("adapter")]);
});

afterAll(async () => {
  await server?.stop();
  rmSync(folder, { recursive: true, force: true });
});

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

  it("gets an answer that fits, however few tokens it may have, as long as the shortest one has room", async () => {
    const shape = z.strictObject({
      why: z.string(),
      grades: z.array(z.int().min(1).max(5)).length(3),
      next: z.union([z.null(), z.string()]),
    });
    const shortest = '{"why":"","grades":[1,1,1],"next":""}'.length;
    const ask = (max_tokens: number, temperature: number) =>
      server.openai.chat.completions.parse({
        ...{ model: "demo", messages: say("say nine."), temperature, seed: max_tokens, max_tokens },
        response_format: zodResponseFormat(shape, "grades"),
      });
    for (const temperature of [0, 2]) {
      for (const more of [0, 1, 2, 3, 5, 8, 13, 40]) {
        const { choices, usage } = await ask(shortest + more, temperature);
        expect(choices[0]!.finish_reason, choices[0]!.message.content!).toBe("stop");
        expect(shape.safeParse(choices[0]!.message.parsed).success).toBe(true);
        expect(usage!.completion_tokens).toBeLessThanOrEqual(shortest + more);
      }
    }
    // The client refuses to read what was cut, as it does with OpenAI's own.
    await expect(ask(4, 0)).rejects.toThrow(/length/);
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
