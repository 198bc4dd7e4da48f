/**
 * Training speed and peak memory of the real model against TRL on the CPU, in one run on the same rows.
 *
 * usage: node bench/train.mjs [--steps 5] [--repeat 2] [--batch 2] [--max-length 384] [--threads 2] [--only sft,dpo,…]
 *                             [--python PYTHON] [--json FILE] [--write]
 *
 * Ours and the peer run one after the other, each measurement in a process of its own, in changing order. The first step
 * is left out on both sides; tokens_per_s counts real tokens, prompts included, of the other steps. Both sides see the
 * same rows in the same order, and the token counts of every step must agree, or the run fails.
 *
 * --json FILE writes every number; --write writes results/train.json and the table of results/README.md.
 * The peer is ../shared/peers/trl_cpu.py (ZEPHYR_PEERS: another folder), run by a Python with torch, transformers, trl
 * and datasets (ZEPHYR_PEER_PYTHON). Models: ../shared/env/models.sh --hf (ZEPHYR_TEST_DATA: their folder).
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import {
  evenlySpread,
  fail,
  hasModel,
  keep,
  lastLine,
  machine,
  measureOurs,
  median,
  model,
  models,
  requireOurs,
  shared,
  start,
  whole,
  writeRows,
} from "./job.mjs";
import { trainTable } from "./table.mjs";

const { values: flags } = parseArgs({
  options: {
    steps: { type: "string", default: "5" },
    repeat: { type: "string", default: "2" },
    batch: { type: "string", default: "2" },
    "max-length": { type: "string", default: "384" },
    threads: { type: "string", default: "2" },
    only: { type: "string" },
    recompute: { type: "string" },
    python: { type: "string", default: process.env.ZEPHYR_PEER_PYTHON ?? "/tmp/peer/bin/python" },
    json: { type: "string" },
    write: { type: "boolean", default: false },
  },
});
const steps = whole(flags, "steps", 2);
const repeat = whole(flags, "repeat", 1);
const batch = whole(flags, "batch", 1);
const maxLength = whole(flags, "max-length", 2);
const threads = whole(flags, "threads", 1);
const { python, recompute } = flags;

/** The adapter of trl_cpu.py. */
const lora = { rank: 16, alpha: 16, dropout: 0, targetModules: "all-linear" };

/** What is run, and how each side is told to. */
const runs = {
  "ours sft": { method: "sft", data: "sft" },
  "peer sft": { peer: ["sft"], data: "sft" },
  "ours dpo cached": { method: "dpo", data: "dpo", precompute: true },
  "ours dpo live": { method: "dpo", data: "dpo", precompute: false },
  "peer dpo live": { peer: ["dpo"], data: "dpo" },
  "peer dpo cached": { peer: ["dpo", "--precompute"], data: "dpo" },
  "ours lora sft": { method: "sft", data: "sft", lora },
  "peer lora sft": { peer: ["sft", "--lora"], data: "sft" },
  "ours lora dpo cached": { method: "dpo", data: "dpo", precompute: true, lora },
  "ours lora dpo live": { method: "dpo", data: "dpo", precompute: false, lora },
  "peer lora dpo live": { peer: ["dpo", "--lora"], data: "dpo" },
  "peer lora dpo cached": { peer: ["dpo", "--lora", "--precompute"], data: "dpo" },
};

/** What is compared: each as it comes by default, and like with like. */
const comparisons = [
  { name: "sft", title: "SFT", ours: "ours sft", peer: "peer sft" },
  {
    name: "dpo",
    title: "DPO, defaults (ours: cached reference; TRL: live)",
    ours: "ours dpo cached",
    peer: "peer dpo live",
  },
  { name: "dpo-cached", title: "DPO, both with cached reference", ours: "ours dpo cached", peer: "peer dpo cached" },
  { name: "dpo-live", title: "DPO, both with live reference", ours: "ours dpo live", peer: "peer dpo live" },
  { name: "lora-sft", title: "LoRA SFT", ours: "ours lora sft", peer: "peer lora sft" },
  {
    name: "lora-dpo",
    title: "LoRA DPO, defaults (ours: cached reference; TRL: live)",
    ours: "ours lora dpo cached",
    peer: "peer lora dpo live",
  },
  {
    name: "lora-dpo-cached",
    title: "LoRA DPO, both with cached reference",
    ours: "ours lora dpo cached",
    peer: "peer lora dpo cached",
  },
  {
    name: "lora-dpo-live",
    title: "LoRA DPO, both with live reference",
    ours: "ours lora dpo live",
    peer: "peer lora dpo live",
  },
].filter(({ name }) => !flags.only || flags.only.split(",").includes(name));
if (comparisons.length === 0) fail(`--only ${flags.only} names no comparison.`);

const gguf = join(models, "smollm2-135m-instruct.q4_1.gguf");
const peerScript = join(process.env.ZEPHYR_PEERS ?? join(shared, "peers"), "trl_cpu.py");
prepare();

const scratch = mkdtempSync(join(tmpdir(), "zephyr-bench-"));
const results = Object.fromEntries(Object.keys(runs).map((name) => [name, []]));
try {
  const files = { sft: sameRows("sft"), dpo: sameRows("dpo") };
  const wanted = Object.keys(runs).filter((name) =>
    comparisons.some(({ ours, peer }) => ours === name || peer === name),
  );
  for (let round = 0; round < repeat; round++) {
    // The order turns round, so that a machine that grows slower or faster favours neither side.
    for (const name of round % 2 === 0 ? wanted : wanted.toReversed()) {
      process.stderr.write(`round ${round + 1}/${repeat}  ${name} … `);
      const result = await measure(runs[name], files);
      process.stderr.write(`${result.tokens_per_s.toFixed(1)} tok/s, ${Math.round(result.peak_rss_mib)} MiB\n`);
      results[name].push(result);
    }
  }
} finally {
  rmSync(scratch, { recursive: true, force: true });
}

const report = {
  name: "train",
  about:
    "Tokens per second of training steps and peak memory; ratio = ours / peer (above 1 better), memory_ratio below 1 better.",
  model: "SmolLM2-135M-Instruct",
  dtype: "float32",
  recompute: recompute ?? "norms-and-swiglu",
  date: new Date().toISOString(),
  machine: machine(),
  threads,
  batch,
  max_length: maxLength,
  steps,
  steps_measured: steps - 1,
  repetitions: repeat,
  versions: versions(),
  results: comparisons.map(compare),
};
console.log(trainTable(report));
keep(report, flags);

/** Everything that must be there, before minutes are spent. */
function prepare() {
  requireOurs();
  if (!existsSync(peerScript)) fail(`the peer ${peerScript} is missing. Set ZEPHYR_PEERS to its folder.`);
  try {
    execFileSync(python, ["-c", "import torch, transformers, trl, datasets"], { stdio: "pipe" });
  } catch {
    fail(`${python} has no torch, transformers, trl and datasets. Give --python, or set ZEPHYR_PEER_PYTHON.`);
  }
  if (existsSync(gguf) && hasModel()) return;
  const script = join(shared, "env", "models.sh");
  if (!existsSync(script)) fail(`${gguf} or ${model} is missing. Set ZEPHYR_TEST_DATA to the folder that has both.`);
  console.error("fetching the model and writing it for the peer …");
  execFileSync("bash", [script, "--hf", models], { stdio: "inherit", env: { ...process.env, PYTHON: python } });
}

/**
 * As many rows as the run visits, evenly spread over the file: once as the peer reads them (it shuffles), once in the
 * order in which it will visit them.
 */
function sameRows(kind) {
  const count = steps * batch;
  const rows = evenlySpread(kind, count);
  // The sampler of transformers (accelerate's seedable one): a permutation by a generator seeded with seed + epoch.
  const draw = `import torch; print(torch.randperm(${count}, generator=torch.Generator().manual_seed(0)).tolist())`;
  const order = JSON.parse(execFileSync(python, ["-c", draw], { encoding: "utf8" }));
  return {
    peer: writeRows(join(scratch, `${kind}.jsonl`), rows),
    ours: writeRows(
      join(scratch, `${kind}-in-order.jsonl`),
      order.map((row) => rows[row]),
    ),
  };
}

async function measure(run, files) {
  if (run.peer) {
    const args = [peerScript, ...run.peer, "--model", model, "--data", files[run.data].peer];
    args.push("--steps", steps, "--batch", batch, "--max-length", maxLength, "--threads", threads);
    const offline = { HF_HUB_OFFLINE: "1", HF_DATASETS_CACHE: join(scratch, "datasets") };
    return lastLine(await start(python, args, threads, offline));
  }
  const { data, ...how } = run;
  return measureOurs({ ...how, rows: files[data].ours, steps, batch, maxLength, threads, recompute });
}

function compare({ name, title, ours, peer }) {
  const tokens = results[ours][0].tokens;
  for (const { tokens: others } of [...results[ours], ...results[peer]]) {
    if (JSON.stringify(others) !== JSON.stringify(tokens)) {
      fail(
        `${name}: the sides saw different rows, tokens per step ${JSON.stringify(tokens)} and ${JSON.stringify(others)}.`,
      );
    }
  }
  const side = (run) => {
    const speed = results[run].map((result) => result.tokens_per_s);
    const precompute = results[run].map((result) => result.precompute_seconds).filter((seconds) => seconds > 0.05);
    return {
      tokens_per_s: median(speed),
      spread: { min: Math.min(...speed), max: Math.max(...speed), relative: relativeSpread(speed) },
      peak_rss_mib: Math.max(...results[run].map((result) => result.peak_rss_mib)),
      ...(precompute.length > 0 ? { precompute_seconds: median(precompute) } : {}),
      loss: results[run][0].loss,
      runs: results[run].map(({ tokens_per_s, peak_rss_mib, seconds }) => ({ tokens_per_s, peak_rss_mib, seconds })),
    };
  };
  const [mine, theirs] = [side(ours), side(peer)];
  return {
    name,
    title,
    ratio: mine.tokens_per_s / theirs.tokens_per_s,
    memory_ratio: mine.peak_rss_mib / theirs.peak_rss_mib,
    tokens_per_step: tokens,
    ours: mine,
    peer: theirs,
  };
}

/** (max − min) / median */
function relativeSpread(values) {
  return (Math.max(...values) - Math.min(...values)) / median(values);
}

function versions() {
  const ask =
    "import torch, transformers, trl, json, platform; print(json.dumps({'python': platform.python_version(), ";
  const modules = "'torch': torch.__version__, 'transformers': transformers.__version__, 'trl': trl.__version__}))";
  const peer = lastLine(execFileSync(python, ["-c", ask + modules], { encoding: "utf8" }));
  const manifest = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8"));
  return { [manifest.name]: manifest.version, node: process.versions.node, ...peer };
}
