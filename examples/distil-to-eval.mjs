// The whole road from an empty folder: a teacher makes conversations, a small model learns them, a pool answers, a rater
// rates, the model learns from the pairs, and a judge grades what came of it.
// usage: node examples/distil-to-eval.mjs [FOLDER] [CONVERSATIONS] [SERVER]
// Teacher, pool, rater and judge are rules of ours, offline or behind an OpenAI-compatible SERVER that has them under
// their names; the model is the demo's base. For a real teacher give `--teacher`, `--rater` and `--judge` the names of a
// server's models. Run it from a clone after `npm run ready`.
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { offlineQuestions } from "../dist/index.js";

const path = (name) => fileURLToPath(new URL(`../${name}`, import.meta.url));
const [, , folder = mkdtempSync(join(tmpdir(), "distil-example-")), conversations = "800", server] = process.argv;
const at = (...names) => join(folder, ...names);

/** The flags that say who plays a role. */
function played(role, ...models) {
  if (server === undefined) return `--${role} ${models.join(" ")}`;
  return `--${role} ${models.map((model) => `server:${model}`).join(" ")} --${role}-url ${server}`;
}

function writeRows(file, rows) {
  writeFileSync(file, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
}

/** Runs a command of the program and returns what it writes to --json. Flags are words of a text, or paths by name. */
function zephyr(command, flags, paths, files = []) {
  const named = Object.entries(paths).flatMap(([name, value]) => [value].flat().flatMap((each) => [`--${name}`, each]));
  const words = [...files, ...flags.split(" ").filter(Boolean), ...named];
  console.log(`\n$ zephyr-align ${command} ${words.join(" ")}`);
  const json = at(`${command.split(" ").at(-1)}.json`);
  const args = [path("dist/cli.js"), ...command.split(" "), ...words, "--json", json];
  const { status } = spawnSync(process.execPath, args, { stdio: "inherit" });
  if (status !== 0) process.exit(status ?? 1);
  return JSON.parse(readFileSync(json, "utf8"));
}

// What suits a model of 1.3 M parameters; the demo's world writes everything small and has conversations of two rounds.
const small = "--max-length 256 --lr-scheduler cosine --warmup-ratio 0.1 --recompute none --learning-rate 1e-3";
const world = "--rounds 2 --no-truecase --min-answer-words 1";

// 1. Distil: topics → subtopics → first messages → two roles.
const distil = zephyr("distil", `${played("teacher", "offline")} --limit ${conversations} ${world}`, {
  out: at("chats"),
});

// 2. dSFT on them.
const sft = zephyr("sft", `--epochs 4 --batch-size 32 ${small}`, {
  model: path("recipes/demo/base"),
  data: at("chats", "train_sft.jsonl"),
  "eval-data": at("chats", "test_sft.jsonl"),
  out: at("sft"),
});

// 3. Rate: answers of a pool to every user turn; the best against one that is clearly worse.
const flaws = ["careless", "wordy", "sloppy", "poor"].map((flaw) => `offline:${flaw}`);
const models = `${played("pool", "offline", ...flaws)} ${played("rater", "offline")}`;
const choice = "--score overall --min-margin 2 --test-share 0.1";
const rate = zephyr("rate", `${models} --turns all ${choice}`, {
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

// 5. Judge base, dSFT and dDPO by questions that nobody was asked. The folder is in MT-Bench's layout, the questions and the
// judge's words are our own; with `zephyr-align pull mt-bench` the same command asks MT-Bench's.
const grade = "Grade the last answer from 1 to 10. Write the grade between double brackets, like this: [[rating]].";
const prompt = (name, template) => ({
  name,
  type: "single",
  system_prompt: "You grade answers.",
  prompt_template: `${grade}\n\n${template}`,
  description: "",
  category: "general",
  output_format: "[[rating]]",
});
const talk = ["1", "2"].map((n) => `### User:\n{question_${n}}\n\n### Assistant:\n{answer_${n}}`).join("\n\n");
mkdirSync(at("bench"), { recursive: true });
writeRows(at("bench", "question.jsonl"), offlineQuestions(4));
writeRows(at("bench", "judge_prompts.jsonl"), [
  prompt("single-v1", "[Question]\n{question}\n\n[Start of the answer]\n{answer}\n[End of the answer]"),
  prompt("single-v1-multi-turn", `[Start of the conversation]\n${talk}\n[End of the conversation]`),
]);
const judged = zephyr("eval mt-bench", `${played("judge", "offline")} --max-tokens 48`, {
  bench: at("bench"),
  model: [path("recipes/demo/base"), at("sft", "model"), at("dpo", "model")],
  out: at("judged"),
});

// 6. A page of it.
zephyr("report", "", { out: at("report.html") }, [at("mt-bench.json")]);

const figure = ({ model, figures: [score] }) =>
  `${model.name} ${score.value?.toFixed(2)} (${score.low?.toFixed(2)}–${score.high?.toFixed(2)})`;
const best = Object.entries(rate.rating.models).map(([name, { overall }]) => `${name} ${overall.toFixed(1)}`);
console.log(`
conversations   ${distil.report.conversations} (${distil.report.openings - distil.report.conversations} openings dropped)
dSFT            held-out loss ${sft.eval_metrics.eval_loss.toFixed(3)}, token accuracy ${sft.eval_metrics.eval_mean_token_accuracy.toFixed(3)}
rated           ${rate.rating.rated} prompts; overall scores: ${best.join(", ")}
pairs           ${rate.pairs.pairs}; chosen ${rate.pairs.scores.chosen.toFixed(2)}, rejected ${rate.pairs.scores.rejected.toFixed(2)}
dDPO            held-out reward accuracy ${dpo.eval_metrics["eval_rewards/accuracies"].toFixed(3)}, margin ${dpo.eval_metrics["eval_rewards/margins"].toFixed(2)}
judged          ${[judged].flat().map(figure).join(", ")}
everything in   ${folder}`);
