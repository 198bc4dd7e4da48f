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
const base = path("recipes/demo/base");

/** Runs a command of the program and returns what it writes to --json. */
function zephyr(command, ...flags) {
  console.log(`\n$ zephyr-align ${command} ${flags.join(" ")}`);
  const json = at(`${command}.json`);
  const { status } = spawnSync(process.execPath, [path("dist/cli.js"), command, ...flags, "--json", json], {
    stdio: "inherit",
  });
  if (status !== 0) process.exit(status ?? 1);
  return JSON.parse(readFileSync(json, "utf8"));
}

// What suits a model of 1.3 M parameters; the world of the demo writes everything small.
const small = ["--max-length", "256", "--lr-scheduler", "cosine", "--warmup-ratio", "0.1", "--recompute", "none"];
const world = ["--rounds", "2", "--no-truecase", "--min-answer-words", "1"];

// 1. Distil: topics → subtopics → first messages → two roles.
const distil = zephyr("distil", "--teacher", "offline", "--limit", conversations, ...world, "--out", at("chats"));

// 2. dSFT on them.
const chats = ["--data", at("chats", "train_sft.jsonl"), "--eval-data", at("chats", "test_sft.jsonl")];
const sft = zephyr(
  "sft",
  "--model",
  base,
  ...chats,
  "--learning-rate",
  "1e-3",
  "--epochs",
  "4",
  "--batch-size",
  "32",
  ...small,
  "--out",
  at("sft"),
);

// 3. Rate: five models answer every user turn, the rater scores, best against one that is clearly worse.
const pool = ["offline", "offline:careless", "offline:wordy", "offline:sloppy", "offline:poor"];
const rate = zephyr(
  "rate",
  ...["--prompts", at("chats", "train_gen.jsonl"), "--turns", "all", "--pool", ...pool, "--rater", "offline"],
  ...["--score", "overall", "--min-margin", "2", "--test-share", "0.1", "--out", at("rated")],
);

// 4. dDPO. The chosen answers' own likelihood is in the loss, as in the demo: so small a model would unlearn them.
const pairs = ["--data", at("rated", "train_prefs.jsonl"), "--eval-data", at("rated", "test_prefs.jsonl")];
const loss = [
  "--loss-type",
  "sigmoid,sft",
  "--beta",
  "0.1",
  "--learning-rate",
  "6e-4",
  "--epochs",
  "2",
  "--batch-size",
  "16",
];
const dpo = zephyr("dpo", "--model", at("sft", "model"), ...pairs, ...loss, ...small, "--out", at("dpo"));

const best = Object.entries(rate.rating.models).map(([name, { overall }]) => `${name} ${overall.toFixed(1)}`);
console.log(`
conversations   ${distil.report.conversations} (${distil.report.openings - distil.report.conversations} openings dropped)
dSFT            held-out loss ${sft.eval_metrics.eval_loss.toFixed(3)}, token accuracy ${sft.eval_metrics.eval_mean_token_accuracy.toFixed(3)}
rated           ${rate.rating.rated} prompts; overall scores: ${best.join(", ")}
pairs           ${rate.pairs.pairs}; chosen ${rate.pairs.scores.chosen.toFixed(2)}, rejected ${rate.pairs.scores.rejected.toFixed(2)}
dDPO            held-out reward accuracy ${dpo.eval_metrics["eval_rewards/accuracies"].toFixed(3)}, margin ${dpo.eval_metrics["eval_rewards/margins"].toFixed(2)}
everything in   ${folder}`);
