/** The reference's log-probs over rows that are streamed: the file, and the run, of the same rows in a plain file. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { type DatasetInput, DpoTrainer, KtoTrainer, Mistral } from "../ts/index";
import { ReferenceCache } from "../ts/train/reference-cache";
import { log, open, put, scratch, serveHub } from "./hub/served";
import { smallRows } from "./shared";

serveHub();
afterEach(() => vi.restoreAllMocks());

const base = fileURLToPath(new URL("../recipes/demo/base", import.meta.url));
const { pairs } = smallRows(23);
const text = pairs.map((pair) => `${JSON.stringify(pair)}\n`).join("");
const original = ReferenceCache.prototype.append;
const options = { maxSteps: 5, batchSize: 4, refBatchSize: 3, logSteps: 1, samples: 0, learningRate: 1e-4 };
const methods = {
  dpo: { Trainer: DpoTrainer, files: ["reference.jsonl"] },
  kto: { Trainer: KtoTrainer, files: ["reference.jsonl", "reference-mismatched.jsonl"] },
} as const;
type Method = keyof typeof methods;

async function run(method: Method, dataset: DatasetInput, name: string, more: object = {}): Promise<string> {
  const outputDir = join(scratch, "runs", `${method}-${name}`);
  const policy = await Mistral.fromPretrained(base);
  await new methods[method].Trainer({ policy, dataset, outputDir, ...options, ...more }).fit();
  return outputDir;
}

/** Everything of a run that depends on its rows. */
function results(method: Method, outputDir: string): Record<string, string> {
  const names = [...methods[method].files, "metrics.jsonl", "model/model.safetensors"];
  return Object.fromEntries(names.map((name) => [name, readFileSync(join(outputDir, name)).toString("base64")]));
}

describe("log-probs of the reference over a stream", () => {
  const plain = join(scratch, "pairs.jsonl");
  const packed = join(scratch, "pairs.jsonl.gz");
  const expected = {} as Record<Method, Record<string, string>>;
  const streamed = (name: string) => open(name, { split: "train", stream: true });

  beforeAll(async () => {
    mkdirSync(scratch, { recursive: true });
    writeFileSync(plain, text);
    writeFileSync(packed, gzipSync(text));
    put("datasets/org/pairs/main/train.jsonl", text);
    put("datasets/org/packed-pairs/main/train.jsonl.gz", gzipSync(text));
    for (const method of ["dpo", "kto"] as const) expected[method] = results(method, await run(method, plain, "plain"));
  });

  it.each([
    ["dpo", "a .jsonl.gz file", () => packed],
    ["dpo", "the Hub", () => streamed("org/pairs")],
    ["dpo", "the Hub, compressed", () => streamed("org/packed-pairs")],
    ["kto", "the Hub", () => streamed("org/packed-pairs")],
  ] as const)("%s from %s is the run from the plain file", async (method, name, source) => {
    const outputDir = await run(method, source(), name);
    expect(results(method, outputDir)).toEqual(expected[method]);
    // The reference and its rows are known by what they are, not by where they came from.
    const referenceCache = join(outputDir, "reference.jsonl");
    const append = vi.spyOn(ReferenceCache.prototype, "append");
    await run(method, plain, `${name}-again`, { referenceCache });
    const blocks = method === "kto" ? Math.ceil((options.maxSteps * options.batchSize) / options.refBatchSize) : 0;
    expect(append).toHaveBeenCalledTimes(blocks);
  });

  it.each(["dpo", "kto"] as const)("%s: a scoring that was stopped goes on where it was", async (method) => {
    const controller = new AbortController();
    const append = vi.spyOn(ReferenceCache.prototype, "append").mockImplementation(function (
      this: ReferenceCache,
      sums: Float64Array,
    ) {
      if (append.mock.calls.length === 3) controller.abort();
      return original.call(this, sums);
    });
    const stopped = run(method, streamed("org/pairs"), "stopped", { signal: controller.signal });
    await expect(stopped).rejects.toMatchObject({ code: "ZA_ABORTED" });
    append.mockClear();
    const requests = (await log()).length;
    const outputDir = await run(method, streamed("org/pairs"), "stopped", { resume: true });
    expect((await log()).length, "the rows are read again").toBeGreaterThan(requests);
    expect(results(method, outputDir)).toEqual(expected[method]);
    const { sequences, batch } = {
      sequences: 2 * pairs.length,
      batch: (method === "dpo" ? 2 : 1) * options.refBatchSize,
    };
    const mismatched = method === "kto" ? Math.ceil((options.maxSteps * options.batchSize) / options.refBatchSize) : 0;
    expect(append).toHaveBeenCalledTimes(Math.ceil(sequences / batch) - 3 + mismatched);
  });
});
