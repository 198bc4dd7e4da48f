/**
 * Inference on the CPU against node-llama-cpp, in one run on the same GGUF files: prefilled and decoded tokens per second,
 * time to load, peak memory.
 *
 * usage: node bench/infer.mjs [--repeat 3] [--threads 1,2] [--only smollm2-q4_1,1.1b-q4_0,…] [--peer FOLDER]
 *                             [--models FOLDER] [--json FILE] [--write]
 *
 * Ours and the peer run one after the other, each measurement in a process of its own that loads the model and answers
 * three times, in changing order; the figures are medians over all answers. A prompt of 512 tokens is prefilled, 64 are
 * decoded greedily.
 *
 * --json FILE writes every number; --write writes results/infer.json and the table of results/README.md.
 * The peer is ../shared/peers/node-llama-cpp.mjs (ZEPHYR_PEERS: another folder); it needs node-llama-cpp in --peer
 * (default /tmp/zephyr-peer-llama), which is put there as its first lines say, and is no dependency of the package.
 * Models: SmolLM2 by ../shared/env/models.sh (ZEPHYR_TEST_DATA: its folder); the 1.1B ones, random, are written by
 * random-gguf.mjs into --models (default the same folder).
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { fail, keep, lastLine, machine, median, models, requireOurs, shared, start, whole } from "./job.mjs";
import { shapes, writeRandomGguf } from "./random-gguf.mjs";
import { inferTable } from "./table.mjs";

const { values: flags } = parseArgs({
  options: {
    repeat: { type: "string", default: "3" },
    threads: { type: "string", default: "1,2" },
    only: { type: "string" },
    peer: { type: "string", default: "/tmp/zephyr-peer-llama" },
    models: { type: "string", default: models },
    json: { type: "string" },
    write: { type: "boolean", default: false },
  },
});
const repeat = whole(flags, "repeat", 1);
const threadCounts = flags.threads.split(",").map((count) => whole({ threads: count }, "threads", 1));
/** Of the peer's script. */
const [PROMPT, DECODE, ANSWERS] = [512, 64, 3];

const files = [
  { name: "smollm2-q4_1", title: "SmolLM2-135M Q4_1", file: join(models, "smollm2-135m-instruct.q4_1.gguf") },
  ...["Q4_0", "Q8_0"].map((kind) => ({
    name: `1.1b-${kind.toLowerCase()}`,
    title: `1.1B (random) ${kind}`,
    kind,
    file: join(flags.models, `random-1.1b.${kind.toLowerCase()}.gguf`),
  })),
].filter(({ name }) => !flags.only || flags.only.split(",").includes(name));
if (files.length === 0) fail(`--only ${flags.only} names no model.`);

const here = fileURLToPath(new URL(".", import.meta.url));
const peerScript = join(process.env.ZEPHYR_PEERS ?? join(shared, "peers"), "node-llama-cpp.mjs");
prepare();

const scratch = mkdtempSync(join(tmpdir(), "zephyr-bench-"));
const load = [loadavg()[0]];
const results = [];
try {
  for (const model of files) {
    for (const threads of threadCounts) results.push(await compare(model, threads));
  }
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
load.push(loadavg()[0]);

const report = {
  name: "infer",
  about: "Ours against node-llama-cpp on the same file; ratio = ours / peer (above 1 better), memory and load below 1.",
  date: new Date().toISOString(),
  machine: { ...machine(), load_before: load[0], load_after: load[1] },
  prompt_tokens: PROMPT,
  decoded_tokens: DECODE,
  repetitions: repeat * ANSWERS,
  versions: versions(),
  results,
};
console.log(inferTable(report));
keep(report, flags);

/** Everything that must be there, before minutes are spent. */
function prepare() {
  requireOurs();
  if (!existsSync(peerScript)) fail(`the peer ${peerScript} is missing. Set ZEPHYR_PEERS to its folder.`);
  if (!existsSync(join(flags.peer, "node_modules", "node-llama-cpp"))) {
    const install = "npm i --omit=optional node-llama-cpp@3 @node-llama-cpp/linux-x64@3";
    fail(
      `${flags.peer} has no node-llama-cpp. mkdir -p ${flags.peer} && cd ${flags.peer} && npm init -y && ${install}`,
    );
  }
  mkdirSync(flags.models, { recursive: true });
  for (const { file, kind } of files) {
    if (existsSync(file)) continue;
    if (!kind) fail(`${file} is missing. Run ../shared/env/models.sh.`);
    process.stderr.write(`writing ${file} …\n`);
    writeRandomGguf(file, kind, shapes["1.1b"]);
  }
}

/** Both sides in turn on one file. */
async function compare({ name, title, file }, threads) {
  const runs = { ours: [], peer: [] };
  for (let round = 0; round < repeat; round++) {
    // The order turns round, so that a machine that grows slower or faster favours neither side.
    for (const side of round % 2 === 0 ? ["ours", "peer"] : ["peer", "ours"]) {
      const run = side === "ours" ? await ours(file, threads) : await peer(file, threads);
      const [prefill, decode] = ["prefill_tok_s", "decode_tok_s"].map((key) => median(run.runs.map((one) => one[key])));
      const figures = `prefill ${prefill.toFixed(0)}, decode ${decode.toFixed(1)} tok/s, ${Math.round(run.peak_rss_mib)} MiB`;
      process.stderr.write(`${name}, ${threads} thread(s), round ${round + 1}/${repeat}, ${side}: ${figures}\n`);
      runs[side].push(run);
    }
  }
  const [mine, theirs] = [summary(runs.ours), summary(runs.peer)];
  const ratio = (key) => mine[key].median / theirs[key].median;
  return {
    name,
    title,
    threads,
    ratio: { prefill: ratio("prefill_tok_s"), decode: ratio("decode_tok_s") },
    load_ratio: ratio("load_ms"),
    memory_ratio: mine.peak_rss_mib / theirs.peak_rss_mib,
    ours: mine,
    peer: theirs,
  };
}

async function ours(file, threads) {
  const job = { file, threads, prompt: PROMPT, decode: DECODE, repeat: ANSWERS };
  return lastLine(await start(process.execPath, [join(here, "infer-one.mjs"), JSON.stringify(job)], threads));
}

async function peer(file, threads) {
  const peak = join(scratch, "peak");
  const preload = new URL("peak-memory.mjs", import.meta.url).href;
  const args = ["--import", preload, peerScript, file, threads];
  const out = await start(process.execPath, args, threads, { PEAK_MEMORY_FILE: peak }, flags.peer);
  const runs = out
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  return { load_ms: runs[0].load_ms, peak_rss_mib: Number(readFileSync(peak, "utf8")), runs };
}

function summary(runs) {
  const all = runs.flatMap((run) => run.runs);
  const over = (values) => {
    const middle = median(values);
    const [min, max] = [Math.min(...values), Math.max(...values)];
    return { median: middle, min, max, relative: (max - min) / middle };
  };
  return {
    prefill_tok_s: over(all.map((run) => run.prefill_tok_s)),
    decode_tok_s: over(all.map((run) => run.decode_tok_s)),
    ...(all[0].score_tok_s
      ? {
          score_tok_s: over(all.map((run) => run.score_tok_s)),
          score_rounded_tok_s: over(all.map((run) => run.score_rounded_tok_s)),
          score_bound: runs[0].score_bound,
        }
      : {}),
    load_ms: over(runs.map((run) => run.load_ms)),
    peak_rss_mib: Math.max(...runs.map((run) => run.peak_rss_mib)),
    ...(runs[0].weight_mib ? { weight_mib: runs[0].weight_mib } : {}),
  };
}

function versions() {
  const manifest = (file) => JSON.parse(readFileSync(file, "utf8"));
  const own = manifest(new URL("../package.json", import.meta.url));
  const theirs = manifest(join(flags.peer, "node_modules", "node-llama-cpp", "package.json"));
  const commit = execFileSync("git", ["rev-parse", "--short", "HEAD"], { cwd: here, encoding: "utf8" }).trim();
  return { [own.name]: `${own.version} (${commit})`, [theirs.name]: theirs.version, node: process.versions.node };
}
