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
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import {
  dist,
  evenlySpread,
  fail,
  keep,
  machine,
  measureOurs,
  requireModel,
  requireOurs,
  start,
  whole,
  writeRows,
} from "./job.mjs";
import { memoryTable } from "./table.mjs";

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
const [steps, batch, maxLength, threads] = ["steps", "batch", "max-length", "threads"].map((name) =>
  whole(flags, name, 1),
);
requireOurs();
requireModel();

const lora = { rank: 8, alpha: 16, dropout: 0, targetModules: "all-linear" };
const policies = ["none", "norms-and-swiglu", "layer"];
const methods = [
  { name: "full f32" },
  { name: "LoRA f32", lora },
  { name: "LoRA bf16", lora, load: { dtype: "bfloat16" } },
  { name: "QLoRA nf4", lora, load: { quantization: "nf4" } },
].filter(({ name }) => !flags.only || flags.only.split(",").includes(name));

const common = { method: "dpo", precompute: true, steps, batch, maxLength, threads };
const scratch = mkdtempSync(join(tmpdir(), "zephyr-bench-"));
const results = [];
let nodeOnly;
try {
  const load = `import(${JSON.stringify(dist)}).then(() => console.log(process.resourceUsage().maxRSS / 1024))`;
  nodeOnly = Number(await start(process.execPath, ["-e", load], threads));
  const rows = writeRows(join(scratch, "pairs.jsonl"), evenlySpread("dpo", steps * batch));
  for (const { name, ...job } of methods) {
    for (const recompute of policies) {
      process.stderr.write(`${name}  ${recompute} … `);
      const run = await measureOurs({ ...common, ...job, rows, recompute });
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
/** What is taken where nothing is said. */
const standard = { "QLoRA nf4": "layer", "LoRA f32": "norms-and-swiglu" };
const ratio = (policy) => peak("QLoRA nf4", policy["QLoRA nf4"]) / peak("LoRA f32", policy["LoRA f32"]);
const report = {
  name: "memory",
  about: "Peak resident set of a DPO run with cached reference, in MiB, and tokens per second (first step left out).",
  model: "SmolLM2-135M-Instruct",
  date: new Date().toISOString(),
  machine: machine(),
  threads,
  batch,
  max_length: maxLength,
  steps_measured: steps - 1,
  node_mib: nodeOnly,
  // QLoRA's memory in that of LoRA in f32: as they are by themselves, and both under "layer".
  ...(flags.only
    ? {}
    : {
        qlora_memory_ratio: ratio(standard),
        qlora_memory_ratio_layer: ratio({ "QLoRA nf4": "layer", "LoRA f32": "layer" }),
      }),
  results,
};
console.log(memoryTable(report));
keep(report, flags);
