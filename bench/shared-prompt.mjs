/**
 * What computing the prompt of a pair once saves: DPO of the real model over shared prompts against the same rows as
 * separate sequences, both by our own trainer, in one run.
 *
 * usage: node bench/shared-prompt.mjs [--steps 3] [--repeat 3] [--batch 4] [--max-length 1024] [--threads 2]
 *                                     [--only dpo_long,dpo] [--mistral] [--bounds] [--json FILE] [--write]
 *
 * Each measurement is a process of its own, both sides in turn, in changing order; the first step of each is left out.
 * Both sides train on the same rows; their losses must agree, or the run fails. Per data set:
 *
 *   tokens    tokens that went through the decoder, of all measured steps; token_ratio = separate / shared
 *   step_ms   median over repetitions of the mean time of a step, optimizer included; speedup = separate / shared
 *   shown     (1 − 1/speedup) / (1 − 1/token_ratio): the share of the saved tokens that is saved time
 *
 * Head and optimizer do not depend on the prompt: the smaller the model beside its vocabulary, the less can be shown.
 * `ceiling` is what `shown` would be if all time went by the multiply-adds of the linear layers. SmolLM2's head is a fifth
 * of its parameters, and its attention a fifth of the work besides; Mistral-7B's a fiftieth each: `--mistral` measures a
 * model of Mistral's proportions (mistral-slice.mjs).
 *
 * Rows: pairs/dpo_long.jsonl and pairs/dpo.jsonl of ../shared/data (ZEPHYR_DATA: another folder). `--bounds`: what lies on both
 * sides of them: `short`, the answers of dpo after a prompt of two words, where nothing is to be had and nothing may be lost;
 * `long`, the prompts of dpo_long with the first words of their answers.
 * Model: ../shared/env/models.sh --hf (ZEPHYR_TEST_DATA: its folder).
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import {
  evenlySpread,
  fail,
  keep,
  machine,
  measureOurs,
  median,
  model,
  requireModel,
  requireOurs,
  sum,
  whole,
  writeRows,
} from "./job.mjs";
import { mistralSlice } from "./mistral-slice.mjs";
import { sharedPromptTable } from "./table.mjs";

const { values: flags } = parseArgs({
  options: {
    steps: { type: "string", default: "3" },
    repeat: { type: "string", default: "3" },
    batch: { type: "string", default: "4" },
    "max-length": { type: "string", default: "1024" },
    threads: { type: "string", default: "2" },
    mistral: { type: "boolean", default: false },
    bounds: { type: "boolean", default: false },
    only: { type: "string" },
    json: { type: "string" },
    write: { type: "boolean", default: false },
  },
});
const steps = whole(flags, "steps", 2);
const repeat = whole(flags, "repeat", 1);
const batch = whole(flags, "batch", 1);
const maxLength = whole(flags, "max-length", 2);
const threads = whole(flags, "threads", 1);
requireOurs();
if (!flags.mistral) requireModel();

const scratch = mkdtempSync(join(tmpdir(), "zephyr-bench-"));
const results = [];
let folder = model;
try {
  if (flags.mistral) folder = mistralSlice(join(scratch, "model"));
  const names = flags.only ?? (flags.bounds ? "short,long" : "dpo_long,dpo");
  for (const name of names.split(",")) results.push(await compare(name));
} finally {
  rmSync(scratch, { recursive: true, force: true });
}

const report = {
  name: `shared-prompt${flags.mistral ? "-mistral" : ""}${flags.bounds ? "-bounds" : ""}`,
  about:
    "DPO over shared prompts against separate sequences, both ours; shown = share of the saved tokens that is saved time.",
  model: flags.mistral ? "two layers of Mistral-7B at half its width, random weights" : "SmolLM2-135M-Instruct",
  dtype: "float32",
  date: new Date().toISOString(),
  machine: machine(),
  threads,
  batch,
  max_length: maxLength,
  steps_measured: steps - 1,
  repetitions: repeat,
  results,
};
console.log(sharedPromptTable(report));
keep(report, flags);

/** Rows of a file, or made of one's: lines of JSON. */
function pairs(name, count) {
  if (name !== "short" && name !== "long") return evenlySpread(name, count);
  const rows = evenlySpread(name === "short" ? "dpo" : "dpo_long", count).map((line) => JSON.parse(line));
  const cut = ([{ role, content }]) => [{ role, content: content.split(" ").slice(0, 20).join(" ") }];
  const made = ({ prompt, chosen, rejected }) =>
    name === "short"
      ? { prompt: [{ role: "user", content: "Go on." }], chosen, rejected }
      : { prompt, chosen: cut(chosen), rejected: cut(rejected) };
  return rows.map((row) => JSON.stringify(made(row)));
}

async function compare(name) {
  const rows = writeRows(join(scratch, `${name}.jsonl`), pairs(name, steps * batch));
  const job = { model: folder, method: "dpo", precompute: true, rows, steps, batch, maxLength, threads };
  const runs = { shared: [], separate: [] };
  for (let round = 0; round < repeat; round++) {
    // The order turns round, so that a machine that grows slower or faster favours neither side.
    for (const side of round % 2 === 0 ? ["separate", "shared"] : ["shared", "separate"]) {
      process.stderr.write(`${name}  round ${round + 1}/${repeat}  ${side} … `);
      const run = await measureOurs({ ...job, sharedPrompt: side === "shared" });
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
  const config = JSON.parse(readFileSync(join(folder, "config.json"), "utf8"));
  const { hidden_size: hidden, intermediate_size: inner, num_hidden_layers: layers, vocab_size: vocabulary } = config;
  const { num_attention_heads: heads, num_key_value_heads: kvHeads } = config;
  const dim = config.head_dim ?? hidden / heads;
  const layer = hidden * dim * (2 * heads + 2 * kvHeads) + 3 * hidden * inner;
  const decoder = 3 * layers * layer * sum(computed_tokens);
  const head = 4 * hidden * vocabulary * predicted_tokens;
  return decoder / (decoder + head);
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
