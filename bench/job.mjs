/** What the measurements of training have in common: where model and rows are, one process a measurement, what is kept. */
import { execFile } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus, homedir, totalmem } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { writeTables } from "./table.mjs";

const here = dirname(fileURLToPath(import.meta.url));

/** Beside the clone. */
export const shared = join(here, "..", "..", "shared");

/** The built package. */
export const dist = join(here, "..", "dist", "index.js");

/** Folder of ../shared/env/models.sh, and the real model in it, as Hugging Face lays it out. */
export const models = process.env.ZEPHYR_TEST_DATA ?? join(homedir(), ".cache", "zephyr-align-test");
export const model = join(models, "smollm2-135m-instruct");
export const hasModel = () => existsSync(join(model, "model.safetensors"));

/** Refuses before minutes are spent. */
export function requireOurs() {
  if (!existsSync(dist)) fail("dist/index.js is missing. Run `npm run build`.");
}

/** As above, where the model is not made here. */
export function requireModel() {
  if (!hasModel()) fail(`${model} is missing. Run ../shared/env/models.sh --hf.`);
}

/** `count` rows of pairs/NAME.jsonl of ../shared/data (ZEPHYR_DATA: another folder), evenly spread over the file. */
export function evenlySpread(name, count) {
  const file = join(process.env.ZEPHYR_DATA ?? join(shared, "data"), "pairs", `${name}.jsonl`);
  const lines = readFileSync(file, "utf8").split("\n").filter(Boolean);
  if (lines.length < count) fail(`${name}.jsonl has ${lines.length} rows, but the run needs ${count}.`);
  return Array.from({ length: count }, (_, index) => lines[Math.floor((index * lines.length) / count)]);
}

/** Writes rows as JSON lines; returns the file. */
export function writeRows(file, rows) {
  writeFileSync(file, `${rows.join("\n")}\n`);
  return file;
}

/** What a process prints. */
export async function start(command, args, threads, environment = {}, cwd = undefined) {
  const env = { ...process.env, OMP_NUM_THREADS: String(threads), ...environment };
  try {
    return (await promisify(execFile)(command, args.map(String), { env, cwd, maxBuffer: 2 ** 28 })).stdout;
  } catch (error) {
    fail(`${command} ${args[0]} failed:\n${error.stderr ?? error.message}`);
  }
}

/** One run of our trainer (measure.mjs) on the real model. */
export async function measureOurs(job) {
  const args = [join(here, "measure.mjs"), JSON.stringify({ model, ...job })];
  return lastLine(await start(process.execPath, args, job.threads));
}

export function lastLine(text) {
  return JSON.parse(text.trim().split("\n").at(-1));
}

/** The machine, for a report. */
export function machine() {
  return { cpu: cpus()[0]?.model.trim(), cores: cpus().length, memory_gib: Math.round(totalmem() / 2 ** 30) };
}

/** Writes the report where --json and --write ask for it. */
export function keep(report, flags) {
  if (flags.json) writeJson(resolve(flags.json), report);
  if (!flags.write) return;
  writeJson(join(here, "results", `${report.name}.json`), report);
  writeTables(join(here, "results"));
}

function writeJson(file, value) {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, `${JSON.stringify(value, null, 2)}\n`);
  console.error(`wrote ${file}`);
}

/** A flag that is a whole number. */
export function whole(flags, name, least) {
  const value = Number(flags[name]);
  if (!Number.isInteger(value) || value < least)
    fail(`--${name} ${flags[name]}: give a whole number of at least ${least}.`);
  return value;
}

export function sum(values) {
  return values.reduce((all, value) => all + value, 0);
}

export function median(values) {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

export function fail(message) {
  console.error(`bench:${basename(process.argv[1], ".mjs")}: ${message}`);
  process.exit(1);
}
