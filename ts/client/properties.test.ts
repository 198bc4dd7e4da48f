/** What must hold for all inputs: canonical JSON, buckets, caps, slots, waits. */
import { createHash } from "node:crypto";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Breaker } from "./breaker";
import { Budget } from "./budget";
import { callKey } from "./call-key";
import { canonicalJson } from "./canonical-json";
import type { ChatModel, ChatRequest } from "./chat-model";
import { backoff, retryAfterOf } from "./retry";
import { Secrets } from "./secrets";
import { eventData } from "./server-sent-events";
import { Slots } from "./slots";
import { TokenBucket } from "./token-bucket";

/** The same value with the keys of every object in another order. */
function shuffled(value: unknown, order: (keys: string[]) => string[]): unknown {
  if (Array.isArray(value)) return value.map((item) => shuffled(item, order));
  if (typeof value !== "object" || value === null) return value;
  const fields = value as Record<string, unknown>;
  return Object.fromEntries(order(Object.keys(fields)).map((key) => [key, shuffled(fields[key], order)]));
}

const json = fc.jsonValue({ noUnicodeString: false } as never);

describe("canonical JSON", () => {
  it("says the same as JSON, and does not depend on the order of keys", () => {
    fc.assert(
      fc.property(json, (value) => {
        const written = canonicalJson(value);
        expect(JSON.parse(written)).toEqual(JSON.parse(JSON.stringify(value)));
        expect(canonicalJson(shuffled(value, (keys) => keys.toReversed()))).toBe(written);
        expect(canonicalJson(JSON.parse(written))).toBe(written);
      }),
    );
  });

  it("is the same only for values that are the same", () => {
    fc.assert(
      fc.property(json, json, (a, b) => {
        const same =
          JSON.stringify(shuffled(a, (keys) => keys.sort())) === JSON.stringify(shuffled(b, (keys) => keys.sort()));
        expect(canonicalJson(a) === canonicalJson(b)).toBe(same);
      }),
    );
  });

  it("writes what RFC 8785 writes", () => {
    const value = {
      "\u20ac": 1,
      "\r": 2,
      "1": 3,
      "\ud83d\ude02": 4,
      "\ufb33": 5,
      numbers: [333333333.3333333, 1e30, 4.5, 0.002, 1e-27, -0],
    };
    expect(canonicalJson(value)).toBe(
      '{"\\r":2,"1":3,"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27,0],"€":1,"😂":4,"\ufb33":5}',
    );
    expect(canonicalJson({ a: undefined, b: null })).toBe('{"b":null}');
    for (const bad of [Number.NaN, { a: [1, Number.POSITIVE_INFINITY] }, () => 1, [undefined], new Date(), 1n]) {
      expect(() => canonicalJson(bad)).toThrow(expect.objectContaining({ code: "ZA_ARGUMENT" }));
    }
  });

  it("the key is the hash of what is written down, and changes with all that decides an answer", () => {
    const model: ChatModel = {
      name: "m",
      endpoint: "here",
      capabilities: { topLogprobs: 0, schema: false, system: true },
      complete: () => Promise.reject(),
    };
    const request: ChatRequest = { messages: [{ role: "user", content: "hello" }], sampling: { maxTokens: 5 } };
    const { key, request: written } = callKey(model, request);
    expect(createHash("sha256").update(written).digest("hex")).toBe(key);
    const others = [
      callKey({ ...model, name: "n" }, request),
      callKey({ ...model, endpoint: "there" }, request),
      callKey(model, { ...request, sampleIndex: 1 }),
      callKey(model, { ...request, sampling: { maxTokens: 6 } }),
      callKey(model, { ...request, sampling: { maxTokens: 5, temperature: 0 } }),
      callKey(model, { ...request, messages: [{ role: "system", content: "hello" }] }),
    ];
    expect(new Set([key, ...others.map((each) => each.key)]).size).toBe(7);
    // What does not decide an answer does not change it.
    expect(callKey(model, { ...request, purpose: "other", sampleIndex: 0, onToken: () => {} }).key).toBe(key);
  });
});

describe("token buckets", () => {
  it("no stretch of time sees more than the rate, a second's worth and the last taking; and no waiting without need", () => {
    const steps = fc.array(
      fc.record({ amount: fc.integer({ min: 1, max: 500 }), pause: fc.integer({ min: 0, max: 20_000 }) }),
      {
        minLength: 1,
        maxLength: 40,
      },
    );
    fc.assert(
      fc.property(steps, fc.integer({ min: 60, max: 6000 }), (taken, perMinute) => {
        const bucket = new TokenBucket(perMinute, 0);
        const used: { at: number; amount: number }[] = [];
        let now = 0;
        let free = 0;
        for (const { amount, pause } of taken) {
          now += pause;
          const at = now + bucket.take(amount, now);
          // In order, and no later than the debt of those before is paid.
          expect(at).toBeGreaterThanOrEqual((used.at(-1)?.at ?? 0) - 1e-6);
          expect(at).toBeLessThanOrEqual(Math.max(now, free) + 1e-6);
          free = at + (amount * 60_000) / perMinute;
          used.push({ at, amount });
        }
        for (const [i, first] of used.entries()) {
          let sum = 0;
          for (const last of used.slice(i)) {
            sum += last.amount;
            const rate = perMinute / 60_000;
            expect(sum).toBeLessThanOrEqual(rate * (last.at - first.at) + rate * 1000 + last.amount + 1e-6);
          }
        }
      }),
    );
  });

  it("what is given back can be taken at once", () => {
    const bucket = new TokenBucket(60, 0);
    bucket.take(100, 0);
    bucket.give(100, 0);
    expect(bucket.take(1, 0)).toBe(0);
  });
});

describe("caps", () => {
  const calls = fc.array(
    fc.record({
      worst: fc.integer({ min: 1, max: 1000 }),
      share: fc.double({ min: 0, max: 1, noNaN: true }),
      fate: fc.constantFrom("answered", "unknown", "unbilled"),
      ticks: fc.integer({ min: 0, max: 5 }),
    }),
    { maxLength: 60 },
  );

  it("are never exceeded, and refuse only what does not fit when nothing is under way", async () => {
    await fc.assert(
      fc.asyncProperty(
        calls,
        fc.integer({ min: 1, max: 5000 }),
        fc.integer({ min: 1, max: 40 }),
        async (given, cents, maxCalls) => {
          const maxDollars = cents / 100;
          const budget = new Budget({ maxDollars, maxCalls }, { calls: 0, dollars: 0, tokens: 0 }, () => "");
          // What a provider would have on the bill: an unknown fate may be the worst.
          let bill = 0;
          let billedCalls = 0;
          const refused: number[] = [];
          await Promise.all(
            given.map(async ({ worst, share, fate, ticks }) => {
              const dollars = worst / 100;
              const reservation = await budget.reserve({ dollars, tokens: worst }).catch(() => undefined);
              if (!reservation) {
                refused.push(dollars);
                return;
              }
              for (let tick = 0; tick < ticks; tick++) await Promise.resolve();
              const used = fate === "answered" ? dollars * share : dollars;
              if (fate !== "unbilled") {
                bill += used;
                billedCalls++;
              }
              expect(bill).toBeLessThanOrEqual(maxDollars * (1 + 1e-9));
              expect(billedCalls).toBeLessThanOrEqual(maxCalls);
              reservation.settle(fate === "unbilled" ? "nothing" : { dollars: used, tokens: worst });
            }),
          );
          expect(budget.underWay).toEqual({ calls: 0, dollars: 0, tokens: 0 });
          expect(budget.spent.dollars).toBeCloseTo(bill, 9);
          for (const dollars of refused) {
            const fits = budget.spent.dollars + dollars <= maxDollars && budget.spent.calls < maxCalls;
            expect(fits).toBe(false);
          }
        },
      ),
    );
  });
});

describe("slots", () => {
  it("never more than the limit, and everybody gets one", async () => {
    const outcomes = fc.array(fc.constantFrom("fine", "limited", "other"), { minLength: 1, maxLength: 80 });
    await fc.assert(
      fc.asyncProperty(outcomes, fc.integer({ min: 1, max: 9 }), async (given, most) => {
        const slots = new Slots(most);
        let served = 0;
        await Promise.all(
          given.map(async (outcome) => {
            const give = await slots.take();
            expect(slots.taken).toBeLessThanOrEqual(most);
            await Promise.resolve();
            served++;
            give(outcome as "fine");
            give("fine");
          }),
        );
        expect(served).toBe(given.length);
        expect(slots.taken).toBe(0);
        expect(slots.limit).toBeGreaterThanOrEqual(1);
      }),
    );
  });

  it("one flood of refusals halves once, and good answers bring it back", async () => {
    const slots = new Slots(8);
    const given = await Promise.all(Array.from({ length: 8 }, () => slots.take()));
    for (const give of given) give("limited");
    expect(slots.limit).toBe(4);
    for (let i = 0; i < 60; i++) (await slots.take())("fine");
    expect(slots.limit).toBe(8);
  });

  it("who leaves the queue takes nothing along", async () => {
    const slots = new Slots(1);
    const give = await slots.take();
    const leave = new AbortController();
    const gone = slots.take(leave.signal).catch((error) => error.code);
    const next = slots.take();
    leave.abort();
    expect(await gone).toBe("ZA_ABORTED");
    give("other");
    (await next)("other");
    expect(slots.taken).toBe(0);
  });
});

describe("waits", () => {
  it("grow to a minute with full jitter, and obey the server however long", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 50 }),
        fc.double({ min: 0, max: 0.999, noNaN: true }),
        (attempt, random) => {
          const delay = backoff(attempt, undefined, random);
          expect(delay).toBeGreaterThanOrEqual(0);
          expect(delay).toBeLessThanOrEqual(Math.min(60_000, 1000 * 2 ** (attempt - 1)));
          const asked = backoff(attempt, 86_400_000, random);
          expect(asked).toBeGreaterThanOrEqual(86_400_000);
          expect(asked).toBeLessThanOrEqual(86_401_000);
        },
      ),
    );
  });

  it("reads every form of the header", () => {
    const now = Date.parse("2026-01-01T00:00:00Z");
    const read = (headers: Record<string, string>) => retryAfterOf(new Headers(headers), now);
    expect(read({ "retry-after": "120" })).toBe(120_000);
    expect(read({ "retry-after": "0.5" })).toBe(500);
    expect(read({ "retry-after-ms": "250", "retry-after": "9" })).toBe(250);
    expect(read({ "retry-after": "Thu, 01 Jan 2026 01:00:00 GMT" })).toBe(3_600_000);
    expect(read({ "retry-after": "Wed, 31 Dec 2025 01:00:00 GMT" })).toBe(0);
    for (const text of ["", "soon", "-3", "NaN"]) expect(read({ "retry-after": text })).toBeUndefined();
  });
});

it("the breaker stays closed for a server that fails now and then", () => {
  const breaker = new Breaker();
  for (let i = 0; i < 500; i++) {
    if (i % 3 === 0) breaker.answered();
    else if (i % 3 === 1) breaker.failed("429");
    else breaker.answered();
    breaker.check(() => "");
  }
});

it("secrets are found in every form they are sent in", () => {
  const key = 'sk-"secret"/key+1234';
  const secrets = new Secrets([key, "tiny"]);
  const texts = [key, JSON.stringify({ key }), `?key=${encodeURIComponent(key)}`, Buffer.from(key).toString("base64")];
  for (const text of texts) {
    expect(secrets.inAnswer(`before ${text} after`)).toMatch(/^before .*\[key\].* after$/);
    expect(secrets.inError(text)).not.toContain("secret");
  }
  // A word that an answer may hold.
  expect(secrets.inAnswer("a tiny house")).toBe("a tiny house");
  expect(secrets.inError("a tiny house")).toBe("a [key] house");
});

describe("server-sent events", () => {
  const events = fc.array(
    fc.array(
      fc.string({ unit: "binary" }).map((text) => text.replace(/[\r\n]/g, "·")),
      { minLength: 1, maxLength: 3 },
    ),
  );

  it("come out whole, whatever ends the lines and wherever the bytes are cut", async () => {
    await fc.assert(
      fc.asyncProperty(events, fc.constantFrom("\n", "\r", "\r\n"), fc.array(fc.nat(400)), async (given, end, cuts) => {
        const lines = given.flatMap((data) => [": comment", ...data.map((line) => `data: ${line}`), ""]);
        const bytes = Buffer.from(lines.map((line) => line + end).join(""));
        const points = [...new Set(cuts.filter((cut) => cut < bytes.length)), bytes.length].sort((a, b) => a - b);
        const pieces = points.map((to, i) => bytes.subarray(points[i - 1] ?? 0, to));
        const found: string[] = [];
        for await (const data of eventData(asyncly(pieces))) found.push(data);
        // Lone surrogates do not survive UTF-8.
        expect(found).toEqual(given.map((data) => Buffer.from(data.join("\n")).toString("utf8")));
      }),
    );
  });
});

async function* asyncly<T>(values: Iterable<T>): AsyncGenerator<T> {
  yield* values;
}
