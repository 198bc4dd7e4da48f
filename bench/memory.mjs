/**
 * Peak memory and speed of our own DPO trainer on the real model: every recompute policy, full training, LoRA and QLoRA.
 *
 * usage: node bench/memory.mjs [--steps 3] [--batch 2] [--max-length 384] [--threads 2] [--only NAME,…] [--json FILE] [--write]
 *
 * Each row is a process of its own over the same pairs (spread over pairs/dpo.jsonl of ../shared/data, or ZEPHYR_DATA);
 * memory is the highest resident set, Node itself included (`node_mib`: a process that only loads the package). The losses
 * of the policies of one method must be equal to the last bit, or the run fails.
 * Model: ../shared/env/models.sh --hf (ZEPHYR_TEST_DATA: its folder).
 */
import { execFile } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { cpus, homedir, tmpdir, totalmem } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs, promisify } from "node:util";
import { memoryTable, writeTables } from "./table.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const { values: flags } = parseArgs({
  options: {
    steps: { type: "string", default: "3" },
    batch: { type: "string", default: "2" },
    "max-length": { type: "string", default: "384" },
    threads: { type: "string", default: "2" },
    only: { type: "string" },
    json: { type: "string" },
    write: { type: "boolean", default: false },
  },
});
const [steps, batch, maxLength, threads] = ["steps", "batch", "max-length", "threads"].map(whole);
const models = process.env.ZEPHYR_TEST_DATA ?? join(homedir(), ".cache", "zephyr-align-test");
const model = join(models, "smollm2-135m-instruct");
const pairs = join(process.env.ZEPHYR_DATA ?? join(here, "..", "..", "shared", "data"), "pairs", "dpo.jsonl");
if (!existsSync(join(here, "..", "dist", "index.js"))) fail("dist/index.js is missing. Run `npm run build`.");
if (!existsSync(join(model, "model.safetensors"))) fail(`${model} is missing. Run ../shared/env/models.sh --hf.`);

const lora = { rank: 8, alpha: 16, dropout: 0, targetModules: "all-linear" };
const policies = ["none", "norms-and-swiglu", "layer"];
const methods = [
  { name: "full f32" },
  { name: "LoRA f32", lora },
  { name: "LoRA bf16", lora, load: { dtype: "bfloat16" } },
  { name: "QLoRA nf4", lora, load: { quantization: "nf4" } },
].filter(({ name }) => !flags.only || flags.only.split(",").includes(name));

const scratch = mkdtempSync(join(tmpdir(), "zephyr-bench-"));
const results = [];
let nodeOnly;
try {
  const load = `import(${JSON.stringify(join(here, "..", "dist", "index.js"))}).then(() => console.log(process.resourceUsage().maxRSS / 1024))`;
  nodeOnly = Number(await start(["-e", load]));
  const rows = evenlySpread();
  for (const { name, ...job } of methods) {
    for (const recompute of policies) {
      process.stderr.write(`${name}  ${recompute} … `);
      const run = await measure({ ...job, rows, recompute });
      process.stderr.write(`${Math.round(run.peak_rss_mib)} MiB, ${run.tokens_per_s.toFixed(0)} tok/s\n`);
      results.push({ name, recompute, ...run });
    }
    const losses = results.filter((each) => each.name === name).map(({ loss }) => JSON.stringify(loss));
    if (new Set(losses).size > 1) fail(`${name}: the recompute policies give different losses: ${losses.join(" / ")}`);
  }
} finally {
  rmSync(scratch, { recursive: true, force: true });
}

const peak = (name, recompute) =>
  results.find((each) => each.name === name && each.recompute === recompute)?.peak_rss_mib;
const [quantised, plain] = [peak("QLoRA nf4", "layer"), peak("LoRA f32", "layer")];
const report = {
  name: "memory",
  about: "Peak resident set of a DPO run with cached reference, in MiB, and tokens per second (first step left out).",
  model: "SmolLM2-135M-Instruct",
  date: new Date().toISOString(),
  machine: { cpu: cpus()[0]?.model.trim(), cores: cpus().length, memory_gib: Math.round(totalmem() / 2 ** 30) },
  threads,
  batch,
  max_length: maxLength,
  steps_measured: steps - 1,
  node_mib: nodeOnly,
  // QLoRA's memory in that of LoRA in f32, both under "layer".
  ...(quantised && plain ? { qlora_memory_ratio: quantised / plain } : {}),
  results,
};
console.log(memoryTable(report));
if (flags.json) writeJson(resolve(flags.json));
if (flags.write) {
  writeJson(join(here, "results", "memory.json"));
  writeTables(join(here, "results"));
}

function evenlySpread() {
  const lines = readFileSync(pairs, "utf8").split("\n").filter(Boolean);
  const count = steps * batch;
  const rows = Array.from({ length: count }, (_, index) => lines[Math.floor((index * lines.length) / count)]);
  const file = join(scratch, "pairs.jsonl");
  writeFileSync(file, `${rows.join("\n")}\n`);
  return file;
}

async function measure(job) {
  const whole = { method: "dpo", precompute: true, model, steps, batch, maxLength, threads, ...job };
  const text = await start([join(here, "measure.mjs"), JSON.stringify(whole)]);
  return JSON.parse(text.trim().split("\n").at(-1));
}

async function start(args) {
  const env = { ...process.env, OMP_NUM_THREADS: String(threads) };
  try {
    return (await promisify(execFile)(process.execPath, args, { env, maxBuffer: 2 ** 28 })).stdout;
  } catch (error) {
    fail(`${args[0]} failed:\n${error.stderr ?? error.message}`);
  }
}

function writeJson(file) {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, `${JSON.stringify(report, null, 2)}\n`);
  console.error(`wrote ${file}`);
}

function whole(name) {
  const value = Number(flags[name]);
  if (!Number.isInteger(value) || value < 1) fail(`--${name} ${flags[name]}: give a whole number of at least 1.`);
  return value;
}

function fail(message) {
  console.error(`bench:memory: ${message}`);
  process.exit(1);
}
