/** Training on data sets of the Hub, and one cache with Python. */
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { Mistral, mix, SftTrainer } from "../ts/index";
import { all, cacheDir, chats, hub, jsonl, log, open, program, scratch, serveHub } from "./hub/served";
import { pythonWith } from "./shared";

serveHub();

describe("training", () => {
  const base = fileURLToPath(new URL("../recipes/demo/base", import.meta.url));
  const lines = (path: string) => readFileSync(path, "utf8");
  const zephyr = (args: string[]) =>
    spawnSync(process.execPath, [program, ...args], {
      encoding: "utf8",
      env: { ...process.env, HF_ENDPOINT: hub, HF_HUB_CACHE: cacheDir, NO_COLOR: "1" },
    });
  const common = ["--model", base, "--max-steps", "3", "--max-length", "256", "--batch-size", "4"];

  it("by id and split from the command line: the same run as from a file of the same rows", async () => {
    const hubRun = join(scratch, "hub-run");
    const named = ["--data", "org/chats", "--split", "train_sft", "--eval-split", "test_sft"];
    const trained = zephyr(["sft", ...common, ...named, "--out", hubRun]);
    expect(trained.status, trained.stderr).toBe(0);
    expect(trained.stderr).toMatch(/downloading org\/chats\/data\/train_sft-00002-of-00003/);
    const write = (name: string, rows: unknown[]) => {
      const path = join(scratch, name);
      writeFileSync(path, rows.map((row) => JSON.stringify(row)).join("\n"));
      return path;
    };
    const files = [
      "--data",
      write("train.jsonl", [...chats, ...chats, ...chats]),
      "--eval-data",
      write("test.jsonl", chats),
    ];
    const fileRun = join(scratch, "file-run");
    expect(zephyr(["sft", ...common, ...files, "--out", fileRun]).status).toBe(0);
    expect(lines(join(hubRun, "metrics.jsonl"))).toBe(lines(join(fileRun, "metrics.jsonl")));
    expect(lines(join(hubRun, "metrics.jsonl"))).toMatch(/eval_loss/);

    const mask = zephyr(["inspect", "mask", "org/chats", "--split", "test_sft", "--model", base, "--rows", "1"]);
    expect(mask.stdout).toMatch(/hf:\/\/datasets\/org\/chats@[0-9a-f]{12}\/data\/test_sft.*:1/);
    const missing = zephyr(["sft", ...common, "--data", "org/chats", "--out", join(scratch, "none")]);
    expect(missing.status).not.toBe(0);
    expect(missing.stderr).toMatch(/ZA_DATA_SPLIT.*train_sft, test_sft/s);
    expect(existsSync(join(scratch, "none"))).toBe(false);
  });

  it("on a mix of the Hub and a file, stopped and gone on with: the bytes of the undisturbed run", async () => {
    const extra = join(scratch, "extra.jsonl.gz");
    writeFileSync(extra, gzipSync(jsonl(0, 40)));
    const run = async (outputDir: string, stopAt?: number) => {
      const controller = new AbortController();
      const trainer = new SftTrainer({
        model: await Mistral.fromPretrained(base),
        dataset: mix([{ data: open("org/chats", { split: "train_sft" }), weight: 2 }, { data: extra }], { seed: 5 }),
        maxSteps: 6,
        truncation: "keep-start",
        logSteps: 1,
        maxLength: 256,
        batchSize: 3,
        saveSteps: 1,
        outputDir,
        resume: existsSync(outputDir),
        signal: controller.signal,
        samples: 0,
      });
      const watching = (async () => {
        for await (const event of trainer) if (event.type === "step" && event.step === stopAt) controller.abort();
      })().catch(() => {});
      const fitted = await trainer.fit().then(
        (result) => result.steps,
        (error) => error.code,
      );
      await watching;
      return fitted;
    };
    expect(await run(join(scratch, "whole"))).toBe(6);
    expect(await run(join(scratch, "stopped"), 2)).toBe("ZA_ABORTED");
    expect(await run(join(scratch, "stopped"))).toBe(6);
    const weights = (name: string) => readFileSync(join(scratch, name, "model", "model.safetensors"));
    expect(weights("stopped").equals(weights("whole"))).toBe(true);
    expect(lines(join(scratch, "stopped", "metrics.jsonl"))).toBe(lines(join(scratch, "whole", "metrics.jsonl")));
  });
});

const python = pythonWith("huggingface_hub");
describe.skipIf(!python)("beside huggingface_hub", () => {
  const inPython = (code: string) =>
    execFileSync(python!, ["-c", code], {
      encoding: "utf8",
      env: {
        ...process.env,
        HF_ENDPOINT: hub,
        HF_HUB_CACHE: cacheDir,
        HF_HUB_DISABLE_PROGRESS_BARS: "1",
        HF_HUB_DISABLE_TELEMETRY: "1",
        NO_PROXY: "*",
      },
    }).trim();

  it("Python reads what we have downloaded, offline", async () => {
    expect(await open("org/chats", { split: "train_sft" }).length()).toBe(21);
    const path = inPython(
      "from huggingface_hub import snapshot_download; print(snapshot_download('org/chats', repo_type='dataset', local_files_only=True, allow_patterns=['README.md', 'data/train_sft*']))",
    );
    expect(readdirSync(join(path, "data"))).toHaveLength(3);
    const requests = (await log()).length;
    inPython(
      "from huggingface_hub import hf_hub_download; print(hf_hub_download('org/chats', 'README.md', repo_type='dataset', local_files_only=True))",
    );
    expect((await log()).length).toBe(requests);
    // Online it finds our blobs, and downloads the others only.
    inPython("from huggingface_hub import snapshot_download; snapshot_download('org/chats', repo_type='dataset')");
    const downloaded = (await log()).filter(({ host }) => host === "large").map(({ url }) => url);
    expect(downloaded.filter((url) => url.includes("train_sft")).length).toBe(3);
  });

  it("we read what Python has downloaded, offline and without downloading it again", async () => {
    inPython("from huggingface_hub import snapshot_download; snapshot_download('org/chats', repo_type='dataset')");
    const requests = (await log()).length;
    expect(await open("org/chats", { split: "train_sft", hub: { offline: true } }).length()).toBe(21);
    expect((await log()).length).toBe(requests);
    expect(await all(open("org/chats", { split: "test_sft" }))).toEqual(chats);
    expect((await log()).slice(requests).filter(({ url }) => url.includes("/resolve/"))).toEqual([]);
  });
});
