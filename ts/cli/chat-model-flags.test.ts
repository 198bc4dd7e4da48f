/** Flags become guarded models; the journal command shows what they did. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Command } from "commander";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type Server, startServer } from "../../test/server/start.mjs";
import { buildProgram } from "../../test/shared";
import type { ChatModel, ChatRequest } from "../client";
import { packageRoot } from "../native/load";
import { addChatModelFlags, addPaidFlags, type OpenChatModelsOptions, openChatModels } from "./chat-model-flags";

let server: Server;
let folder: string;
let journal: string;

beforeAll(async () => {
  server = await startServer({ key: "the-right-key" });
});
afterAll(() => server.stop());
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "zephyr-flags-"));
  journal = join(folder, "calls.sqlite");
  process.env.TEST_KEY = "the-right-key";
});
afterEach(() => {
  delete process.env.TEST_KEY;
  rmSync(folder, { recursive: true, force: true });
});

/** A stand-in as the offline teacher is one. */
const standIn: ChatModel = {
  name: "offline",
  capabilities: { topLogprobs: 0, schema: true, system: true },
  complete: async ({ messages }) => ({
    text: `offline: ${messages.at(-1)!.content}`,
    finishReason: "stop",
    model: "offline",
    usage: { promptTokens: 1, completionTokens: 1 },
    cost: 0,
    journalled: false,
  }),
};
const offline = (name: string) => (name === "offline" ? standIn : undefined);

function open(args: string[], options: OpenChatModelsOptions = {}) {
  const command = new Command("test").exitOverride();
  addPaidFlags(addChatModelFlags(addChatModelFlags(command, "teacher"), "judge"));
  command.parse(args, { from: "user" });
  return openChatModels(command.opts(), ["teacher", "judge"], { offline, quiet: true, ...options });
}

const request = (content: string): ChatRequest => ({
  messages: [{ role: "user", content }],
  sampling: { maxTokens: 40, temperature: 0 },
  purpose: "rate",
});
const problemOf = (args: string[]) =>
  open(args).then(
    () => "",
    (error) => `${error.code} ${error.message} ${error.remedy}`,
  );

describe("models of flags", () => {
  it("a pool of servers, our own model and the offline one", async () => {
    const base = join(packageRoot(), "recipes", "demo", "base");
    const { models, close, concurrency } = await open([
      ...["--teacher", "teacher", "--teacher", base, "--teacher", "offline", "--teacher", "server:judge"],
      ...["--teacher-url", server.url, "--teacher-key-env", "TEST_KEY", "--judge", base, "--concurrency", "3"],
    ]);
    expect(models.teacher.map(({ name }) => name)).toEqual(["teacher", base, "offline", "judge"]);
    expect(models.judge.length).toBe(1);
    expect(concurrency).toBe(3);
    const answers = await Promise.all(models.teacher.map((model) => model.complete(request("say two."))));
    expect(answers[0]!.text).toMatch(/^Answer/);
    expect(answers[2]!.text).toBe("offline: say two.");
    expect(answers[3]!.model).toBe("judge-2026-01-01");
    await close();
  });

  it("refuses what does not fit together, and never prints a key", async () => {
    const pool = ["--teacher", "a", "--teacher", "b", "--teacher", "c"];
    const urls = ["--teacher-url", server.url, "--teacher-url", server.url];
    expect(await problemOf([...pool, ...urls])).toMatch(/ZA_CONFIG_INVALID .*2 of it for 3 models/);
    expect(await problemOf(["--teacher", "a", "--teacher-key-env", "NOT_SET"])).toMatch(/NOT_SET is not set/);
    const key = process.env.OPENAI_API_KEY;
    delete process.env.OPENAI_API_KEY;
    expect(await problemOf(["--teacher", "gpt-4o"])).toMatch(/there is no key to ask OpenAI/);
    if (key !== undefined) process.env.OPENAI_API_KEY = key;
    expect(await problemOf(["--teacher", "./nowhere"])).toMatch(/ZA_MODEL_NOT_FOUND/);
    expect(await problemOf(["--teacher", "a", "--teacher-url", "ftp://x"])).toMatch(/protocol ftp:/);
    expect(await problemOf(["--teacher", "teacher", "--teacher-url", server.url, "--max-dollars", "1"])).toMatch(
      /ZA_CLIENT_PRICE/,
    );
    expect(await problemOf(["--teacher", "a", "--teacher-url", server.url, "--batch"])).toMatch(
      /batches need a journal/,
    );
    writeFileSync(join(folder, "prices.json"), '{"teacher": {"input": -1, "output": 2}}');
    const bad = await problemOf(["--teacher", "offline", "--prices", join(folder, "prices.json")]);
    expect(bad).toContain("prices.json, teacher.input");
  });

  it("OpenAI's key is not sent to another server", async () => {
    process.env.OPENAI_API_KEY = "the-right-key";
    try {
      const { models, close } = await open(["--teacher", "teacher", "--teacher-url", server.url]);
      await expect(models.teacher[0]!.complete(request("?"))).rejects.toMatchObject({ code: "ZA_CLIENT_KEY" });
      await close();
    } finally {
      delete process.env.OPENAI_API_KEY;
    }
  });

  it("offline models need no price, no journal and no dollars", async () => {
    const { models, close, summary } = await open(["--teacher", "offline", "--max-dollars", "0"], { journal });
    expect((await models.teacher[0]!.complete(request("?"))).cost).toBe(0);
    expect(await summary()).toMatch(/rate +offline +1 +0 +1 +1 +\$0\.00/);
    expect(await summary()).not.toContain("journal");
    await close();
  });
});

describe("a dry run", () => {
  it("asks nothing, counts what would be asked, and leaves out what the journal holds", async () => {
    writeFileSync(join(folder, "prices.json"), '{"teacher": {"input": 10, "output": 30}}');
    const args = ["--teacher", "teacher", "--teacher-url", server.url, "--teacher-key-env", "TEST_KEY"];
    args.push("--prices", join(folder, "prices.json"), "--journal", journal);
    const paid = await open(args);
    await paid.models.teacher[0]!.complete(request("first"));
    await paid.close();
    const before = server.requests().length;
    const dry = await open([...args, "--dry-run"]);
    expect(dry.dryRun).toBe(true);
    const model = dry.models.teacher[0]!;
    expect((await model.complete(request("first"))).journalled).toBe(true);
    await model.complete(request("second"));
    await model.complete(request("second"));
    await model.complete(request("third"));
    const [line] = dry.estimate()!;
    expect(line).toMatchObject({ model: "teacher", calls: 2, journalled: 1, promptTokens: 4, completionTokens: 8 });
    expect(line!.dollars).toBeCloseTo((4 * 10 + 8 * 30) / 1e6, 12);
    expect(line!.worstDollars).toBeGreaterThan(line!.dollars!);
    expect(await dry.summary()).toMatch(/Nothing was asked/);
    await dry.close();
    expect(server.requests().length).toBe(before);
  });

  it("needs no key, neither OpenAI's nor one that is named", async () => {
    const { OPENAI_API_KEY } = process.env;
    delete process.env.OPENAI_API_KEY;
    try {
      for (const key of [[], ["--teacher-key-env", "NO_SUCH_KEY"]]) {
        const args = ["--teacher", "gpt-4o-mini", ...key];
        expect(await problemOf(args)).toMatch(/key|NO_SUCH_KEY/);
        const dry = await open([...args, "--dry-run"]);
        await dry.models.teacher[0]!.complete(request("first"));
        expect(dry.estimate()).toMatchObject([{ model: "gpt-4o-mini", calls: 1 }]);
        await dry.close();
      }
    } finally {
      if (OPENAI_API_KEY !== undefined) process.env.OPENAI_API_KEY = OPENAI_API_KEY;
    }
  });
});

describe("zephyr-align journal", () => {
  it("shows calls, spending and what could not be read, also while a run writes", async () => {
    const program = buildProgram();
    writeFileSync(join(folder, "prices.json"), '{"teacher": {"input": 10, "output": 30}}');
    const args = ["--teacher", "teacher", "--teacher-url", server.url, "--teacher-key-env", "TEST_KEY"];
    const { models, close } = await open([...args, "--prices", join(folder, "prices.json"), "--journal", journal]);
    const [model] = models.teacher;
    const first = await model!.complete(request("one"));
    await model!.complete({ ...request("two"), purpose: "judge mt-bench" });
    await first.reject!("there is no rating");
    const json = join(folder, "journal.json");
    const run = (...more: string[]) =>
      spawnSync(process.execPath, [program, "journal", journal, ...more], { encoding: "utf8" });
    const shown = run("--json", json);
    expect(shown.stderr).toBe("");
    expect(shown.stdout).toContain(`process ${process.pid}`);
    expect(shown.stdout).toMatch(/requests +2, 1 answered/);
    expect(shown.stdout).toMatch(/judge mt-bench +teacher +1 +0/);
    const written = JSON.parse(readFileSync(json, "utf8"));
    expect(written.total).toMatchObject({ done: 1, invalid: 1, possiblyBilled: 0 });
    expect(written.invalid).toMatchObject([
      { reason: "there is no rating", text: first.text, request: { messages: [{ content: "one" }] } },
    ]);
    const invalid = run("--invalid");
    expect(invalid.stdout).toContain("there is no rating");
    expect(invalid.stdout).toContain(first.text);
    await close();
    expect(run().stdout).not.toContain(`process ${process.pid}`);
    const foreign = spawnSync(process.execPath, [program, "journal", program], { encoding: "utf8" });
    expect(foreign.status).toBe(77);
    expect(foreign.stderr).toContain("ZA_JOURNAL_FOREIGN");
  });
});
