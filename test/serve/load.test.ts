/** A server that is left, overfilled, timed out and stopped. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { buildProgram } from "../shared";
import { chat, eventsIn, refusal, type Serving, saveSlow, say, settled, startServing } from "./serving";

const folder = mkdtempSync(join(tmpdir(), "zephyr-serve-load-"));
const at = (name: string) => join(folder, name);
/** A request that a slow model works on for many seconds. */
const long = { model: "slow", messages: say("say nine."), temperature: 0, max_tokens: 30_000 };

let slow: Serving;

beforeAll(async () => {
  buildProgram();
  await saveSlow(at("slow"), 512);
  slow = await startServing(["--model", at("slow"), "--queue", "3"]);
});

afterAll(async () => {
  await slow?.stop();
  rmSync(folder, { recursive: true, force: true });
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

  describe("that scores given texts", () => {
    // Many seconds of work, and no token is generated, between which an answer would be stopped.
    const prompt = Array.from({ length: 32_000 }, (_, at) => 3 + (at % 200));
    const scoring = (logprobs: number) => ({ model: "slow", prompt, max_tokens: 0, echo: true, logprobs });

    it.each([0, 2])("stops when the client leaves (logprobs: %i)", async (logprobs) => {
      const leave = new AbortController();
      const asked = slow.post("/v1/completions", scoring(logprobs), { signal: leave.signal });
      asked.catch(() => {});
      await settled(slow, { zephyr_requests_underway: 1, zephyr_answers_running: 1 });
      leave.abort();
      const left = performance.now();
      await settled(slow, { zephyr_requests_underway: 0, zephyr_answers_running: 0 });
      expect(performance.now() - left).toBeLessThan(8000);
      const next = await slow.post(chat, { ...long, max_tokens: 1 });
      expect(next.status).toBe(200);
      expect(performance.now() - left).toBeLessThan(10_000);
    });

    it("stops when the time is over", async () => {
      const hasty = await startServing(["--model", at("slow"), "--timeout", "1"]);
      for (const logprobs of [0, 2]) {
        const asked = performance.now();
        const response = await hasty.post("/v1/completions", scoring(logprobs));
        expect(await refusal(response)).toMatchObject({ status: 504, code: "timeout" });
        await settled(hasty, { zephyr_requests_underway: 0, zephyr_answers_running: 0 });
        expect(performance.now() - asked).toBeLessThan(8000);
      }
      expect(await hasty.stop()).toBe(0);
    });
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
});
