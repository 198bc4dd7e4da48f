/** The program as a user runs it: built, in a process of its own. */
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { buildProgram, runProgram as cli, present, smollm2 } from "./shared";

const root = fileURLToPath(new URL("..", import.meta.url));
const base = join(root, "recipes", "demo", "base");
const folder = mkdtempSync(join(tmpdir(), "zephyr-cli-"));
const at = (name: string) => join(folder, name);

beforeAll(() => {
  buildProgram();
  const rows = ["seven", "nine", "ten", "two"].map((word) => ({
    messages: [
      { role: "user", content: `say ${word}.` },
      { role: "assistant", content: `${word}.` },
    ],
  }));
  writeFileSync(at("chats.jsonl"), rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
  const pairs = rows.map(({ messages: [user, answer] }) => ({
    prompt: [user],
    chosen: [answer],
    rejected: [{ role: "assistant", content: "the hat is red." }],
  }));
  writeFileSync(at("pairs.jsonl"), pairs.map((row) => `${JSON.stringify(row)}\n`).join(""));
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("zephyr-align", () => {
  it("fine-tunes, aligns, evaluates and chats, each from the last one's result", () => {
    const sft = cli(["sft", "--model", base, "--data", at("chats.jsonl"), "--max-steps", "3", "--out", at("sft")]);
    expect(sft.status, sft.stderr).toBe(0);
    expect(readFileSync(join(at("sft"), "report.html"), "utf8")).toContain("dSFT");
    expect(
      readFileSync(join(at("sft"), "metrics.jsonl"), "utf8")
        .trim()
        .split("\n").length,
    ).toBeGreaterThan(0);
    const model = join(at("sft"), "model");
    const dpo = cli(["dpo", "--model", model, "--data", at("pairs.jsonl"), "--max-steps", "2", "--out", at("dpo")]);
    expect(dpo.status, dpo.stderr).toBe(0);
    const first = JSON.parse(readFileSync(join(at("dpo"), "metrics.jsonl"), "utf8").split("\n")[0]!);
    expect(first.loss).toBeCloseTo(Math.LN2, 5);
    expect(Math.abs(first["rewards/chosen"])).toBeLessThan(1e-5);
    const chat = cli(["chat", "--model", join(at("dpo"), "model"), "--once", "say nine.", "--max-tokens", "8"]);
    expect(chat.status, chat.stderr).toBe(0);
    const evaluated = cli(["eval", "--model", model, "--data", at("chats.jsonl")]);
    expect(evaluated.status, evaluated.stderr).toBe(0);
    expect(evaluated.stdout).toMatch(/loss/);
  });

  it("trains with the other preference methods", () => {
    const thumbs = at("thumbs.jsonl");
    const rows = readFileSync(at("pairs.jsonl"), "utf8").trim().split("\n");
    const answers = rows.flatMap((line) => {
      const { prompt, chosen, rejected } = JSON.parse(line);
      return [
        { prompt, completion: chosen, label: true },
        { prompt, completion: rejected, label: false },
      ];
    });
    writeFileSync(thumbs, answers.map((row) => `${JSON.stringify(row)}\n`).join(""));
    const schedule = ["--lr-scheduler", "cosine_with_min_lr", "--min-lr-rate", "0.1", "--optimizer", "adamw-8bit"];
    const runs = [
      ["kto", thumbs, "--ref", base, ...schedule],
      ["orpo", at("pairs.jsonl"), "--beta", "0.2"],
      ["cpo", at("pairs.jsonl"), "--loss-type", "hinge", "--cpo-alpha", "0.5"],
      ["simpo", at("pairs.jsonl"), "--simpo-gamma", "1", "--alpha", "0.1"],
    ];
    for (const [method = "", data = "", ...flags] of runs) {
      const args = [method, "--model", base, "--data", data, "--max-steps", "2", "--out", at(method), ...flags];
      const { status, stdout, stderr } = cli(args);
      expect(status, stderr).toBe(0);
      expect(stdout.toLowerCase()).toContain(`${method} done: 2 steps`);
      expect(stderr).toContain(method === "kto" ? "8 answers" : "4 pairs");
      const config = JSON.parse(readFileSync(join(at(method), "config.json"), "utf8"));
      expect(config.method).toBe(method);
    }
    const apart = cli(["kto", "--model", base, "--data", at("pairs.jsonl"), "--max-steps", "1", "--out", at("apart")]);
    expect(apart.stderr).toContain("two single answers: chosen is wanted, rejected is not.");
    expect(apart.stderr).toContain("8 answers of 4 pairs");
    const unpaired = cli(["orpo", "--model", base, "--data", thumbs, "--out", at("unpaired")]);
    expect(unpaired.status).toBe(77);
    expect(unpaired.stderr).toContain("zephyr-align kto");
    const recipe = cli(["simpo", "--model", base, "--data", at("pairs.jsonl"), "--recipe", "zephyr"]);
    expect(recipe.status).toBe(77);
    expect(recipe.stderr).toContain("no SimPO stage");
  });

  describe("where the reader of its output leaves", () => {
    /** The exit code of the program itself. */
    const code = (args: string, piped = "| true") => {
      const program = `"${process.execPath}" "${join(root, "dist", "cli.js")}"`;
      const command = `cd "${folder}" && { ${program} ${args}; echo $? > code; } ${piped}`;
      spawnSync("/bin/sh", ["-c", command], { encoding: "utf8" });
      return Number(readFileSync(at("code"), "utf8"));
    };

    it("writes the file of --json", () => {
      expect(code(`inspect mask chats.jsonl --model "${base}" --json left.json`)).toBe(0);
      expect(JSON.parse(readFileSync(at("left.json"), "utf8")).totals.rows).toBe(4);
    });

    it("trains to the end, and ends by what became of that", () => {
      const sft = `sft --model "${base}" --data chats.jsonl --log-steps 1`;
      expect(code(`${sft} --max-steps 3 --out left`, "2>&1 | head -1")).toBe(0);
      expect(readdirSync(at("left"))).toEqual(expect.arrayContaining(["model", "report.html"]));
      expect(code(`${sft} --max-steps 3 --out left`, "2>&1 | true")).toBe(77);
    });

    it("makes the pairs too that come behind what it prints of the ratings", () => {
      const pool = "--pool offline offline:poor --rater offline --answers 2";
      writeFileSync(at("prompts.jsonl"), ["a river", "a city"].map((of) => `{"prompt":"Describe ${of}."}\n`).join(""));
      expect(code(`rate --prompts prompts.jsonl ${pool} --out left-rated`)).toBe(0);
      expect(readdirSync(at("left-rated"))).toEqual(expect.arrayContaining(["raw.jsonl", "train_prefs.jsonl"]));
    });

    it("ends quietly what only prints", async () => {
      const child = spawn(process.execPath, [join(root, "dist", "cli.js"), "chat", "--model", base]);
      const gone = new Promise((resolve) => child.on("exit", resolve));
      child.stdin.write("say nine.\n");
      await new Promise((resolve) => child.stdout.once("data", resolve));
      child.stdout.destroy();
      // More lines could come: only that nobody reads the answers ends it.
      child.stdin.write("say ten.\n");
      expect(await gone).toBe(0);
    });
  });

  it("shows the mask of a row", () => {
    const { status, stdout, stderr } = cli(["inspect", "mask", at("chats.jsonl"), "--model", base]);
    expect(status, stderr).toBe(0);
    expect(stdout).toContain("seven");
  });

  it("says where a bad row is, and leaves with the code for data", () => {
    writeFileSync(
      at("bad.jsonl"),
      '{"messages": [{"role": "user", "content": "hi"}, {"role": "user", "content": "hi"}, {"role": "assistant", "content": "hi"}]}\n',
    );
    const { status, stderr } = cli(["sft", "--model", base, "--data", at("bad.jsonl"), "--out", at("bad")]);
    expect(status).toBe(77);
    expect(stderr).toContain("bad.jsonl:1");
    expect(stderr).toContain("messages[1].role");
  });

  it("refuses options that mean nothing before any work", () => {
    const args = [
      "dpo",
      "--model",
      base,
      "--data",
      at("pairs.jsonl"),
      "--loss-type",
      "hinge",
      "--label-smoothing",
      "0.1",
    ];
    const { status, stderr } = cli([...args, "--out", at("refused")]);
    expect(status).toBe(77);
    expect(stderr).toContain("--label-smoothing");
  });

  it("tells the remedies of the library in its own flags", () => {
    const told = (...args: string[]) => cli([...args, "--model", base, "--data", at("pairs.jsonl")]).stderr;
    const run = ["orpo", "--max-steps", "1", "--out", at("again")];
    told(...run);
    expect(told(...run)).toContain("Choose another --out, or give --resume to go on, or --overwrite to replace");
    expect(told("orpo", "--dtype", "bfloat16", "--out", at("frozen"))).toContain("(--lora-rank 16)");
    expect(told("cpo", "--lora-rank", "0", "--out", at("rank"))).toContain("--lora-rank: too small");
    expect(told("eval", "--max-length", "2")).toContain("Raise --max-length, set --on-bad-row skip");
    const odd = told("dpo", "--ref-batch-size", "3", "--no-precompute-ref-logps", "--out", at("odd"));
    expect(odd).toContain("it belongs to --precompute-ref-logps, which is off");
  });

  it("runs the demo's road", () => {
    const { status, stdout, stderr } = cli(["demo", "--quick", "--out", at("demo"), "--json", at("demo.json")]);
    expect(status, stderr).toBe(0);
    for (const name of ["base", "dDPO without dSFT", "dSFT", "dSFT + dDPO"]) expect(stdout).toContain(name);
    const { seeds, claims } = JSON.parse(readFileSync(at("demo.json"), "utf8"));
    expect(seeds[0].scores.dSFT.score.n).toBe(32);
    expect(claims).toHaveLength(3);
    expect(readFileSync(join(at("demo"), "report.html"), "utf8")).toContain("By category");
  });

  it("serves a live page while it trains, and writes TensorBoard files", async () => {
    const args = ["dpo", "--model", base, "--data", at("pairs.jsonl"), "--max-steps", "100000", "--out", at("watched")];
    const child = spawn(process.execPath, [
      join(root, "dist", "cli.js"),
      ...args,
      "--watch",
      "0",
      "--log-to",
      "tensorboard",
    ]);
    let said = "";
    const url = await new Promise<string>((resolve, reject) => {
      child.stderr.on("data", (part) => {
        said += part;
        const found = /live page: (http:\S+)/.exec(said);
        if (found) resolve(found[1]!);
      });
      child.on("exit", () => reject(new Error(said)));
    });
    expect(said).toContain("100000 steps");
    expect(await fetch(url).then((response) => response.text())).toContain("EventSource");
    // Event files begin with the first step.
    await vi.waitFor(() => expect(existsSync(join(at("watched"), "tensorboard"))).toBe(true), 20_000);
    const gone = new Promise((resolve) => child.on("exit", resolve));
    child.kill("SIGINT");
    await gone;
    expect(readdirSync(join(at("watched"), "tensorboard"))).toHaveLength(1);
  });

  it("checks the machine", () => {
    const { status, stdout } = cli(["doctor"]);
    expect(status).toBe(0);
    expect(stdout).toMatch(/addon/);
  });

  it.runIf(present(smollm2))("talks with a real model", () => {
    const question = "What is the capital of France?";
    const { status, stdout, stderr } = cli(["chat", "--model", smollm2, "--temperature", "0", "--once", question]);
    expect(status, stderr).toBe(0);
    expect(stdout).toContain("Paris");
  });
});
