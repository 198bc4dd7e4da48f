/** Batches through the scripted server. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from "vitest";
import { type Server, startServer } from "../../test/server/start.mjs";
import type { ChatRequest } from "./chat-model";
import { OpenAiChat } from "./openai-chat";
import { PaidCalls, type PaidCallsOptions } from "./paid-calls";

let server: Server;
let folder: string;
let journal: string;
let before = 0;
const batch = { quietSeconds: 0.02, pollSeconds: 0.05, graceSeconds: 0.3 };
const price = { input: 1, output: 2 };

beforeAll(async () => {
  server = await startServer();
});
afterAll(() => server.stop());
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "zephyr-batch-"));
  journal = join(folder, "calls.sqlite");
  await server.set({ batch: {} });
  before = server.billed().length;
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const requests = (count: number): ChatRequest[] =>
  Array.from({ length: count }, (_, i) => ({
    messages: [{ role: "user", content: `Question ${i} of ${folder}?` }],
    sampling: { maxTokens: 50 },
    purpose: "test",
  }));
const open = (options: PaidCallsOptions = {}) => PaidCalls.open({ journal, batch, ...options });
const teacher = () => new OpenAiChat({ model: "teacher", baseUrl: server.url, facts: price });
const billed = () => server.billed().slice(before);
const spent = () => billed().reduce((sum, { dollars }) => sum + dollars, 0);

it("answers come by custom id, at half the price, and are in the journal", async () => {
  const calls = await open();
  const model = calls.guard(teacher());
  const asked = requests(30);
  const answers = await Promise.all(asked.map((request) => model.complete(request)));
  for (const [i, { text }] of answers.entries()) expect(text).toContain(`to: Question ${i} of`);
  expect(billed().length).toBe(30);
  expect(new Set(billed().map((each) => each.batch)).size).toBe(1);
  const { total } = await calls.ledger();
  expect(total).toMatchObject({ done: 30, open: 0, possiblyBilled: 0 });
  expect(total.dollars).toBeCloseTo(spent(), 12);
  expect((await model.complete(asked[3]!)).journalled).toBe(true);
  await calls.close();
});

it("is cut at the limits of requests and bytes", async () => {
  const calls = await open({ batch: { ...batch, maxRequests: 4 } });
  const model = calls.guard(teacher());
  await Promise.all(requests(10).map((request) => model.complete(request)));
  const sizes = new Map<string, number>();
  for (const each of billed()) sizes.set(each.batch!, (sizes.get(each.batch!) ?? 0) + 1);
  expect([...sizes.values()].sort()).toEqual([2, 4, 4]);
  await calls.close();

  const narrow = await PaidCalls.open({ journal: join(folder, "other.sqlite"), batch: { ...batch, maxBytes: 600 } });
  const again = narrow.guard(teacher());
  await Promise.all(requests(4).map((request) => again.complete({ ...request, sampleIndex: 1 })));
  expect(
    new Set(
      billed()
        .slice(10)
        .map((each) => each.batch),
    ).size,
  ).toBeGreaterThan(1);
  await narrow.close();
});

it("items that failed, and those of a batch that expired, are handed over again; nothing is paid twice", async () => {
  await server.set({ batch: { failed: [1, 2] } });
  const calls = await open({ breaker: false });
  const model = calls.guard(teacher());
  const answering = Promise.all(requests(6).map((request) => model.complete(request)));
  await until(() => billed().length === 4);
  await server.set({ batch: { expiredAfter: 0 } });
  await until(async () => (await calls.ledger()).total.failed >= 3);
  await server.set({ batch: {} });
  const answers = await answering;
  for (const [i, { text }] of answers.entries()) expect(text).toContain(`to: Question ${i} of`);
  expect(billed().length).toBe(6);
  expect((await calls.ledger()).total).toMatchObject({ done: 6, possiblyBilled: 0 });
  await calls.close();
});

it("a batch that is refused whole says why, and costs nothing", async () => {
  await server.set({ batch: { refused: "Enqueued token limit reached for teacher" } });
  const calls = await open();
  const model = calls.guard(teacher());
  const ended = await Promise.allSettled(requests(3).map((request) => model.complete(request)));
  for (const each of ended) {
    expect(each).toMatchObject({ status: "rejected", reason: { code: "ZA_CLIENT_BATCH" } });
    expect((each as PromiseRejectedResult).reason.message).toContain("Enqueued token limit reached");
  }
  expect((await calls.ledger()).total).toMatchObject({ failed: 3, open: 0, possiblyBilled: 0 });
  expect(calls.budget.spent).toEqual({ calls: 0, dollars: 0, tokens: 0 });
  await calls.close();
});

it("a batch whose making was not confirmed is found, not made twice", async () => {
  await server.set({ batch: { dropMaking: true } });
  const calls = await open();
  const model = calls.guard(teacher());
  await Promise.all(requests(5).map((request) => model.complete(request)));
  expect(billed().length).toBe(5);
  await calls.close();
});

it("a later run goes on waiting for a batch", async () => {
  await server.set({ batch: { milliseconds: 600 } });
  const asked = requests(8);
  const stop = new AbortController();
  const notices: string[] = [];
  const first = await open({ signal: stop.signal, onNotice: (text) => notices.push(text) });
  const model = first.guard(teacher());
  const ended = Promise.allSettled(asked.map((request) => model.complete(request)));
  await until(() => notices.some((text) => text.startsWith("handed over a batch of 8")));
  stop.abort();
  for (const each of await ended) expect(each).toMatchObject({ reason: { code: "ZA_ABORTED" } });
  await first.close();

  const second = await open({ maxDollars: 1, onNotice: (text) => notices.push(text) });
  expect(second.journal!.orphans).toBe(0);
  const atWorst = second.budget.spent.dollars;
  expect(atWorst).toBeGreaterThan(0);
  const again = second.guard(teacher());
  const answers = await Promise.all(asked.map((request) => again.complete(request)));
  for (const [i, { text }] of answers.entries()) expect(text).toContain(`to: Question ${i} of`);
  expect(notices.at(-1)).toMatch(/^going on with a batch of 8 calls, handed over 20/);
  expect(billed().length).toBe(8);
  expect(second.budget.spent.calls).toBe(8);
  expect(second.budget.spent.dollars).toBeCloseTo(spent(), 9);
  await second.close();
});

it("needs a journal", async () => {
  await expect(PaidCalls.open({ batch: true })).rejects.toMatchObject({ code: "ZA_CONFIG_INVALID" });
});

async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  for (let tries = 0; !(await holds()); tries++) {
    if (tries > 400) throw new Error("it did not come to pass");
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}
