/**
 * What computing the prompt of a pair once saves: DPO of the real model over shared prompts against the same rows as
 * separate sequences, both by our own trainer, in one run.
 *
 * usage: node bench/shared-prompt.mjs [--steps 3] [--repeat 3] [--batch 4] [--max-length 1024] [--threads 2]
 *                                     [--only dpo_long,dpo] [--json FILE] [--write]
 *
 * Each measurement is a process of its own, both sides in turn, in changing order; the first step of each is left out.
 * Both sides train on the same rows; their losses must agree, or the run fails. Per data set:
 *
 *   tokens    tokens that went through the decoder, of all measured steps; token_ratio = separate / shared
 *   step_ms   median over repetitions of the mean time of a step, optimizer included; speedup = separate / shared
 *   shown     (1 − 1/speedup) / (1 − 1/token_ratio): the share of the saved tokens that is saved time
 *
 * Head and optimizer do not depend on the prompt: the smaller the model beside its vocabulary, the less can be shown.
 * `ceiling` is what `shown` would be if all time went by the multiply-adds of the linear layers.
 *
 * Rows: pairs/dpo_long.jsonl and pairs/dpo.jsonl of ../shared/data (ZEPHYR_DATA: another folder).
 * Model: ../shared/env/models.sh --hf (ZEPHYR_TEST_DATA: its folder).
 */
import { execFile } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { cpus, homedir, tmpdir, totalmem } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs, promisify } from "node:util";
import { sharedPromptTable, writeTables } from "./table.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const { values: flags } = parseArgs({
  options: {
    steps: { type: "string", default: "3" },
    repeat: { type: "string", default: "3" },
    batch: { type: "string", default: "4" },
    "max-length": { type: "string", default: "1024" },
    threads: { type: "string", default: "2" },
    only: { type: "string", default: "dpo_long,dpo" },
    json: { type: "string" },
    write: { type: "boolean", default: false },
  },
});
const steps = whole("steps", 2);
const repeat = whole("repeat", 1);
const batch = whole("batch", 1);
const maxLength = whole("max-length", 2);
const threads = whole("threads", 1);
const models = process.env.ZEPHYR_TEST_DATA ?? join(homedir(), ".cache", "zephyr-align-test");
const model = join(models, "smollm2-135m-instruct");
const pairs = join(process.env.ZEPHYR_DATA ?? join(here, "..", "..", "shared", "data"), "pairs");
if (!existsSync(join(here, "..", "dist", "index.js"))) fail("dist/index.js is missing. Run `npm run build`.");
if (!existsSync(join(model, "model.safetensors"))) fail(`${model} is missing. Run ../shared/env/models.sh --hf.`);

const scratch = mkdtempSync(join(tmpdir(), "zephyr-bench-"));
const results = [];
try {
  for (const name of flags.only.split(",")) results.push(await compare(name));
} finally {
  rmSync(scratch, { recursive: true, force: true });
}

const report = {
  name: "shared-prompt",
  about:
    "DPO over shared prompts against separate sequences, both ours; shown = share of the saved tokens that is saved time.",
  model: "SmolLM2-135M-Instruct",
  dtype: "float32",
  date: new Date().toISOString(),
  machine: { cpu: cpus()[0]?.model.trim(), cores: cpus().length, memory_gib: Math.round(totalmem() / 2 ** 30) },
  threads,
  batch,
  max_length: maxLength,
  steps_measured: steps - 1,
  repetitions: repeat,
  results,
};
console.log(sharedPromptTable(report));
if (flags.json) writeJson(resolve(flags.json));
if (flags.write) {
  writeJson(join(here, "results", "shared-prompt.json"));
  writeTables(join(here, "results"));
}

function writeJson(file) {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, `${JSON.stringify(report, null, 2)}\n`);
  console.error(`wrote ${file}`);
}

async function compare(name) {
  const rows = evenlySpread(name);
  const runs = { shared: [], separate: [] };
  for (let round = 0; round < repeat; round++) {
    // The order turns round, so that a machine that grows slower or faster favours neither side.
    for (const side of round % 2 === 0 ? ["separate", "shared"] : ["shared", "separate"]) {
      process.stderr.write(`${name}  round ${round + 1}/${repeat}  ${side} … `);
      const run = await measure(rows, side === "shared");
      const step_ms = (1000 * sum(run.seconds.slice(1))) / (steps - 1);
      process.stderr.write(`${step_ms.toFixed(0)} ms a step\n`);
      runs[side].push({ ...run, step_ms });
    }
  }
  sameCourse(name, runs);
  const side = (runs) => {
    const times = runs.map(({ step_ms }) => step_ms);
    return {
      tokens: sum(runs[0].computed_tokens.slice(1)),
      step_ms: median(times),
      spread: (Math.max(...times) - Math.min(...times)) / median(times),
      peak_rss_mib: Math.max(...runs.map(({ peak_rss_mib }) => peak_rss_mib)),
      runs: times,
    };
  };
  const [shared, separate] = [side(runs.shared), side(runs.separate)];
  const tokenRatio = separate.tokens / shared.tokens;
  const speedup = separate.step_ms / shared.step_ms;
  return {
    name,
    token_ratio: tokenRatio,
    speedup,
    shown: saving(speedup) / saving(tokenRatio),
    ceiling: ceiling(runs.separate[0]),
    shared,
    separate,
  };
}

/** Share of the work that a ratio of works saves. */
function saving(ratio) {
  return 1 - 1 / ratio;
}

/**
 * Multiply-adds of a training step: the decoder's matrices three times a token (forward, two backward), the head's four
 * times a predicted token (its logits are computed again in the backward, never kept).
 */
function ceiling({ computed_tokens, predicted_tokens }) {
  const config = JSON.parse(readFileSync(join(model, "config.json"), "utf8"));
  const { hidden_size: hidden, intermediate_size: inner, num_hidden_layers: layers, vocab_size: vocabulary } = config;
  const { num_attention_heads: heads, num_key_value_heads: kvHeads } = config;
  const dim = config.head_dim ?? hidden / heads;
  const layer = hidden * dim * (2 * heads + 2 * kvHeads) + 3 * hidden * inner;
  const decoder = 3 * layers * layer * sum(computed_tokens);
  const head = 4 * hidden * vocabulary * predicted_tokens;
  return decoder / (decoder + head);
}

/** As many rows as the run visits, evenly spread over the file. */
function evenlySpread(name) {
  const lines = readFileSync(join(pairs, `${name}.jsonl`), "utf8")
    .split("\n")
    .filter(Boolean);
  const count = steps * batch;
  if (lines.length < count)
    fail(`${name}.jsonl has ${lines.length} rows, but ${steps} steps of ${batch} need ${count}.`);
  const rows = Array.from({ length: count }, (_, index) => lines[Math.floor((index * lines.length) / count)]);
  const file = join(scratch, `${name}.jsonl`);
  writeFileSync(file, `${rows.join("\n")}\n`);
  return file;
}

async function measure(rows, sharedPrompt) {
  const job = { method: "dpo", precompute: true, model, rows, steps, batch, maxLength, threads, sharedPrompt };
  const env = { ...process.env, OMP_NUM_THREADS: String(threads) };
  try {
    const args = [join(here, "measure.mjs"), JSON.stringify(job)];
    const { stdout } = await promisify(execFile)(process.execPath, args, { env, maxBuffer: 2 ** 28 });
    return JSON.parse(stdout.trim().split("\n").at(-1));
  } catch (error) {
    fail(`measure.mjs failed:\n${error.stderr ?? error.message}`);
  }
}

/** The two sides are the same training: the same tokens learnt, the same losses. */
function sameCourse(name, { shared, separate }) {
  const [expected] = separate;
  for (const run of [...shared, ...separate]) {
    if (JSON.stringify(run.tokens) !== JSON.stringify(expected.tokens)) fail(`${name}: the sides saw different rows.`);
    run.loss.forEach((loss, step) => {
      if (Math.abs(loss - expected.loss[step]) > 1e-3) {
        fail(`${name}: step ${step + 1} has loss ${loss} on one side and ${expected.loss[step]} on the other.`);
      }
    });
  }
}

function sum(values) {
  return values.reduce((all, value) => all + value, 0);
}

function median(values) {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

function whole(name, least) {
  const value = Number(flags[name]);
  if (!Number.isInteger(value) || value < least)
    fail(`--${name} ${flags[name]}: give a whole number of at least ${least}.`);
  return value;
}

function fail(message) {
  console.error(`bench:shared-prompt: ${message}`);
  process.exit(1);
}
