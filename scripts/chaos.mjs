// Makes calls through a failing server, kills the process at random instants, and counts what was lost, paid twice or
// spent above the cap. Needs the built package.
// usage: node scripts/chaos.mjs [--calls 2000] [--kills 20] [--concurrency 8] [--seed 1] [--json FILE] [--write]
import { fork } from "node:child_process";
import { createHash } from "node:crypto";
import { appendFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { startServer } from "../test/server/start.mjs";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const { values: given } = parseArgs({
  options: {
    calls: { type: "string", default: "2000" },
    kills: { type: "string", default: "20" },
    concurrency: { type: "string", default: "8" },
    seed: { type: "string", default: "1" },
    json: { type: "string" },
    write: { type: "boolean", default: false },
    worker: { type: "string" },
  },
});

/** What the server does to a request; the answers of `lost` are billed and never arrive, whoever asks. */
const rates = {
  429: 0.04,
  500: 0.03,
  503: 0.01,
  reset: 0.01,
  drop: 0.03,
  half: 0.02,
  wrong: 0.02,
  prose: 0.01,
  slow: 0.03,
  hang: 0.002,
};
const faults = { 429: { retryAfterMs: 30 }, 500: { billed: true }, slow: { milliseconds: 100 } };
const lost = ["500", "drop", "half", "wrong", "prose", "hang"];
/** Dollars per million tokens, and tokens of the longest answer. */
const price = { input: 1, output: 2 };
const maxTokens = 60;
const capReached = 3;

const questionOf = (index) => `Question ${index}: what comes after ${index * 7919}?`;
const hashOf = (text) => createHash("sha256").update(text).digest("hex").slice(0, 16);

/** One life of the process under test: answers every question, says which answers it saw, until it is killed. */
async function work({ url, journal, calls, concurrency, maxDollars, seen }) {
  const { OpenAiChat, PaidCalls } = await import(pathToFileURL(join(root, "dist", "index.js")).href);
  const options = { journal, concurrency, maxDollars, maxAttempts: 1000, breaker: false, planned: calls };
  const paid = await PaidCalls.open(options);
  process.send({ orphans: paid.journal.orphans });
  const model = paid.guard(new OpenAiChat({ model: "teacher", baseUrl: url, facts: price, timeoutSeconds: 2 }));
  let next = 0;
  let capped = false;
  const worker = async () => {
    while (next < calls && !capped) {
      const index = next++;
      try {
        const messages = [{ role: "user", content: questionOf(index) }];
        const { text, journalled } = await model.complete({ messages, sampling: { maxTokens }, purpose: "chaos" });
        if (!journalled) process.send({});
        appendFileSync(seen, `${JSON.stringify({ index, hash: hashOf(text), journalled, at: Date.now() })}\n`);
      } catch (error) {
        if (error.code !== "ZA_CLIENT_CAP") throw error;
        capped = true;
      }
    }
  };
  await Promise.all(Array.from({ length: concurrency }, worker));
  await paid.close();
  process.exit(capped ? capReached : 0);
}

/**
 * Starts a life; kills it `milliseconds` after its call number `last`, unless it is done before. Calls, not only time: a
 * slow machine would be killed before it began, and a fast one would be done.
 */
function live(job, { last, milliseconds } = {}) {
  return new Promise((resolve, reject) => {
    const child = fork(fileURLToPath(import.meta.url), ["--worker", JSON.stringify(job)], {
      stdio: ["ignore", "ignore", "pipe", "ipc"],
    });
    let errors = "";
    let orphans = 0;
    let timer;
    let killedAt;
    child.stderr.on("data", (text) => {
      errors += text;
    });
    let calls = 0;
    child.on("message", (message) => {
      orphans = message.orphans ?? orphans;
      if (message.orphans === undefined) calls++;
      if (calls !== last || timer !== undefined) return;
      timer = setTimeout(() => {
        killedAt = Date.now();
        child.kill("SIGKILL");
      }, milliseconds);
    });
    child.on("exit", (code, signal) => {
      clearTimeout(timer);
      if (signal !== "SIGKILL" && code !== 0 && code !== capReached) reject(new Error(`the worker failed:\n${errors}`));
      else resolve({ orphans, killedAt: signal === "SIGKILL" ? killedAt : undefined, capped: code === capReached });
    });
  });
}

/** Numbers in [0, 1) that a seed repeats (mulberry32). */
function randomOf(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

function linesOf(file) {
  if (!existsSync(file)) return [];
  return readFileSync(file, "utf8")
    .split("\n")
    .flatMap((line) => {
      try {
        return [JSON.parse(line)];
      } catch {
        // A kill in the middle of a line.
        return [];
      }
    });
}

const sum = (values) => values.reduce((all, value) => all + value, 0);

/** Answers that were billed and delivered whole, and billed again later: by the kill that lost them. */
function rebilled(billed, requests, kills) {
  const arrived = new Map(requests.map(({ id, at }) => [id, at]));
  const byQuestion = new Map();
  for (const each of billed.filter(({ fault }) => !lost.includes(fault ?? ""))) {
    byQuestion.set(each.question, [...(byQuestion.get(each.question) ?? []), arrived.get(each.id)]);
  }
  const perKill = kills.map(() => 0);
  for (const times of byQuestion.values()) {
    // All but the last were in vain.
    for (const at of times.sort((a, b) => a - b).slice(0, -1)) {
      const kill = kills.findIndex((killed) => killed >= at);
      perKill[kill < 0 ? perKill.length - 1 : kill]++;
    }
  }
  return perKill;
}

async function main() {
  const calls = Number(given.calls);
  const kills = Number(given.kills);
  const concurrency = Number(given.concurrency);
  const folder = mkdtempSync(join(tmpdir(), "zephyr-chaos-"));
  const journal = join(folder, "calls.sqlite");
  const seen = join(folder, "seen.jsonl");
  const random = randomOf(Number(given.seed));
  const server = await startServer({ folder: join(folder, "server"), seed: Number(given.seed), price });
  const started = performance.now();
  const killedAt = [];
  const orphans = [];
  const overCap = [];
  const phases = [];
  try {
    // What a call costs, so that the first cap ends the work in the middle.
    const probe = { model: "teacher", messages: [{ role: "user", content: questionOf(calls) }], max_tokens: maxTokens };
    await fetch(`${server.url}/chat/completions`, { method: "POST", body: JSON.stringify(probe) });
    const before = server.billed();
    const each = before[0].dollars;
    // Some time under way, as real calls have.
    await server.set({ rates, faults, milliseconds: 20 });
    // Calls that were lost count at their worst, so that the first cap holds about half of them.
    for (const [phase, maxDollars] of [1.1 * calls * each, 20 * calls * each].entries()) {
      const spent = () =>
        sum(
          server
            .billed()
            .slice(1)
            .map(({ dollars }) => dollars),
        );
      const share = phase === 0 ? Math.ceil(kills / 2) : kills - killedAt.length;
      const phaseStarted = performance.now();
      const target = phase === 0 ? 0.4 * calls : calls;
      let inPhase = 0;
      for (let over = false; !over; ) {
        const job = { url: server.url, journal, calls, concurrency, maxDollars, seen };
        const done = new Set(linesOf(seen).map(({ index }) => index)).size;
        const left = Math.max(0, target - done) / Math.max(1, share - inPhase);
        const kill = { last: Math.floor(random() * Math.max(1, left)), milliseconds: 40 * random() };
        const life = await live(job, inPhase < share ? kill : undefined);
        orphans.push(life.orphans);
        if (life.killedAt !== undefined) {
          killedAt.push(life.killedAt);
          inPhase++;
        } else over = true;
        overCap.push(Math.max(0, spent() - maxDollars));
        if (over) phases.push({ cap: maxDollars, spent: spent(), capped: life.capped, kills: inPhase });
      }
      phases.at(-1).seconds = (performance.now() - phaseStarted) / 1000;
    }
    // The last word: everything again, which the journal must answer by itself.
    const requestsBefore = server.requests().length;
    const last = join(folder, "last.jsonl");
    await live({ url: server.url, journal, calls, concurrency, maxDollars: 20 * calls * each, seen: last });
    const answers = new Map(linesOf(last).map(({ index, hash, journalled }) => [index, { hash, journalled }]));
    const sightings = linesOf(seen);
    const firstSeen = new Map();
    for (const { index, at } of sightings) if (!firstSeen.has(index)) firstSeen.set(index, at);
    const bySight = new Map([...firstSeen].map(([index, at]) => [questionOf(index), at]));
    const perKill = rebilled(server.billed().slice(1), server.requests().slice(1), killedAt);
    const requests = server.requests().slice(1);
    const met = {};
    for (const { fault } of requests) if (fault) met[fault] = (met[fault] ?? 0) + 1;
    const result = {
      calls,
      kills: killedAt.length,
      concurrency,
      answered: answers.size,
      // Answers that a consumer saw and that are not, or not the same, in the journal; and calls without any.
      paid_responses_lost:
        sightings.filter(({ index, hash }) => answers.get(index)?.hash !== hash).length +
        (calls - [...answers.values()].filter(({ journalled }) => journalled).length),
      rebilled: sum(perKill),
      rebilled_most_by_one_kill: Math.max(0, ...perKill),
      possibly_billed_most_after_one_kill: Math.max(0, ...orphans),
      spend_over_cap: Math.max(0, ...overCap),
      finished_calls_sent_again:
        requests.filter(({ question, at }) => at > (bySight.get(question) ?? Number.POSITIVE_INFINITY)).length +
        (server.requests().length - requestsBefore),
      requests: requests.length,
      faults: met,
      phases,
      seed: Number(given.seed),
      seconds: (performance.now() - started) / 1000,
    };
    const holds = {
      "every call answered": result.answered === calls,
      "the first cap ended the work": phases[0].capped && !phases[1].capped,
      "paid responses lost": result.paid_responses_lost === 0,
      "calls re-billed by one kill, at most": result.rebilled_most_by_one_kill <= concurrency,
      "possibly billed after one kill, at most": result.possibly_billed_most_after_one_kill <= concurrency,
      "spend over cap": result.spend_over_cap <= 1e-9,
      "finished calls sent again": result.finished_calls_sent_again === 0,
      kills: result.kills === kills,
    };
    print(result, holds);
    for (const file of [given.json, given.write ? join(root, "bench", "results", "chaos.json") : undefined]) {
      if (file) writeFileSync(file, `${JSON.stringify(result, null, 2)}\n`);
    }
    const good = Object.values(holds).every(Boolean);
    if (good) rmSync(folder, { recursive: true });
    else console.log(`what was written is in ${folder}`);
    return good ? 0 : 1;
  } finally {
    await server.stop();
  }
}

function print(result, holds) {
  const { calls, kills, concurrency, requests, faults: met, phases } = result;
  const failed = Object.entries(met).map(([name, count]) => `${count} ${name}`);
  console.log(
    `${calls} calls, ${kills} kills, ${concurrency} at once: ${requests} requests, of which ${failed.join(", ")}`,
  );
  for (const [index, { cap, spent, capped, kills: here }] of phases.entries()) {
    const how = capped ? "ended by the cap" : "done";
    console.log(
      `  cap ${index + 1}: $${cap.toFixed(6)}, the server billed $${spent.toFixed(6)}, ${here} kills, ${how}`,
    );
  }
  const rows = {
    "paid responses lost": result.paid_responses_lost,
    "calls re-billed by one kill, at most": `${result.rebilled_most_by_one_kill} (${result.rebilled} in all; at most ${concurrency} a kill)`,
    "possibly billed after one kill, at most": result.possibly_billed_most_after_one_kill,
    "spend over cap": `$${result.spend_over_cap.toFixed(2)}`,
    "finished calls sent again": result.finished_calls_sent_again,
  };
  for (const [name, value] of Object.entries(rows)) console.log(`  ${holds[name] ? "✓" : "✗"} ${name}: ${value}`);
  for (const [name, good] of Object.entries(holds)) if (!good && !(name in rows)) console.log(`  ✗ ${name}`);
  console.log(`  ${result.seconds.toFixed(1)} s`);
}

if (given.worker) await work(JSON.parse(given.worker));
else process.exitCode = await main();
