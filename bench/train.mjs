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
import { execFile, execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { cpus, homedir, tmpdir, totalmem } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs, promisify } from "node:util";
import { trainTable, writeTables } from "./table.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const shared = join(here, "..", "..", "shared");
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
const steps = whole("steps", 2);
const repeat = whole("repeat", 1);
const batch = whole("batch", 1);
const maxLength = whole("max-length", 2);
const threads = whole("threads", 1);
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

const models = process.env.ZEPHYR_TEST_DATA ?? join(homedir(), ".cache", "zephyr-align-test");
const gguf = join(models, "smollm2-135m-instruct.q4_1.gguf");
const folder = join(models, "smollm2-135m-instruct");
const peerScript = join(process.env.ZEPHYR_PEERS ?? join(shared, "peers"), "trl_cpu.py");
const pairs = join(process.env.ZEPHYR_DATA ?? join(shared, "data"), "pairs");
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
  machine: { cpu: cpus()[0]?.model.trim(), cores: cpus().length, memory_gib: Math.round(totalmem() / 2 ** 30) },
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
if (flags.json) writeJson(resolve(flags.json), report);
if (flags.write) {
  writeJson(join(here, "results", "train.json"), report);
  writeTables(join(here, "results"));
}

/** Everything that must be there, before minutes are spent. */
function prepare() {
  if (!existsSync(join(here, "..", "dist", "index.js"))) fail("dist/index.js is missing. Run `npm run build`.");
  if (!existsSync(peerScript)) fail(`the peer ${peerScript} is missing. Set ZEPHYR_PEERS to its folder.`);
  try {
    execFileSync(python, ["-c", "import torch, transformers, trl, datasets"], { stdio: "pipe" });
  } catch {
    fail(`${python} has no torch, transformers, trl and datasets. Give --python, or set ZEPHYR_PEER_PYTHON.`);
  }
  if (existsSync(gguf) && existsSync(join(folder, "model.safetensors"))) return;
  const script = join(shared, "env", "models.sh");
  if (!existsSync(script)) fail(`${gguf} or ${folder} is missing. Set ZEPHYR_TEST_DATA to the folder that has both.`);
  console.error("fetching the model and writing it for the peer …");
  execFileSync("bash", [script, "--hf", models], { stdio: "inherit", env: { ...process.env, PYTHON: python } });
}

/**
 * As many rows as the run visits, evenly spread over the file: once as the peer reads them (it shuffles), once in the
 * order in which it will visit them.
 */
function sameRows(kind) {
  const lines = readFileSync(join(pairs, `${kind}.jsonl`), "utf8")
    .split("\n")
    .filter(Boolean);
  const count = steps * batch;
  if (lines.length < count)
    fail(`${kind}.jsonl has ${lines.length} rows, but ${steps} steps of ${batch} need ${count}.`);
  const rows = Array.from({ length: count }, (_, index) => lines[Math.floor((index * lines.length) / count)]);
  // The sampler of transformers (accelerate's seedable one): a permutation by a generator seeded with seed + epoch.
  const draw = `import torch; print(torch.randperm(${count}, generator=torch.Generator().manual_seed(0)).tolist())`;
  const order = JSON.parse(execFileSync(python, ["-c", draw], { encoding: "utf8" }));
  const write = (name, list) => {
    const file = join(scratch, name);
    writeFileSync(file, `${list.join("\n")}\n`);
    return file;
  };
  return {
    peer: write(`${kind}.jsonl`, rows),
    ours: write(
      `${kind}-in-order.jsonl`,
      order.map((row) => rows[row]),
    ),
  };
}

async function measure(run, files) {
  if (run.peer) {
    const args = [peerScript, ...run.peer, "--model", folder, "--data", files[run.data].peer];
    args.push("--steps", steps, "--batch", batch, "--max-length", maxLength, "--threads", threads);
    return lastLine(await start(python, args, { HF_HUB_OFFLINE: "1", HF_DATASETS_CACHE: join(scratch, "datasets") }));
  }
  const { method, precompute, lora } = run;
  const job = {
    method,
    precompute,
    lora,
    model: folder,
    rows: files[run.data].ours,
    steps,
    batch,
    maxLength,
    threads,
    recompute,
  };
  return lastLine(await start(process.execPath, [join(here, "measure.mjs"), JSON.stringify(job)]));
}

async function start(command, args, environment = {}) {
  const env = { ...process.env, OMP_NUM_THREADS: String(threads), ...environment };
  try {
    const { stdout } = await promisify(execFile)(command, args.map(String), { env, maxBuffer: 2 ** 28 });
    return stdout;
  } catch (error) {
    fail(`${command} ${args[0]} failed:\n${error.stderr ?? error.message}`);
  }
}

function lastLine(text) {
  return JSON.parse(text.trim().split("\n").at(-1));
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

function median(values) {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
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
  const manifest = JSON.parse(readFileSync(join(here, "..", "package.json"), "utf8"));
  return { [manifest.name]: manifest.version, node: process.versions.node, ...peer };
}

function writeJson(file, value) {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, `${JSON.stringify(value, null, 2)}\n`);
  console.error(`wrote ${file}`);
}

function whole(name, least) {
  const value = Number(flags[name]);
  if (!Number.isInteger(value) || value < least)
    fail(`--${name} ${flags[name]}: give a whole number of at least ${least}.`);
  return value;
}

function fail(message) {
  console.error(`bench:train: ${message}`);
  process.exit(1);
}
