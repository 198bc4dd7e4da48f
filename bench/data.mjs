/**
 * A long data set through the readers with flat memory, and the tokenizer against Python's, in one run.
 *
 * usage: node bench/data.mjs [--rows 200000] [--texts 20000] [--repeat 3] [--python PYTHON] [--json FILE] [--write]
 *
 * Reading: the same generated conversations as JSONL, JSONL.gz, JSONL.zst and Parquet (row groups of 1000, and one single
 * row group), each read and converted for training in a process of its own (data-pass.mjs): rows per second, resident
 * memory at 10 % and 100 % of the rows and its peak. All must give the same rows, or the run fails.
 *
 * Tokenising: ours (data-tokens.mjs) and Python's `tokenizers` (data_tokens.py) on the same tokenizer.json and texts, with
 * the same number of threads, in turns, each in a process of its own. With one thread ours encodes text by text, as the
 * trainers do; Python has the fastest of its three ways. The ids must be the same, or the run fails.
 *
 * Python needs pyarrow and tokenizers (ZEPHYR_PEER_PYTHON). Tokenizer: ../shared/data/tokenizer (ZEPHYR_DATA).
 */
import { execFileSync, spawnSync } from "node:child_process";
import {
  createReadStream,
  createWriteStream,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
} from "node:fs";
import { loadavg, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { createGzip } from "node:zlib";
import { fail, keep, lastLine, machine, median, requireOurs, shared, start, whole, writeRows } from "./job.mjs";
import { dataTable } from "./table.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const { values: flags } = parseArgs({
  options: {
    rows: { type: "string", default: "200000" },
    texts: { type: "string", default: "20000" },
    repeat: { type: "string", default: "3" },
    python: { type: "string", default: process.env.ZEPHYR_PEER_PYTHON ?? "/tmp/peer/bin/python" },
    json: { type: "string" },
    write: { type: "boolean", default: false },
  },
});
const [rows, texts, repeat] = ["rows", "texts", "repeat"].map((name) => whole(flags, name, 1));
const { python } = flags;
const data = process.env.ZEPHYR_DATA ?? join(shared, "data");
const tokenizer = join(data, "tokenizer", "tokenizer.json");
requireOurs();
if (!existsSync(tokenizer)) fail(`${tokenizer} is missing: set ZEPHYR_DATA to a folder with tokenizer/tokenizer.json.`);
const versions = spawnSync(
  python,
  [
    "-c",
    "import json, pyarrow, tokenizers; print(json.dumps({'pyarrow': pyarrow.__version__, 'tokenizers': tokenizers.__version__}))",
  ],
  { encoding: "utf8" },
);
if (versions.status !== 0) fail(`${python} has no pyarrow or no tokenizers: give another --python.`);

const scratch = mkdtempSync(join(tmpdir(), "zephyr-bench-data-"));
const loadBefore = loadavg()[0];
try {
  const files = await writeFiles();
  const results = [];
  for (const [format, file] of Object.entries(files)) {
    process.stderr.write(`${format} … `);
    const cache = join(scratch, "cache");
    const pass = lastLine(
      await start(process.execPath, [join(here, "data-pass.mjs"), file], 1, { ZEPHYR_CACHE: cache }),
    );
    process.stderr.write(`${Math.round(pass.rows_per_s)} rows/s\n`);
    if (pass.rows !== rows) fail(`${format}: ${pass.rows} rows were read, not ${rows}`);
    if (pass.hash !== (results[0]?.hash ?? pass.hash))
      fail(`${format}: the rows are not those of ${results[0].format}`);
    results.push({ format, bytes: statSync(file).size, ...pass });
  }
  const report = {
    name: "data",
    about:
      "Conversations read and converted for training, one process a format; the tokenizer beside Python's `tokenizers` on the same texts.",
    date: new Date().toISOString(),
    machine: machine(),
    // Other work on the machine: an idle one of two cores has a load well below 1 before the run.
    load_average_before: loadBefore,
    quiet: loadBefore < 0.5,
    rows,
    versions: { node: process.versions.node, ...JSON.parse(versions.stdout) },
    reading: results.map(({ hash, ...rest }) => rest),
    tokenising: await tokenising(files.jsonl),
  };
  console.log(dataTable(report));
  keep(report, flags);
} finally {
  rmSync(scratch, { recursive: true, force: true });
}

/** The rows in every form; those that only Python writes are written by Python from the JSONL file. */
async function writeFiles() {
  process.stderr.write(`writing ${rows} conversations in every form … `);
  const jsonl = join(scratch, "chats.jsonl");
  await pipeline(Readable.from(conversations()), createWriteStream(jsonl));
  await pipeline(createReadStream(jsonl), createGzip({ level: 4 }), createWriteStream(`${jsonl}.gz`));
  const files = {
    jsonl,
    "jsonl.gz": `${jsonl}.gz`,
    "jsonl.zst": `${jsonl}.zst`,
    parquet: join(scratch, "chats.parquet"),
    "parquet, one row group": join(scratch, "one-group.parquet"),
  };
  execFileSync(python, [join(here, "data_files.py"), scratch], { stdio: ["ignore", "inherit", "inherit"] });
  process.stderr.write(`${(statSync(jsonl).size / 1e6).toFixed(0)} MB as JSONL\n`);
  return files;
}

/**
 * Conversations of two to six turns, about 2 kB each: sentences of the repository's own documents, drawn word by word after
 * the two words before (so that they compress and tokenise about as real text does). The same for the same number of rows.
 */
function* conversations() {
  const root = join(here, "..");
  const names = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    ...readdirSync(join(root, "docs")).map((name) => join("docs", name)),
  ];
  const words = names
    .filter((name) => name.endsWith(".md"))
    .flatMap((name) => readFileSync(join(root, name), "utf8").split(/(?<=\s)/));
  const following = new Map();
  for (let at = 2; at < words.length; at++) {
    const key = words[at - 2] + words[at - 1];
    following.set(key, [...(following.get(key) ?? []), at]);
  }
  let state = 12345;
  const draw = (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  const say = (count) => {
    let at = 2 + draw(words.length - 2);
    let text = "";
    for (let word = 0; word < count; word++) {
      text += words[at];
      const next = following.get(words[at - 1] + words[at]);
      at = next ? next[draw(next.length)] : 2 + draw(words.length - 2);
    }
    return text.trim() || "so";
  };
  for (let row = 0; row < rows; row++) {
    const messages = Array.from({ length: 2 * (1 + draw(3)) }, (_, turn) => ({
      content: say(turn % 2 === 0 ? 5 + draw(40) : 20 + draw(150)),
      role: turn % 2 === 0 ? "user" : "assistant",
    }));
    yield `${JSON.stringify({ prompt: messages[0].content, prompt_id: String(row).padStart(64, "0"), messages })}\n`;
  }
}

/** Ours and Python's in turns, over real texts where they are, and over the generated ones. */
async function tokenising(generated) {
  const answers = realTexts();
  const sets = [
    ...(answers ? [{ name: "answers of real models", file: answers }] : []),
    { name: "generated", file: generated },
  ];
  const results = [];
  for (const { name, file } of sets) for (const threads of [1, 2]) results.push(await compared(name, file, threads));
  return results;
}

/** The answers of the models in mt_bench/model_answer of ../shared/data, as rows; undefined when they are not there. */
function realTexts() {
  const folder = join(data, "mt_bench", "model_answer");
  if (!existsSync(folder)) {
    console.error(`SKIPPED: ${folder} is missing, real texts are not tokenised`);
    return undefined;
  }
  const lines = readdirSync(folder).flatMap((name) =>
    readFileSync(join(folder, name), "utf8").split("\n").filter(Boolean),
  );
  const turns = lines.flatMap((line) => JSON.parse(line).choices.flatMap(({ turns: texts }) => texts));
  const rows = turns.map((content) => JSON.stringify({ messages: [{ role: "assistant", content }] }));
  return writeRows(join(scratch, "answers.jsonl"), rows);
}

async function compared(name, file, threads) {
  const measured = { ours: [], peer: [] };
  for (let round = 0; round < repeat; round++) {
    for (const side of round % 2 === 0 ? ["ours", "peer"] : ["peer", "ours"]) {
      process.stderr.write(`tokenising ${name}, ${threads} thread(s), ${side} … `);
      const run = await tokenised(side, file, threads);
      process.stderr.write(`${Math.round(run.tokens_per_s)} tok/s\n`);
      measured[side].push(run);
    }
  }
  const hashes = new Set([...measured.ours, ...measured.peer].map(({ hash }) => hash));
  if (hashes.size > 1) fail(`${name}: ours and Python's give different ids`);
  const [ours, peer] = [summary(measured.ours), summary(measured.peer)];
  const { tokens } = measured.ours[0];
  return { name, threads, tokens, ours, peer, ratio: ours.tokens_per_s / peer.tokens_per_s };
}

async function tokenised(side, file, threads) {
  if (side === "ours") {
    return lastLine(
      await start(process.execPath, [join(here, "data-tokens.mjs"), tokenizer, file, texts, threads], threads),
    );
  }
  const environment = { RAYON_NUM_THREADS: String(threads), TOKENIZERS_PARALLELISM: threads > 1 ? "true" : "false" };
  return lastLine(await start(python, [join(here, "data_tokens.py"), tokenizer, file, texts], threads, environment));
}

function summary(runs) {
  const speeds = runs.map(({ tokens_per_s }) => tokens_per_s);
  const middle = median(speeds);
  const relative = (Math.max(...speeds) - Math.min(...speeds)) / middle;
  return { tokens_per_s: middle, spread: { relative }, ...(runs[0].way ? { ways: runs.map(({ way }) => way) } : {}) };
}
