/**
 * Peak memory of one DPO run of the real model with a LoRA adapter over an f32, a bf16 and an NF4 base, each in a process
 * of its own; everything of the process counts, the JavaScript engine included.
 *
 * usage: node bench/qlora-memory.mjs [--steps 2] [--rows 4] [--batch 1] [--max-length 256] [--rank 8] [--threads 2] [--only float32,nf4]
 *
 * Prints a table and one JSON line. `ratio` is nf4 / float32; QLoRA is held to 0.45.
 * Rows: pairs/dpo.jsonl of ../shared/data (ZEPHYR_DATA: another folder). Model: ../shared/env/models.sh --hf.
 */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const here = dirname(fileURLToPath(import.meta.url));
const { values: flags } = parseArgs({
  options: {
    steps: { type: "string", default: "2" },
    rows: { type: "string", default: "4" },
    batch: { type: "string", default: "1" },
    rank: { type: "string", default: "8" },
    "max-length": { type: "string", default: "256" },
    threads: { type: "string", default: "2" },
    only: { type: "string", default: "float32,bfloat16,nf4" },
    measure: { type: "string" },
  },
});
const data = process.env.ZEPHYR_DATA ?? join(here, "..", "..", "shared", "data");
const models = process.env.ZEPHYR_TEST_DATA ?? join(homedir(), ".cache", "zephyr-align-test");

/** The kernel's own record of this process, in MiB. */
function peak() {
  return Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync("/proc/self/status", "utf8"))[1]) / 1024;
}

/** A few rows are enough: the peak is that of the longest batch, and all of them are scored by the reference first. */
function firstRows(count) {
  const lines = readFileSync(join(data, "pairs", "dpo.jsonl"), "utf8").split("\n");
  return lines.slice(0, count).map((line) => JSON.parse(line));
}

async function measure(storage) {
  const { DpoTrainer, Mistral } = await import("../dist/index.js");
  const loading = storage === "nf4" ? { quantization: storage } : { dtype: storage };
  const policy = await Mistral.fromPretrained(join(models, "smollm2-135m-instruct"), loading);
  const loaded = peak();
  const trainer = new DpoTrainer({
    policy,
    dataset: firstRows(Number(flags.rows)),
    lora: { rank: Number(flags.rank) },
    batchSize: Number(flags.batch),
    maxSteps: Number(flags.steps),
    maxLength: Number(flags["max-length"]),
    threads: Number(flags.threads),
    recompute: "layer",
    truncation: "keep-start",
    logSteps: 1,
  });
  const started = performance.now();
  const { history } = await trainer.fit();
  const seconds = (performance.now() - started) / 1000;
  const weights = policy.native.weightBytes / 2 ** 20;
  const losses = history.map(({ loss }) => loss);
  console.log(JSON.stringify({ storage, weights, loaded, peak: peak(), seconds, losses }));
}

if (flags.measure !== undefined) await measure(flags.measure);
else {
  const rows = flags.only.split(",").map((storage) => {
    const child = spawnSync(
      process.execPath,
      [fileURLToPath(import.meta.url), ...process.argv.slice(2), "--measure", storage],
      {
        encoding: "utf8",
      },
    );
    if (child.status !== 0) throw new Error(child.stderr);
    return JSON.parse(child.stdout.trim().split("\n").at(-1));
  });
  console.log("storage    weights MiB   loaded MiB   peak MiB   seconds");
  for (const { storage, weights, loaded, peak, seconds } of rows) {
    const cells = [weights, loaded, peak, seconds].map((value) => value.toFixed(1).padStart(11));
    console.log(`${storage.padEnd(10)}${cells.join("")}`);
  }
  const of = (name) => rows.find(({ storage }) => storage === name)?.peak;
  console.log(JSON.stringify({ rows, ratio: of("nf4") && of("float32") ? of("nf4") / of("float32") : null }));
}
