/** The road from a teacher to an aligned model, through the built program in processes of its own. */
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readJudgeResults } from "../ts/judge/result-file";
import { startServer } from "./server/start.mjs";
import { buildProgram, readJson, readJsonl, runProgram } from "./shared";

const root = fileURLToPath(new URL("..", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "zephyr-distil-"));
const at = (...names: string[]) => join(folder, ...names);
const env = { ...process.env, NO_COLOR: "1" };
const small = ["--rounds", "2", "--no-truecase", "--min-answer-words", "1"];

const cli = (...args: string[]) => runProgram(args);

beforeAll(() => {
  buildProgram();
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("distil → sft → rate → dpo → eval mt-bench", () => {
  it("teaches the demo's base model through a server, by the example script", { timeout: 900_000 }, async () => {
    const server = await startServer({
      answer: join(root, "test", "server", "offline-answer.mjs"),
      rates: { 429: 0.02, drop: 0.01 },
      seed: 3,
    });
    const script = join(root, "examples", "distil-to-eval.mjs");
    const run = await new Promise<{ status: number | null; stdout: string; stderr: string }>((resolve) => {
      const child = spawn(process.execPath, [script, at("road"), "400", server.url], { env });
      const [out, error]: string[][] = [[], []];
      child.stdout.on("data", (text) => out!.push(String(text)));
      child.stderr.on("data", (text) => error!.push(String(text)));
      child.on("exit", (status) => resolve({ status, stdout: out!.join(""), stderr: error!.join("") }));
    });
    const billed = server.billed();
    await server.stop();
    expect(run.status, run.stderr).toBe(0);
    expect(run.stdout).toMatch(/conversations {3}400 \(\d+ openings dropped\)\ndSFT {12}held-out loss [01]\.\d+/);
    const distil = readJson<{ report: { conversations: number }; ledger: { total: { done: number } } }>(
      at("road", "distil.json"),
    );
    expect(distil.report.conversations).toBe(400);
    const rated = readJson<{ rating: { models: Record<string, { overall: number }> } }>(at("road", "rate.json"));
    const { offline, ...flawed } = rated.rating.models;
    expect(Object.keys(flawed)).toHaveLength(4);
    for (const { overall } of Object.values(flawed)) expect(overall).toBeLessThan(offline!.overall);
    const dpo = readJson<{ eval_metrics: Record<string, number> }>(at("road", "dpo.json"));
    expect(dpo.eval_metrics["eval_rewards/accuracies"]).toBeGreaterThan(0.7);
    // Judged blind on tasks that nobody was asked.
    const [base, sft, aligned] = (await readJudgeResults(at("road", "mt-bench.json"))).map(
      ({ figures }) => figures[0]!.value!,
    );
    console.log(`judged: base ${base!.toFixed(2)}, dSFT ${sft!.toFixed(2)}, dDPO ${aligned!.toFixed(2)} of 10`);
    expect(sft).toBeGreaterThan(base! + 1);
    expect(aligned).toBeGreaterThan(base! + 1);
    expect(readFileSync(at("road", "report.html"), "utf8")).toContain("<svg");
    // Billed twice were only those whose answers were lost on the way, if at all.
    const keys = new Map<string, number>();
    for (const { key, fault } of billed) if (!fault) keys.set(key, (keys.get(key) ?? 0) + 1);
    expect([...keys.values()].filter((times) => times > 1)).toEqual([]);
    expect(distil.ledger.total.done).toBeGreaterThan(400);
  });
});

describe("the commands", () => {
  it("go on after a kill and end with the same rows", async () => {
    const args = ["distil", "--teacher", "offline", "--limit", "150", ...small];
    expect(cli(...args, "--out", at("whole"), "--quiet").status).toBe(0);
    for (let kill = 0; kill < 3; kill++) {
      const child = spawn(process.execPath, [join(root, "dist", "cli.js"), ...args, "--out", at("killed")], { env });
      await new Promise<void>((resolve) => {
        child.stderr.on("data", () => child.kill("SIGKILL"));
        child.on("exit", () => resolve());
      });
    }
    const { status, stdout, stderr } = cli(...args, "--out", at("killed"));
    expect(status, stderr).toBe(0);
    expect(stdout).toContain("150 conversations");
    for (const name of ["train_sft", "test_sft", "train_gen", "test_gen", "origins"]) {
      expect(readFileSync(at("killed", `${name}.jsonl`)), name).toEqual(readFileSync(at("whole", `${name}.jsonl`)));
    }
  });

  it("stop at a signal with the code for it, and say nothing is lost by going on", async () => {
    const args = ["distil", "--teacher", "offline", "--limit", "5000", ...small, "--out", at("stopped")];
    const child = spawn(process.execPath, [join(root, "dist", "cli.js"), ...args], { env });
    const code = await new Promise((resolve) => {
      child.stderr.once("data", () => child.kill("SIGINT"));
      child.on("exit", resolve);
    });
    expect(code).toBe(75);
    const made = readJson<{ conversations: number }>(at("stopped", "report.json")).conversations;
    expect(made).toBeGreaterThan(100);
    expect(readJsonl(at("stopped", "origins.jsonl")).length).toBe(made);
  });

  it("rate and binarise: raw rows, pairs, reports", () => {
    const prompts = ["--prompts", at("whole", "test_gen.jsonl"), "--limit", "12"];
    const pool = ["--pool", "offline", "offline:poor", "offline:careless", "--rater", "offline", "--answers", "3"];
    const rated = cli("rate", ...prompts, ...pool, "--out", at("rated"), "--raw-only", "--json", at("rate.json"));
    expect(rated.status, rated.stderr).toBe(0);
    expect(rated.stdout).toMatch(/12 prompts rated[\s\S]*offline:poor/);
    expect(readJsonl(at("rated", "raw.jsonl"))).toHaveLength(12);
    expect(readJson<{ pairs?: unknown }>(at("rate.json")).pairs).toBeUndefined();
    const again = cli("rate", ...prompts, ...pool, "--out", at("rated"), "--raw-only");
    expect(again.stdout).toContain("12 were rated before");

    writeFileSync(
      at("keep-out.txt"),
      `${readJsonl<{ instruction: string }>(at("rated", "raw.jsonl"))[0]!.instruction}\n`,
    );
    const pairs = cli(
      "binarise",
      "--data",
      at("rated", "raw.jsonl"),
      "--preset",
      "h4-current",
      "--keep-out",
      at("keep-out.txt"),
      "--out",
      at("pairs"),
      "--json",
      at("pairs.json"),
    );
    expect(pairs.status, pairs.stderr).toBe(0);
    const { report, settings } = readJson<{
      report: { rows: number; dropped: { overlap: { count: number } } };
      settings: object;
    }>(at("pairs.json"));
    expect(report.rows).toBe(12);
    expect(report.dropped.overlap.count).toBeGreaterThanOrEqual(1);
    expect(settings).toMatchObject({ score: "overall", ties: "keep" });
    expect(pairs.stdout).toMatch(/pairs of 12 rated prompts[\s\S]*overlap/);
  });

  it("refuse what they cannot use, with the code for it", () => {
    const refused = (...args: string[]) => {
      const { status, stderr } = cli(...args);
      expect(status, stderr).toBe(77);
      return stderr;
    };
    expect(refused("distil", "--teacher", "nobody", "--out", at("x"))).toContain(
      "nobody is no file here, and there is no key",
    );
    expect(refused("distil", "--teacher", "offline", "--sectors", "moon=1", "--out", at("x"))).toContain(
      "world=1,writing=1,material=1",
    );
    expect(refused("distil", "--teacher", "offline", "--rounds", "4-2", "--out", at("x"))).toContain("2-4");
    const other = refused(
      "distil",
      "--teacher",
      "offline",
      "--limit",
      "150",
      "--seed",
      "7",
      ...small,
      "--out",
      at("whole"),
    );
    expect(other).toContain("seed (was 42, is 7)");
    expect(refused("binarise", "--data", at("whole", "train_sft.jsonl"), "--out", at("x"))).toContain(
      "{instruction, completions}",
    );
    expect(
      refused("rate", "--prompts", at("none.jsonl"), "--pool", "offline", "--rater", "offline", "--out", at("x")),
    ).toContain("none.jsonl");
    expect(
      refused("binarise", "--data", at("rated", "raw.jsonl"), "--ties", "keep", "--min-margin", "1", "--out", at("x")),
    ).toContain("equal scores have no margin");
  });
});
