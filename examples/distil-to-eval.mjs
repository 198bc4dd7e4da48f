// The whole road from an empty folder: a teacher makes conversations, a small model learns them, a pool answers, a rater
// rates, and the model learns from the pairs. usage: node examples/distil-to-eval.mjs [FOLDER] [CONVERSATIONS]
// Everything is offline: teacher, pool and rater are rules, the model is the demo's base. For a real one give `--teacher` and
// `--rater` the names of a server's models. Run it from a clone after `npm run ready`.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const path = (name) => fileURLToPath(new URL(`../${name}`, import.meta.url));
const folder = process.argv[2] ?? mkdtempSync(join(tmpdir(), "distil-example-"));
const conversations = process.argv[3] ?? "800";
const at = (...names) => join(folder, ...names);

/** Runs a command of the program and returns what it writes to --json. Flags are words of a text, or paths by name. */
function zephyr(command, flags, paths) {
  const named = Object.entries(paths).flatMap(([name, value]) => [`--${name}`, value]);
  const words = [...flags.split(" "), ...named];
  console.log(`\n$ zephyr-align ${command} ${words.join(" ")}`);
  const json = at(`${command}.json`);
  const args = [path("dist/cli.js"), command, ...words, "--json", json];
  const { status } = spawnSync(process.execPath, args, { stdio: "inherit" });
  if (status !== 0) process.exit(status ?? 1);
  return JSON.parse(readFileSync(json, "utf8"));
}

// What suits a model of 1.3 M parameters; the demo's world writes everything small and has conversations of two rounds.
const small = "--max-length 256 --lr-scheduler cosine --warmup-ratio 0.1 --recompute none --learning-rate 1e-3";
const world = "--rounds 2 --no-truecase --min-answer-words 1";

// 1. Distil: topics → subtopics → first messages → two roles.
const distil = zephyr("distil", `--teacher offline --limit ${conversations} ${world}`, { out: at("chats") });

// 2. dSFT on them.
const sft = zephyr("sft", `--epochs 4 --batch-size 32 ${small}`, {
  model: path("recipes/demo/base"),
  data: at("chats", "train_sft.jsonl"),
  "eval-data": at("chats", "test_sft.jsonl"),
  out: at("sft"),
});

// 3. Rate: answers of a pool to every user turn; the best against one that is clearly worse.
const pool = "offline offline:careless offline:wordy offline:sloppy offline:poor";
const choice = "--score overall --min-margin 2 --test-share 0.1";
const rate = zephyr("rate", `--pool ${pool} --rater offline --turns all ${choice}`, {
  prompts: at("chats", "train_gen.jsonl"),
  out: at("rated"),
});

// 4. dDPO. The chosen answers' own likelihood is in the loss, as in the demo: so small a model would unlearn them.
const dpo = zephyr("dpo", `--loss-type sigmoid,sft --beta 0.1 --epochs 3 --batch-size 16 ${small}`, {
  model: at("sft", "model"),
  data: at("rated", "train_prefs.jsonl"),
  "eval-data": at("rated", "test_prefs.jsonl"),
  out: at("dpo"),
});

const best = Object.entries(rate.rating.models).map(([name, { overall }]) => `${name} ${overall.toFixed(1)}`);
console.log(`
conversations   ${distil.report.conversations} (${distil.report.openings - distil.report.conversations} openings dropped)
dSFT            held-out loss ${sft.eval_metrics.eval_loss.toFixed(3)}, token accuracy ${sft.eval_metrics.eval_mean_token_accuracy.toFixed(3)}
rated           ${rate.rating.rated} prompts; overall scores: ${best.join(", ")}
pairs           ${rate.pairs.pairs}; chosen ${rate.pairs.scores.chosen.toFixed(2)}, rejected ${rate.pairs.scores.rejected.toFixed(2)}
dDPO            held-out reward accuracy ${dpo.eval_metrics["eval_rewards/accuracies"].toFixed(3)}, margin ${dpo.eval_metrics["eval_rewards/margins"].toFixed(2)}
everything in   ${folder}`);
