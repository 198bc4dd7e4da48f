import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { RunFolder } from "./run-folder";

const fresh = () => join(mkdtempSync(join(tmpdir(), "zephyr-run-")), "run");
const read = (path: string) => readFileSync(path, "utf8");

describe("RunFolder", () => {
  it("writes config, metrics, report and model, and nothing else", async () => {
    const path = fresh();
    const folder = await RunFolder.open(path, { seed: 1 });
    await folder.appendMetrics({ step: 1, loss: 0.5 });
    await folder.appendMetrics({ step: 2, loss: Number.NaN });
    await folder.syncMetrics();
    await folder.appendMetrics({ step: 3, loss: 0.25 });
    await folder.appendSpeed({ step: 3, tokens_per_second: 9, flops_per_second: 2e9, seconds: 1 });
    await folder.syncMetrics();
    await folder.writeReport("<!doctype html>");
    await folder.saveModel(async (target) => writeFile(join(target, "weights"), "one"));
    await folder.saveModel(async (target) => writeFile(join(target, "weights"), "two"));
    await folder.saveFolder("checkpoints/step-3", async (target) => writeFile(join(target, "state"), "x"));
    await folder.close();
    const names = [".lock", "checkpoints", "config.json", "metrics.jsonl", "model", "report.html", "speed.jsonl"];
    expect(readdirSync(path).sort()).toEqual(names);
    expect(JSON.parse(read(join(path, "config.json")))).toEqual({ seed: 1 });
    expect(await RunFolder.readConfig(path)).toEqual({ seed: 1 });
    expect(read(folder.metricsPath)).toBe('{"step":1,"loss":0.5}\n{"step":2,"loss":null}\n{"step":3,"loss":0.25}\n');
    expect(read(join(folder.modelPath, "weights"))).toBe("two");
    expect(read(join(path, "checkpoints/step-3/state"))).toBe("x");
  });

  it("refuses a folder with files, unless resume or overwrite is set; overwrite leaves other files alone", async () => {
    const path = fresh();
    mkdirSync(path);
    writeFileSync(join(path, "notes.txt"), "mine");
    await expect(RunFolder.open(path, {})).rejects.toMatchObject({
      code: "ZA_FOLDER_NOT_EMPTY",
      place: { file: path },
    });
    const folder = await RunFolder.open(path, { a: 1 }, { overwrite: true });
    await folder.appendMetrics({ step: 1 });
    await folder.close();
    await (await RunFolder.open(path, { a: 2 }, { resume: true })).close();
    expect(existsSync(folder.metricsPath)).toBe(true);
    expect(await RunFolder.readConfig(path), "a run that may not go on changes nothing").toEqual({ a: 1 });
    await RunFolder.open(path, { a: 3 }, { overwrite: true });
    expect(existsSync(folder.metricsPath)).toBe(false);
    expect(read(join(path, "notes.txt"))).toBe("mine");
    expect(await RunFolder.readConfig(path)).toEqual({ a: 3 });
  });

  it("leaves the old model and no half-written one when saving fails", async () => {
    const path = fresh();
    const folder = await RunFolder.open(path, {});
    await folder.saveModel(async (target) => writeFile(join(target, "weights"), "old"));
    const failing = folder.saveModel(async (target) => {
      await writeFile(join(target, "weights"), "half");
      throw Object.assign(new Error("ENOSPC: no space left on device, write"), { code: "ENOSPC", syscall: "write" });
    });
    await expect(failing).rejects.toMatchObject({ code: "ZA_DISK_FULL", place: { file: path } });
    expect(read(join(folder.modelPath, "weights"))).toBe("old");
    expect(readdirSync(path).sort()).toEqual([".lock", "config.json", "model"]);
  });

  it.each(["model", "adapter"])(
    "tidies up after a process that was stopped, and brings a moved %s back",
    async (name) => {
      const path = fresh();
      const folder = await RunFolder.open(path, {});
      await folder.saveFolder(name, async (target) => writeFile(join(target, "weights"), "good"));
      await folder.close();
      renameSync(join(path, name), join(path, `.${name}.replaced`));
      mkdirSync(join(path, `.${name}.writing`));
      writeFileSync(join(path, ".report.html.writing"), "<half");
      const again = await RunFolder.open(path, {}, { resume: true });
      const names = [".lock", "config.json", name].sort();
      expect(readdirSync(path).sort()).toEqual(names);
      expect(read(join(path, name, "weights"))).toBe("good");
      await again.close();
      // Where the new one is in its place, the old one goes.
      mkdirSync(join(path, `.${name}.replaced`));
      await RunFolder.open(path, {}, { resume: true });
      expect(readdirSync(path).sort()).toEqual(names);
      expect(read(join(path, name, "weights"))).toBe("good");
    },
  );

  it("cuts the metrics back to where a checkpoint saw them end", async () => {
    const folder = await RunFolder.open(fresh(), {});
    expect(await folder.cutMetrics(0)).toEqual([]);
    const bytes: number[] = [];
    for (const step of [1, 2, 3]) {
      await folder.appendMetrics({ step, loss: step === 1 ? Number.NaN : step / 10 });
      bytes.push(await folder.syncMetrics());
    }
    writeFileSync(folder.metricsPath, `${read(folder.metricsPath)}{"step":4,"lo`);
    expect(await folder.metricsBytes()).toBeGreaterThan(bytes[2]!);
    expect(await folder.cutMetrics(bytes[2]!)).toHaveLength(3);
    expect(await folder.cutMetrics(bytes[1]!)).toEqual([
      { step: 1, loss: Number.NaN },
      { step: 2, loss: 0.2 },
    ]);
    await folder.appendMetrics({ step: 3, loss: 0.5 });
    await folder.close();
    expect(read(folder.metricsPath)).toBe('{"step":1,"loss":null}\n{"step":2,"loss":0.2}\n{"step":3,"loss":0.5}\n');
  });

  it("is one run's at a time", async () => {
    const path = fresh();
    const folder = await RunFolder.open(path, {});
    const second = RunFolder.open(path, {}, { resume: true });
    await expect(second).rejects.toMatchObject({ code: "ZA_FOLDER_LOCKED", place: { file: path } });
    await expect(RunFolder.open(path, {}, { overwrite: true })).rejects.toThrow(`process ${process.pid}`);
    await folder.close();
    await (await RunFolder.open(path, {}, { resume: true })).close();
  });

  it("names the path when the folder cannot be made", async () => {
    const path = fresh();
    writeFileSync(path, "a file");
    await expect(RunFolder.open(path, {})).rejects.toMatchObject({ code: "ZA_IO", place: { file: path } });
    expect(await RunFolder.readConfig(fresh())).toBeUndefined();
  });
});
