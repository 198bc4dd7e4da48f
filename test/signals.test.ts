/** Ctrl-C and SIGTERM in every phase of a run: saved, exit code 75, soon; resumed, the run is the undisturbed one. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { buildProgram, pythonWith, smallRows } from "./shared";

const base = fileURLToPath(new URL("../recipes/demo/base", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "zephyr-signals-"));
const at = (name: string) => join(folder, name);
const python = pythonWith("pty");
let program: string;

const jsonl = (name: string, rows: unknown[]) =>
  writeFileSync(at(name), rows.map((row) => `${JSON.stringify(row)}\n`).join(""));

beforeAll(() => {
  program = buildProgram();
  jsonl("chats.jsonl", smallRows(64).chats);
  jsonl("many.jsonl", Array.from({ length: 1500 }, () => smallRows(64).chats).flat());
  jsonl("held.jsonl", Array.from({ length: 10 }, () => smallRows(64).chats).flat());
  jsonl("big.jsonl", Array.from({ length: 150 }, () => smallRows(64).chats).flat());
  jsonl("pairs.jsonl", Array.from({ length: 150 }, () => smallRows(64).pairs).flat());
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Ended {
  code: number | null;
  stderr: string;
  /** From the signal to the end. */
  seconds: number;
}

/** Runs the program, and sends the signals `delay` ms after its output matched. */
function stopped(args: string[], when: RegExp, signals: NodeJS.Signals[] = ["SIGTERM"], delay = 0): Promise<Ended> {
  const child = start(args);
  return new Promise((resolve, reject) => {
    let stderr = "";
    let sent: number | undefined;
    child.stderr!.on("data", (text) => {
      stderr += text;
      if (sent !== undefined || !when.test(stderr)) return;
      sent = performance.now() + delay;
      signals.forEach((signal, index) => {
        setTimeout(() => child.kill(signal), delay + 150 * index);
      });
    });
    child.on("error", reject);
    child.on("exit", (code) => {
      if (sent === undefined) reject(new Error(`it ended before the signal: ${stderr}`));
      else resolve({ code, stderr, seconds: (performance.now() - sent) / 1000 });
    });
  });
}

function start(args: string[]): ChildProcess {
  const stdio = ["ignore", "ignore", "pipe"] as const;
  return spawn(process.execPath, [program, ...args, "--model", base], {
    stdio: [...stdio],
    env: { ...process.env, NO_COLOR: "1" },
  });
}

function finish(args: string[]) {
  const done = spawnSync(process.execPath, [program, ...args, "--model", base], { encoding: "utf8" });
  expect(done.status, done.stderr).toBe(0);
  return done;
}

/** What a finished run leaves. */
function results(out: string): Record<string, string> {
  const weights = createHash("sha256")
    .update(readFileSync(join(out, "model", "model.safetensors")))
    .digest("hex");
  return { weights, metrics: readFileSync(join(out, "metrics.jsonl"), "utf8") };
}

const checkpoints = (out: string) =>
  existsSync(join(out, "checkpoints")) ? readdirSync(join(out, "checkpoints")) : [];

describe("a run that is told to stop", () => {
  const sft = ["sft", "--data", at("chats.jsonl"), "--batch-size", "1", "--log-steps", "1", "--threads", "2"];

  it("while tokenising", async () => {
    const args = ["sft", "--data", at("many.jsonl"), "--max-steps", "2", "--out", at("tokenising")];
    const { code, stderr, seconds } = await stopped(args, /parameters/);
    expect(code, stderr).toBe(75);
    expect(seconds).toBeLessThan(30);
    expect(stderr, "the run had not begun").not.toMatch(/sft: \d+ rows/);
    expect(stderr).toContain("--resume begins there again");
  });

  it("while computing the reference's log-probs", async () => {
    const args = ["dpo", "--data", at("pairs.jsonl"), "--max-steps", "2", "--log-steps", "1", "--out", at("reference")];
    const { code, stderr, seconds } = await stopped(args, /dpo: \d+ pairs/, ["SIGINT"], 700);
    expect(code, stderr).toBe(75);
    expect(seconds).toBeLessThan(30);
    expect(stderr, "no step was made").not.toMatch(/dpo 1\/2/);
  });

  it("in the first step", async () => {
    const args = ["sft", "--data", at("big.jsonl"), "--batch-size", "1", "--max-steps", "2"];
    args.push("--gradient-accumulation", "9600", "--log-steps", "1", "--out", at("first"));
    const { code, stderr, seconds } = await stopped(args, /sft: \d+ rows/, ["SIGTERM"], 700);
    expect(code, stderr).toBe(75);
    expect(seconds).toBeLessThan(30);
    expect(stderr, "the step was not over").not.toMatch(/sft 1\/2/);
  });

  it("in the middle of accumulating: what was accumulated is forgotten, the step before is saved", async () => {
    const args = [...sft, "--max-steps", "3", "--gradient-accumulation", "64"];
    finish([...args, "--out", at("whole")]);
    const { code, stderr, seconds } = await stopped([...args, "--out", at("middle")], /sft 1\/3/, ["SIGTERM"], 60);
    expect(code, stderr).toBe(75);
    expect(seconds).toBeLessThan(30);
    expect(stderr).toContain("step-1");
    expect(checkpoints(at("middle"))).toEqual(["step-1"]);
    finish([...args, "--out", at("middle"), "--resume"]);
    expect(results(at("middle"))).toEqual(results(at("whole")));
  });

  it("within a large micro-batch: before its next layer", async () => {
    const args = ["sft", "--data", at("big.jsonl"), "--batch-size", "3000", "--max-steps", "1"];
    const { code, stderr, seconds } = await stopped(
      [...args, "--out", at("layers")],
      /sft: \d+ rows/,
      ["SIGTERM"],
      700,
    );
    expect(code, stderr).toBe(75);
    expect(seconds).toBeLessThan(30);
    expect(stderr, "the step was not over").not.toMatch(/sft 1\/1/);
  });

  it("while evaluating: the evaluation is made again, and logged once", async () => {
    const args = [...sft, "--max-steps", "3", "--eval-steps", "1", "--eval-data", at("held.jsonl")];
    finish([...args, "--out", at("evaluated")]);
    const { code, stderr, seconds } = await stopped([...args, "--out", at("evaluating")], /sft 1\/3/, ["SIGINT"], 60);
    expect(code, stderr).toBe(75);
    expect(seconds).toBeLessThan(30);
    expect(stderr, "it was still evaluating").not.toContain("eval at step 1");
    expect(checkpoints(at("evaluating"))).toEqual(["step-1"]);
    finish([...args, "--out", at("evaluating"), "--resume"]);
    expect(results(at("evaluating"))).toEqual(results(at("evaluated")));
  });

  it("while saving", async () => {
    const args = [...sft, "--max-steps", "400", "--save-steps", "1"];
    const { code, stderr, seconds } = await stopped([...args, "--out", at("saving")], /saved .*step-3/);
    expect(code, stderr).toBe(75);
    expect(seconds).toBeLessThan(30);
    const names = checkpoints(at("saving"));
    expect(names).toHaveLength(2);
    expect(names.every((name) => /^step-\d+$/.test(name))).toBe(true);
  });

  it.each([0, 15, 40, 80, 160])(
    "%i ms after the last step, while the model is saved: whole, or stopped and resumed",
    async (delay) => {
      const args = [...sft, "--max-steps", "3"];
      if (!existsSync(at("finished"))) finish([...args, "--out", at("finished")]);
      const out = at(`ending-${delay}`);
      const { code, stderr, seconds } = await stopped([...args, "--out", out], /sft 3\/3/, ["SIGTERM"], delay);
      expect([0, 75], stderr).toContain(code);
      expect(seconds).toBeLessThan(30);
      if (code === 75) finish([...args, "--out", out, "--resume"]);
      expect(results(out)).toEqual(results(at("finished")));
      expect(readdirSync(join(out, "model")).filter((name) => name.startsWith("."))).toEqual([]);
    },
  );

  it("not by SIGHUP under nohup", async () => {
    const args = [program, ...sft, "--max-steps", "40", "--model", base, "--out", at("nohup")];
    const child = spawn("nohup", [process.execPath, ...args], { stdio: ["ignore", "ignore", "pipe"] });
    child.stderr.on("data", (text) => /sft 2\//.test(text) && child.kill("SIGHUP"));
    expect(await new Promise((resolve) => child.on("exit", resolve))).toBe(0);
  });

  it.skipIf(!python)("by a terminal that closes: saved", async () => {
    const pty = "import pty, sys; pty.spawn(sys.argv[1:])";
    const args = [program, ...sft, "--max-steps", "4000", "--model", base, "--out", at("hung")];
    const terminal = spawn(python!, ["-c", pty, process.execPath, ...args], { stdio: ["ignore", "pipe", "ignore"] });
    terminal.stdout.on("data", (text) => /\b\d+\/4000/.test(text) && terminal.kill("SIGKILL"));
    expect(await new Promise((resolve) => terminal.on("exit", (_, signal) => resolve(signal)))).toBe("SIGKILL");
    await vi.waitUntil(() => checkpoints(at("hung")).some((name) => /^step-\d+$/.test(name)), { timeout: 30_000 });
  });

  it("not by a reader of its progress that leaves", async () => {
    const child = start([...sft, "--max-steps", "40", "--out", at("unread")]);
    child.stderr!.once("data", () => child.stderr!.destroy());
    expect(await new Promise((resolve) => child.on("exit", resolve))).toBe(0);
    expect(existsSync(join(at("unread"), "model", "model.safetensors"))).toBe(true);
  });

  it.each([
    ["SIGINT", 130],
    ["SIGTERM", 143],
  ] as const)("twice by %s: at once", async (signal, expected) => {
    const args = ["sft", "--data", at("big.jsonl"), "--batch-size", "9600", "--max-steps", "1"];
    const slow = [...args, "--out", at(`twice-${signal}`)];
    const { code, stderr, seconds } = await stopped(slow, /sft: \d+ rows/, [signal, signal], 700);
    expect(code, stderr).toBe(expected);
    expect(seconds).toBeLessThan(5);
  });
});

it("other ends have their exit codes too", () => {
  const args = ["sft", "--data", at("chats.jsonl"), "--max-steps", "2", "--model", base, "--out", at("codes")];
  const code = (...more: string[]) => {
    const { status, stderr } = spawnSync(process.execPath, [program, ...args, ...more], { encoding: "utf8" });
    return { status, stderr };
  };
  expect(code("--step-timeout-seconds", "0.0001")).toMatchObject({ status: 76 });
  expect(code("--save-steps", "1", "--overwrite")).toMatchObject({ status: 0 });
  expect(code(), "a folder that holds a run").toMatchObject({ status: 77 });
  const other = code("--resume", "--seed", "7");
  expect(other.status).toBe(77);
  expect(other.stderr).toMatch(/config\.seed \(was 42, is 7\)/);
  expect(code("--resume-force", "--seed", "7")).toMatchObject({ status: 0 });
  expect(code("--no-such-flag")).toMatchObject({ status: 77 });
});

it("a second process in the folder is refused with the holder's name; a killed one holds nothing", async () => {
  const args = ["sft", "--data", at("chats.jsonl"), "--batch-size", "1", "--out", at("locked"), "--max-steps"];
  const first = start([...args, "100000"]);
  await new Promise<void>((resolve) => {
    let text = "";
    first.stderr!.on("data", (piece) => {
      text += piece;
      if (/sft 1\//.test(text)) resolve();
    });
  });
  for (const how of ["--resume", "--overwrite"]) {
    const second = spawnSync(process.execPath, [program, ...args, "2", "--model", base, how], { encoding: "utf8" });
    // Tried again it may go well: the first one ends some time.
    expect(second.status).toBe(76);
    expect(second.stderr).toContain("ZA_FOLDER_LOCKED");
    expect(second.stderr).toContain(`process ${first.pid}`);
  }
  const gone = new Promise((resolve) => first.on("exit", resolve));
  first.kill("SIGKILL");
  await gone;
  finish([...args, "2", "--overwrite"]);
});
