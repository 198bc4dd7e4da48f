import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeEach, expect, it, vi } from "vitest";
import { eventsOf } from "../../test/runs";
import { smallRows } from "../../test/shared";
import { Mistral, type StepEvent } from "../index";
import { SftTrainer } from "./sft-trainer";

const base = fileURLToPath(new URL("../../recipes/demo/base", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "zephyr-speed-"));
const cache = join(folder, "cache");
const file = join(cache, "gemm-peak.json");

beforeEach(() => {
  vi.stubEnv("ZEPHYR_CACHE", cache);
});

afterAll(() => {
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true, force: true });
});

async function run(options: Record<string, unknown> = {}): Promise<{ steps: StepEvent[]; speed: unknown[] }> {
  const outputDir = mkdtempSync(join(folder, "run-"));
  const settings = { maxSteps: 2, batchSize: 2, logSteps: 1, samples: 0, outputDir, overwrite: true, ...options };
  const model = await Mistral.fromPretrained(base, { device: "cpu" });
  const trainer = new SftTrainer({ model, dataset: smallRows(8).chats, ...settings });
  const { events } = await eventsOf(trainer);
  const steps = events.filter((event) => event.type === "step");
  const lines = readFileSync(join(outputDir, "speed.jsonl"), "utf8").trim().split("\n");
  expect(readFileSync(join(outputDir, "metrics.jsonl"), "utf8")).not.toMatch(/flops|peak/);
  return { steps, speed: lines.map((line) => JSON.parse(line)) };
}

it("tells the operations of a step, and their share of a peak that is measured once", async () => {
  const first = await run();
  const [[key, peak] = []] = Object.entries<number>(JSON.parse(readFileSync(file, "utf8")));
  expect(key).toMatch(/\d+ threads/);
  expect(peak).toBeGreaterThan(1e8);
  expect(first.steps).toHaveLength(2);
  for (const { tokensPerSecond, flopsPerSecond, peakShare } of first.steps) {
    // The base has 1.3 M parameters: forward and backward are some six operations for each and token.
    expect(flopsPerSecond / tokensPerSecond).toBeGreaterThan(3e6);
    expect(flopsPerSecond / tokensPerSecond).toBeLessThan(3e7);
    if (peakShare !== undefined) expect(peakShare).toBeCloseTo(flopsPerSecond / peak!, 10);
  }
  expect(first.speed).toMatchObject([{ step: 1, flops_per_second: expect.any(Number) }, { step: 2 }]);
  // What is in the cache is taken as it is.
  writeFileSync(file, JSON.stringify({ [key!]: 1e15 }));
  const second = await run();
  expect(second.steps[1]!.peakShare).toBeCloseTo(second.steps[1]!.flopsPerSecond / 1e15, 12);
});

it("forgets a peak that a step was faster than, and measures none when it is off", async () => {
  const [key] = Object.keys(JSON.parse(readFileSync(file, "utf8")));
  writeFileSync(file, JSON.stringify({ [key!]: 1, another: 2 }));
  const { steps } = await run();
  expect(steps[0]!.peakShare).toBeUndefined();
  expect(JSON.parse(readFileSync(file, "utf8"))).toEqual({ another: 2 });
  rmSync(cache, { recursive: true, force: true });
  mkdirSync(cache);
  const off = await run({ measurePeak: false });
  expect(off.steps[0]!.flopsPerSecond).toBeGreaterThan(0);
  expect(off.steps[0]!.peakShare).toBeUndefined();
  expect(() => readFileSync(file)).toThrow(/ENOENT/);
});
