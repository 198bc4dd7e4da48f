/** Calls through the scripted server, a process of its own. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type Server, startServer } from "../../test/server/start.mjs";
import { ClientError } from "../errors";
import { CallJournal } from "./call-journal";
import type { ChatRequest } from "./chat-model";
import { OpenAiChat } from "./openai-chat";
import { PaidCalls, type PaidCallsOptions } from "./paid-calls";

let server: Server;
let folder: string;
let journal: string;
const facts = { input: 1, output: 2 };

beforeAll(async () => {
  server = await startServer();
});
afterAll(() => server.stop());
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "zephyr-client-"));
  journal = join(folder, "calls.sqlite");
  await server.set({ rates: {}, batch: {}, rpm: undefined, atOnce: undefined, milliseconds: 0 });
  await server.script([]);
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

let asked = 0;
/** A question that nobody asked before. */
const question = (maxTokens = 50): ChatRequest => ({
  messages: [{ role: "user", content: `Question ${asked++} of ${folder}?` }],
  sampling: { maxTokens, temperature: 0 },
  purpose: "test",
});

const teacher = (more: object = {}) => new OpenAiChat({ model: "teacher", baseUrl: server.url, facts, ...more });
const open = (options: PaidCallsOptions = {}) => PaidCalls.open({ journal, ...options });

/** The typed error that a promise ends with. */
async function errorOf(promise: Promise<unknown>): Promise<ClientError> {
  const error = await promise.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(ClientError);
  return error as ClientError;
}

const since = (before: number) => server.billed().slice(before);

describe("the journal", () => {
  it("answers what was paid for, in this run and the next, and carries the totals over", async () => {
    const before = server.billed().length;
    const request = question();
    let calls = await open();
    let model = calls.guard(teacher());
    const first = await model.complete(request);
    expect(first.journalled).toBe(false);
    expect(first.model).toBe("teacher-2026-01-01");
    expect(first.cost).toBeCloseTo((first.usage!.promptTokens + 2 * first.usage!.completionTokens) / 1e6, 12);
    const pieces: string[] = [];
    const again = await model.complete({ ...request, onToken: (piece) => pieces.push(piece) });
    expect(again).toMatchObject({ text: first.text, journalled: true, cost: first.cost });
    expect(pieces).toEqual([first.text]);
    // Another draw of the same question is another call.
    expect((await model.complete({ ...request, sampleIndex: 1 })).journalled).toBe(false);
    await calls.close();

    calls = await open();
    model = calls.guard(teacher());
    expect((await model.complete(request)).journalled).toBe(true);
    expect(calls.budget.spent.calls).toBe(2);
    const { total, lines } = await calls.ledger();
    expect(lines).toMatchObject([{ purpose: "test", model: "teacher", done: 2 }]);
    const billed = since(before);
    expect(billed.length).toBe(2);
    expect(total.dollars).toBeCloseTo(
      billed.reduce((sum, { dollars }) => sum + dollars, 0),
      12,
    );
    await calls.close();
  });

  it("asks once for requests that are the same and made at once", async () => {
    const before = server.billed().length;
    const calls = await open();
    const model = calls.guard(teacher());
    const request = question();
    const answers = await Promise.all(Array.from({ length: 6 }, () => model.complete(request)));
    expect(new Set(answers.map(({ text }) => text)).size).toBe(1);
    expect(since(before).length).toBe(1);
    await calls.close();
  });

  it("keeps a rejected answer, asks again, and can give it to a better parser", async () => {
    const before = server.billed().length;
    const request = question();
    let calls = await open();
    let model = calls.guard(teacher());
    const answer = await model.complete(request);
    await answer.reject!("no rating in it");
    await calls.close();

    calls = await open({ reparse: true });
    model = calls.guard(teacher());
    const reread = await model.complete(request);
    expect(reread).toMatchObject({ text: answer.text, journalled: true });
    // Still of no use: now the model is asked.
    await reread.reject!("still none");
    expect((await model.complete(request)).journalled).toBe(false);
    expect(since(before).length).toBe(2);
    await calls.close();

    const reader = await CallJournal.read(journal);
    const kept = [];
    for await (const each of reader.invalid()) kept.push(each.reason);
    expect(kept).toEqual(["still none"]);
    await reader.close();
  });

  it("is used by one process at a time", async () => {
    const calls = await open();
    const error = await errorOf(open());
    expect(error.code).toBe("ZA_JOURNAL_LOCKED");
    expect(error.message).toContain(`process ${process.pid} on`);
    const reader = await CallJournal.read(journal);
    expect(reader.writer).toContain(`process ${process.pid}`);
    await reader.close();
    await calls.close();
    await (await open()).close();
  });
});

describe("failures", () => {
  const quick = { maxAttempts: 6 };

  it.each(["429", "500", "503", "reset", "drop", "half", "wrong", "prose"])("%s is tried again", async (fault) => {
    const before = server.billed().length;
    await server.script([{ fault, retryAfterMs: 5 }]);
    const calls = await open(quick);
    const response = await calls.guard(teacher()).complete(question());
    expect(response.text).toMatch(/^Answer [0-9a-f]{8} to: Question/);
    const billed = since(before);
    const paidTwice = ["drop", "half", "wrong", "prose"].includes(fault);
    expect(billed.length).toBe(paidTwice ? 2 : 1);
    const { total } = await calls.ledger();
    expect(total).toMatchObject({ done: 1, failed: 1, open: 0 });
    // What may have been billed counts: the true bill is never above the sum.
    const bill = billed.reduce((sum, { dollars }) => sum + dollars, 0);
    expect(total.dollars + total.possibleDollars).toBeGreaterThanOrEqual(bill - 1e-12);
    if (fault === "429") expect(total.possiblyBilled).toBe(0);
    await calls.close();
  });

  it("a stream that breaks off is no answer", async () => {
    await server.script([{ fault: "half" }]);
    const calls = await open(quick);
    const response = await calls.guard(teacher({ stream: true })).complete(question());
    expect(response.text).toMatch(/^Answer [0-9a-f]{8} to: Question/);
    expect(response.usage).not.toBeNull();
    expect((await calls.ledger()).total).toMatchObject({ done: 1, failed: 1, possiblyBilled: 1 });
    await calls.close();
  });

  it.each([
    ["seconds", { retryAfter: 1 }],
    ["milliseconds", { retryAfterMs: 700 }],
    ["a date", { retryAfterDate: "in two seconds" }],
  ])("Retry-After in %s is obeyed, by everybody", async (_, given) => {
    const fault: { fault: string; retryAfterDate?: string } = { fault: "429", ...given };
    if (fault.retryAfterDate) fault.retryAfterDate = new Date(Date.now() + 2000).toUTCString();
    await server.script([fault]);
    const calls = await open({ ...quick, concurrency: 1 });
    const model = calls.guard(teacher());
    const started = Date.now();
    const first = server.requests().length;
    await Promise.all([model.complete(question()), model.complete(question())]);
    const times = server
      .requests()
      .slice(first)
      .map(({ at }) => at);
    expect(times.length).toBe(3);
    // A date has no milliseconds.
    expect(times[1]! - started).toBeGreaterThanOrEqual(650);
    await calls.close();
  });

  it.each([
    ["quota", "ZA_CLIENT_QUOTA", {}],
    ["401", "ZA_CLIENT_KEY", {}],
    ["402", "ZA_CLIENT_QUOTA", {}],
    ["404", "ZA_CLIENT_REFUSED", {}],
    [
      "400",
      "ZA_CLIENT_CONTEXT",
      { message: "This model's maximum context length is 8192 tokens.", code: "context_length_exceeded" },
    ],
    ["400", "ZA_CLIENT_REFUSED", { message: "temperature must be at most 2" }],
  ])("%s ends it at once with %s", async (fault, code, more) => {
    const first = server.requests().length;
    await server.script([{ fault, ...more }]);
    const calls = await open(quick);
    const error = await errorOf(calls.guard(teacher()).complete(question()));
    expect(error.code).toBe(code);
    expect(error.remedy).toBeTruthy();
    if ("message" in more) expect(error.message).toContain(more.message);
    expect(server.requests().length - first).toBe(1);
    expect((await calls.ledger()).total).toMatchObject({ failed: 1, possiblyBilled: 0 });
    await calls.close();
  });

  it("gives up after so many tries, and says why", async () => {
    await server.script([{ fault: "503", times: 9 }]);
    const calls = await open({ maxAttempts: 2 });
    const error = await errorOf(calls.guard(teacher()).complete(question()));
    expect(error.code).toBe("ZA_CLIENT_GAVE_UP");
    expect(error.message).toMatch(/failed 2 times, the last time: the server says: 503 The server had an error/);
    await calls.close();
  });

  it("a server that hangs is left, streaming or not", async () => {
    await server.script([{ fault: "hang", times: 2 }]);
    const calls = await open({ maxAttempts: 1 });
    const silent = calls.guard(teacher({ timeoutSeconds: 0.2 }));
    expect((await errorOf(silent.complete(question()))).message).toContain("no answer within 0.2 s");
    const streaming = calls.guard(teacher({ timeoutSeconds: 0.2, stream: true }));
    expect((await errorOf(streaming.complete(question()))).message).toContain("no piece of an answer within 0.2 s");
    await calls.close();
  });

  it("a server that is not there was not paid", async () => {
    const calls = await open({ maxAttempts: 1 });
    const error = await errorOf(calls.guard(teacher({ baseUrl: "http://127.0.0.1:9/v1" })).complete(question()));
    expect(error.message).toContain("failed once: http://127.0.0.1:9/v1 cannot be reached");
    expect((await calls.ledger()).total).toMatchObject({ failed: 1, possiblyBilled: 0 });
    await calls.close();
  });

  it("the breaker stops a server that always fails, and answers that are never of use", async () => {
    await server.set({ rates: { 500: 1 } });
    let calls = await open({ maxAttempts: 100, planned: 30, breaker: { least: 5 }, concurrency: 30 });
    let model = calls.guard(teacher());
    const error = await errorOf(Promise.all(Array.from({ length: 30 }, () => model.complete(question()))));
    expect(error.code).toBe("ZA_CLIENT_BREAKER");
    expect(error.message).toMatch(/of the latest \d+ tries failed.*0 of 30 calls are answered/);
    await calls.close();

    await server.set({ rates: {} });
    calls = await open({ breaker: { least: 5 } });
    model = calls.guard(teacher());
    for (let i = 0; i < 5; i++) await (await model.complete(question())).reject!("no rating");
    expect((await errorOf(model.complete(question()))).message).toContain(
      "5 of the latest 5 answers could not be used",
    );
    await calls.close();
  }, 60_000);
});

describe("caps", () => {
  it("nothing is spent above a cap, whatever is under way, and a raised cap goes on", async () => {
    const before = server.billed().length;
    const requests = Array.from({ length: 40 }, () => question(400));
    await server.set({ rates: { drop: 0.1, 500: 0.1, 429: 0.1 }, faults: { 429: { retryAfterMs: 3 } } });
    const maxDollars = 0.012;
    let calls = await open({ maxDollars, planned: 40, maxAttempts: 20, breaker: false });
    let model = calls.guard(teacher());
    const ended = await Promise.allSettled(requests.map((request) => model.complete(request)));
    const refused = ended.filter(({ status }) => status === "rejected") as PromiseRejectedResult[];
    expect(refused.length).toBeGreaterThan(0);
    for (const { reason } of refused)
      expect(reason).toMatchObject({ code: "ZA_CLIENT_CAP", place: { field: "maxDollars" } });
    expect(refused[0]!.reason.message).toMatch(/\$0\.01\d* of \$0\.012 are used.*of 40 calls are answered/);
    const spent = since(before).reduce((sum, { dollars }) => sum + dollars, 0);
    expect(spent).toBeLessThanOrEqual(maxDollars);
    const answered = ended.length - refused.length;
    expect(answered).toBeGreaterThan(0);
    await calls.close();

    await server.set({ rates: {} });
    calls = await open({ maxDollars: 10 });
    model = calls.guard(teacher());
    const all = await Promise.all(requests.map((request) => model.complete(request)));
    expect(all.filter(({ journalled }) => journalled).length).toBe(answered);
    await calls.close();
  }, 60_000);

  it("calls and tokens have caps too", async () => {
    const calls = await open({ maxCalls: 2 });
    const model = calls.guard(teacher());
    await model.complete(question());
    await model.complete(question());
    expect((await errorOf(model.complete(question()))).message).toContain("2 of 2 calls are made");
    await calls.close();
    const tokens = await open({ maxTotalTokens: 500 });
    expect((await errorOf(tokens.guard(teacher()).complete(question(1000)))).place).toEqual({
      field: "maxTotalTokens",
    });
    await tokens.close();
  });

  it("a model without a price is refused under a cap in dollars, before any work", async () => {
    const calls = await open({ maxDollars: 1 });
    const unknown = new OpenAiChat({ model: "nobody-knows", baseUrl: server.url });
    expect(() => calls.guard(unknown)).toThrow(expect.objectContaining({ code: "ZA_CLIENT_PRICE" }));
    await calls.close();
    const priced = await open({ maxDollars: 1, prices: { "nobody-knows": { input: 0, output: 0 } } });
    expect((await priced.guard(unknown).complete(question())).cost).toBe(0);
    await priced.close();
  });

  it("an answer without a usage counts at its worst", async () => {
    await server.script([{ fault: "no-usage" }]);
    const calls = await open({ maxDollars: 1 });
    const response = await calls.guard(teacher()).complete(question());
    expect(response).toMatchObject({ usage: null, cost: null });
    const { total } = await calls.ledger();
    expect(total).toMatchObject({ done: 1, possiblyBilled: 1, dollars: 0 });
    expect(total.possibleDollars).toBeGreaterThan(0.0001);
    expect(calls.budget.spent.dollars).toBe(total.possibleDollars);
    await calls.close();
  });
});

describe("rates", () => {
  it("concurrency falls when the server has too much, and recovers", async () => {
    await server.set({ atOnce: 2, milliseconds: 20 });
    const first = server.requests().length;
    const calls = await open({ concurrency: 12, maxAttempts: 50, breaker: false });
    const model = calls.guard(teacher());
    await Promise.all(Array.from({ length: 60 }, () => model.complete(question())));
    const met = server.requests().slice(first);
    const limited = met.filter(({ fault }) => fault === "429").length;
    // Without giving way nearly every request of twelve at once would be refused, again and again.
    expect(limited).toBeLessThan(60);
    await calls.close();
  }, 60_000);

  it("calls a minute are spread", async () => {
    const first = server.requests().length;
    const calls = await open({ rpm: 600, concurrency: 20 });
    const model = calls.guard(teacher());
    await Promise.all(Array.from({ length: 12 }, () => model.complete(question())));
    const times = server
      .requests()
      .slice(first)
      .map(({ at }) => at);
    expect(times.at(-1)! - times[0]!).toBeGreaterThanOrEqual(1000);
    await calls.close();
  });
});

describe("stopping", () => {
  it("what is under way is still written down, and nothing more is sent", async () => {
    await server.set({ milliseconds: 1500 });
    const before = server.billed().length;
    const first = server.requests().length;
    const stop = new AbortController();
    const notices: string[] = [];
    const calls = await open({ concurrency: 3, signal: stop.signal, onNotice: (text) => notices.push(text) });
    const model = calls.guard(teacher());
    const requests = Array.from({ length: 15 }, () => question());
    const ended = Promise.allSettled(requests.map((request) => model.complete(request)));
    while (server.requests().length < first + 3) await new Promise((resolve) => setTimeout(resolve, 10));
    stop.abort();
    const asked = Date.now();
    for (const each of await ended) expect(each).toMatchObject({ status: "rejected", reason: { code: "ZA_ABORTED" } });
    expect(Date.now() - asked).toBeLessThan(700);
    await calls.close();
    expect(notices).toEqual(["waiting for 3 answers that are paid for"]);
    expect(since(before).length).toBe(3);

    const next = await open();
    expect(next.journal!.orphans).toBe(0);
    const again = next.guard(teacher());
    const found = await Promise.all(requests.slice(0, 3).map((request) => again.complete(request)));
    expect(found.every(({ journalled }) => journalled)).toBe(true);
    expect(since(before).length).toBe(3);
    await next.close();
  });
});

describe("what servers differ in", () => {
  it("a schema is asked for in words where the server refuses it", async () => {
    await server.set({ refuseSchema: true });
    const calls = await open();
    const model = calls.guard(teacher());
    expect(model.capabilities.schema).toBe(true);
    const request = question(200);
    request.sampling.schema = {
      name: "rating",
      schema: { type: "object", properties: { answer: { type: "string" } } },
    };
    const { text } = await model.complete(request);
    expect(text).toContain("Answer with one JSON value");
    expect(model.capabilities.schema).toBe(false);
    await server.set({ refuseSchema: false });
    expect(JSON.parse((await calls.guard(teacher()).complete({ ...request, sampleIndex: 1 })).text)).toHaveProperty(
      "answer",
    );
    await calls.close();
  });

  it("max_completion_tokens is sent where it is wanted", async () => {
    await server.set({ refuseMaxTokens: true });
    const calls = await open();
    expect((await calls.guard(teacher()).complete(question())).text).toContain("Answer");
    await server.set({ refuseMaxTokens: false });
    await calls.close();
  });

  it("log-probabilities come with their alternatives, from the journal too", async () => {
    const calls = await open();
    const model = calls.guard(teacher());
    const request = question();
    request.sampling.topLogprobs = 3;
    const { logprobs, text } = await model.complete(request);
    expect(logprobs!.map(({ token }) => token).join("")).toBe(text);
    expect(logprobs![0]!.top.map(({ logprob }) => logprob)).toEqual([-0.1, -1.1, -2.1]);
    expect((await model.complete(request)).logprobs).toEqual(logprobs);
    const streamed = await calls.guard(teacher({ stream: true })).complete({ ...request, sampleIndex: 1 });
    expect(streamed.logprobs).toEqual(logprobs);
    await calls.close();
  });
});
