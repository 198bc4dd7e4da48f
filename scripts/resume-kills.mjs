// Kills training processes with SIGKILL at random instants, during saves too, and resumes them until they are done: the
// final weights, the last checkpoint (weights, moments, record) and metrics.jsonl must be those of the undisturbed run,
// byte for byte. Every method is killed at least once.
// usage: node scripts/resume-kills.mjs [--kills 200] [--methods sft,packed,dpo,lora] [--seed 1] [--json FILE]
// Needs the addon and dist/ (`node scripts/ready.mjs`).
import { execFileSync, fork } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");

/** A run of each method: windows of the log and of accumulation that span checkpoints, and evaluations between them. */
const common = {
  batchSize: 2,
  gradientAccumulation: 2,
  maxSteps: 20,
  saveSteps: 2,
  logSteps: 3,
  skipZScore: 6,
  samples: 1,
};
const methods = {
  sft: (zephyr, model, rows, options) =>
    new zephyr.SftTrainer({
      model,
      dataset: rows.chats,
      evalDataset: rows.chats.slice(0, 3),
      evalSteps: 5,
      ...options,
    }),
  packed: (zephyr, model, rows, options) =>
    new zephyr.SftTrainer({ model, dataset: rows.chats, packing: true, maxLength: 64, ...options }),
  dpo: (zephyr, policy, rows, options) =>
    new zephyr.DpoTrainer({
      policy,
      dataset: rows.pairs,
      evalDataset: rows.pairs.slice(0, 3),
      evalSteps: 5,
      ...options,
    }),
  lora: (zephyr, policy, rows, options) =>
    new zephyr.DpoTrainer({ policy, dataset: rows.pairs, lora: { rank: 4, dropout: 0.1 }, ...options }),
  qlora: async (zephyr, model, rows, options) => {
    const policy = await frozen(zephyr, model, join(dirname(options.outputDir), "base"));
    return new zephyr.DpoTrainer({ policy, dataset: rows.pairs, lora: { rank: 4 }, ...options });
  },
  following: (zephyr, policy, rows, options) =>
    new zephyr.DpoTrainer({ policy, dataset: rows.pairs, syncRefModel: true, refModelSyncSteps: 3, ...options }),
  orpo: (zephyr, policy, rows, options) => new zephyr.OrpoTrainer({ policy, dataset: rows.pairs, ...options }),
  kto: (zephyr, policy, rows, options) =>
    new zephyr.KtoTrainer({ policy, dataset: rows.pairs, optimizer: "adamw-8bit", ...options }),
  noise: (zephyr, model, rows, options) =>
    new zephyr.SftTrainer({
      model,
      dataset: rows.chats,
      neftuneNoiseAlpha: 5,
      optimizer: "adamw-bf16",
      ...options,
    }),
  /** Far enough that the guard against outliers acts: from the 64th step on, and step 81 is of another kind. */
  skipping: (zephyr, model, rows, options) =>
    new zephyr.SftTrainer({
      model,
      dataset: Array.from({ length: 90 }, (_, index) => (index === 80 ? odd : rows.chats[0])),
      ...options,
      learningRate: 1e-6,
      batchSize: 1,
      gradientAccumulation: 1,
      shuffle: false,
      maxSteps: 90,
      saveSteps: 7,
    }),
};

const odd = {
  messages: [
    { role: "user", content: "say ten." },
    { role: "assistant", content: "zq! xv? jk; ".repeat(8) },
  ],
};

/** The model as it is in memory with NF4 weights, which are read from a folder. */
async function frozen(zephyr, model, folder) {
  if (!existsSync(folder)) await model.save(folder);
  return zephyr.Mistral.fromPretrained(folder, { quantization: "nf4" });
}

const { values: given } = parseArgs({
  options: {
    kills: { type: "string", default: "200" },
    methods: { type: "string", default: Object.keys(methods).join(",") },
    seed: { type: "string", default: "1" },
    json: { type: "string" },
    worker: { type: "string" },
    out: { type: "string" },
  },
});

if (given.worker) await work(given.worker, given.out);
else process.exitCode = await main();

/** One process: trains, going on from what is there. */
async function work(method, outputDir) {
  const zephyr = await import(join(root, "dist", "index.js"));
  const base = await zephyr.Mistral.fromPretrained(join(root, "recipes", "demo", "base"));
  const small = { hidden_size: 32, intermediate_size: 64, num_hidden_layers: 1, num_attention_heads: 2 };
  const config = { ...base.config, ...small, num_key_value_heads: 1, head_dim: 16 };
  const model = await zephyr.Mistral.random(config, base.tokenizer, 7);
  const options = { ...common, learningRate: 1e-3, threads: 2, outputDir, resume: true };
  const trainer = await methods[method](zephyr, model, rows(), options);
  process.send("ready");
  await trainer.fit();
  process.disconnect();
}

function rows() {
  const words = ["two", "seven", "nine", "ten", "hat", "red", "cat", "sun"];
  const say = (index) => [...words.slice(index % 5), words[(3 * index) % 8]].join(" ");
  const chats = Array.from({ length: 22 }, (_, index) => ({
    messages: [
      { role: "user", content: `say ${say(index)}.` },
      { role: "assistant", content: `${say(index + 2)}.` },
    ],
  }));
  const pairs = chats.map(({ messages: [user, answer] }, index) => ({
    prompt: [user],
    chosen: [answer],
    rejected: [{ role: "assistant", content: `the ${say(index + 4)} is red.` }],
  }));
  return { chats, pairs };
}

/** Runs a worker; kills it `milliseconds` after it began the run, unless it is done before. */
function attempt(method, outputDir, milliseconds) {
  return new Promise((resolve, reject) => {
    let started;
    let timer;
    const args = ["--worker", method, "--out", outputDir];
    const child = fork(fileURLToPath(import.meta.url), args, { stdio: ["ignore", "ignore", "pipe", "ipc"] });
    let errors = "";
    child.stderr.on("data", (text) => {
      errors += text;
    });
    child.on("message", () => {
      started = performance.now();
      if (milliseconds !== undefined) timer = setTimeout(() => child.kill("SIGKILL"), milliseconds);
    });
    child.on("exit", (code, signal) => {
      clearTimeout(timer);
      const killed = signal === "SIGKILL";
      if (!killed && code !== 0) reject(new Error(`${method}: the run failed instead of going on:\n${errors}`));
      else resolve({ killed, milliseconds: performance.now() - started });
    });
  });
}

/** Hashes of everything that a run leaves and that must not depend on how often it was killed. */
function results(outputDir) {
  const hash = (path) => createHash("sha256").update(readFileSync(path)).digest("hex");
  const found = { "metrics.jsonl": hash(join(outputDir, "metrics.jsonl")) };
  const trained = ["model", "adapter"].filter((name) => existsSync(join(outputDir, name)));
  if (trained.length === 0) throw new Error(`${outputDir} holds no trained model`);
  const saved = readdirSync(join(outputDir, "checkpoints")).map((name) => `checkpoints/${name}`);
  for (const folder of [...trained, ...saved]) {
    const path = join(outputDir, folder);
    for (const name of readdirSync(path)) found[`${folder}/${name}`] = hash(join(path, name));
  }
  return found;
}

/** What a killed process was doing, as its remains tell. */
function remains(outputDir) {
  const checkpoints = join(outputDir, "checkpoints");
  const names = existsSync(checkpoints) ? readdirSync(checkpoints) : [];
  if (names.some((name) => name.endsWith(".writing"))) return "writing a checkpoint";
  if (names.some((name) => name.endsWith(".removed"))) return "removing a checkpoint";
  if (existsSync(outputDir) && readdirSync(outputDir).some((name) => name.endsWith(".writing")))
    return "saving the model";
  return names.length > 0 ? "between saves" : "before the first checkpoint";
}

/** Numbers in [0, 1) that a seed repeats (mulberry32). */
function random(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

async function killMethod(method, kills, next, folder) {
  const whole = join(folder, `${method}-whole`);
  let { milliseconds } = await attempt(method, whole, undefined);
  const expected = results(whole);
  if (method === "skipping" && !readFileSync(join(whole, "metrics.jsonl"), "utf8").includes('"skipped_updates":1'))
    throw new Error("skipping: no update was skipped, so that nothing is shown of the guard");
  const found = { method, kills: 0, identical: 0, runs: 0, differing: [], killed: {} };
  while (found.kills < kills) {
    const outputDir = join(folder, `${method}-${found.runs++}`);
    let ofRun = 0;
    for (let done = false; !done; ) {
      // A run is killed a few times; the last one of all is left to end.
      const delay = found.kills + ofRun < kills && ofRun < 8 ? next() * milliseconds : undefined;
      const ended = await attempt(method, outputDir, delay);
      done = !ended.killed;
      // How long a run takes depends on what else the machine does.
      if (done && ofRun === 0) milliseconds = ended.milliseconds;
      if (done) break;
      ofRun++;
      const where = remains(outputDir);
      found.killed[where] = (found.killed[where] ?? 0) + 1;
    }
    const now = results(outputDir);
    const names = new Set([...Object.keys(expected), ...Object.keys(now)]);
    const differing = [...names].filter((name) => expected[name] !== now[name]);
    found.kills += ofRun;
    if (differing.length === 0) found.identical += ofRun;
    else found.differing.push({ run: outputDir, kills: ofRun, differing });
    if (differing.length === 0) rmSync(outputDir, { recursive: true });
  }
  return found;
}

/** The commit that was tested; with a + where files differ from it. */
function commit() {
  const git = (...args) => execFileSync("git", ["-C", root, ...args], { encoding: "utf8" }).trim();
  try {
    return `${git("rev-parse", "HEAD")}${git("status", "--porcelain", "--untracked-files=no") ? "+" : ""}`;
  } catch {
    return "unknown";
  }
}

async function main() {
  const dist = join(root, "dist", "index.js");
  if (!existsSync(dist) || statSync(dist).size === 0) throw new Error("dist/ is missing: run node scripts/ready.mjs");
  const names = given.methods.split(",");
  for (const name of names)
    if (!methods[name]) throw new Error(`no method ${name}: ${Object.keys(methods).join(", ")}`);
  if (!(given.kills >= names.length))
    throw new Error(`--kills ${given.kills}: every one of ${names.length} methods is killed at least once`);
  const folder = mkdtempSync(join(tmpdir(), "zephyr-kills-"));
  const next = random(Number(given.seed));
  const started = performance.now();
  const tested = commit();
  const all = [];
  for (const [index, method] of names.entries()) {
    const share =
      Math.floor(((index + 1) * given.kills) / names.length) - Math.floor((index * given.kills) / names.length);
    const found = await killMethod(method, share, next, folder);
    all.push(found);
    const where = Object.entries(found.killed).map(([what, count]) => `${count} ${what}`);
    console.log(
      `${method}: ${found.identical}/${found.kills} kills, ${found.runs} runs identical to the undisturbed one`,
    );
    console.log(`  killed ${where.join(", ")}`);
    for (const { run, differing } of found.differing) console.log(`  ${run} differs in ${differing.join(", ")}`);
  }
  const kills = all.reduce((sum, found) => sum + found.kills, 0);
  const identical = all.reduce((sum, found) => sum + found.identical, 0);
  const seconds = (performance.now() - started) / 1000;
  console.log(`${identical}/${kills} in ${Math.round(seconds)} s`);
  if (given.json) {
    const made = { date: new Date().toISOString(), commit: tested, seed: Number(given.seed), seconds };
    const report = { kills, identical, ...made, methods: all };
    writeFileSync(given.json, `${JSON.stringify(report, null, 2)}\n`);
  }
  if (identical === kills) rmSync(folder, { recursive: true });
  return identical === kills ? 0 : 1;
}
