/** What goes over the wire: frames, refusals, figures. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Mistral } from "../../ts/index";
import { buildProgram } from "../shared";
import { base, chat, eventsIn, refusal, type Serving, say, startDemo, startServing } from "./serving";

let server: Serving;

beforeAll(async () => {
  buildProgram();
  server = await startDemo();
});

afterAll(async () => {
  await server?.stop();
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
    ["half a character", { messages: say("a\ud83d b") }, "messages[0].content"],
    ["half a character to stop at", { stop: ["a", "\udd8a"] }, "stop[1]"],
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
    const got = await fetch(`${server.url}${chat}`);
    expect(got.headers.get("allow")).toBe("POST");
    expect(await refusal(got)).toMatchObject({ status: 405 });
    // What went wrong has left nothing behind.
    expect((await server.post(chat, { model: "demo", messages: say("a"), max_tokens: 2 })).status).toBe(200);
    expect((await server.metrics()).zephyr_requests_underway).toBe(0);
  });

  it("has the context and the bodies that it was told to have", async () => {
    const small = await startServing(["--model", `demo=${base}`, "--context", "40", "--max-body", "1"]);
    const ids = Array.from({ length: 64 }, (_, at) => 3 + at);
    const complete = (prompt: number[], more: object) =>
      small.post("/v1/completions", { model: "demo", prompt, temperature: 0, ...more });
    const { max_model_len } = (await (await fetch(`${small.url}/v1/models/demo`)).json()) as { max_model_len: number };
    expect(max_model_len).toBe(40);
    expect(await refusal(await complete(ids, { max_tokens: 1 }))).toMatchObject({
      status: 400,
      code: "context_length_exceeded",
      message: expect.stringMatching(/40 tokens[\s\S]*64 tokens/),
    });
    // The same text fits where nobody said so.
    const unlimited = { model: "demo", prompt: ids, temperature: 0, max_tokens: 1 };
    expect((await server.post("/v1/completions", unlimited)).status).toBe(200);
    // An answer ends where the context does, though more was asked for.
    const response = await complete(ids.slice(0, 37), { max_tokens: 30 });
    const { choices, usage } = (await response.json()) as {
      choices: { finish_reason: string }[];
      usage: { prompt_tokens: number; completion_tokens: number };
    };
    expect([usage.prompt_tokens, usage.completion_tokens, choices[0]!.finish_reason]).toEqual([37, 3, "length"]);

    const mebibyte = 2 ** 20;
    const padded = (length: number) => {
      const body = JSON.stringify({ model: "demo", prompt: [5], max_tokens: 1 });
      return `${body}${" ".repeat(length - body.length)}`;
    };
    expect((await small.post("/v1/completions", padded(mebibyte))).status).toBe(200);
    const large = await refusal(await small.post("/v1/completions", padded(mebibyte + 1)));
    expect(large).toMatchObject({ status: 413, code: "request_too_large" });
    expect((await server.post("/v1/completions", padded(mebibyte + 1))).status).toBe(200);
    expect(await small.stop()).toBe(0);
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

  it("writes its figures as Prometheus reads them", async () => {
    const before = await server.metrics();
    const tokens = 'zephyr_completion_tokens_total{model="demo"}';
    for (const max_tokens of [3, 4]) {
      const body = { model: "demo", messages: say("say nine."), temperature: 0, max_tokens };
      await (await server.post(chat, body)).text();
    }
    const text = await (await fetch(`${server.url}/metrics`)).text();
    for (const line of text.trim().split("\n")) {
      expect(line).toMatch(/^(# (HELP|TYPE) \w+ .+|\w+(\{(\w+="[^"]*",?)+\})? -?[\d.e+-]+)$/);
    }
    const found = await server.metrics();
    const answered = `zephyr_requests_total{path="${chat}",status="200"}`;
    expect(found[answered]).toBe((before[answered] ?? 0) + 2);
    expect(found[tokens]).toBe((before[tokens] ?? 0) + 7);
    const count = found[`zephyr_request_seconds_count{path="${chat}"}`];
    expect(found[`zephyr_request_seconds_bucket{path="${chat}",le="+Inf"}`]).toBe(count);
  });
});
