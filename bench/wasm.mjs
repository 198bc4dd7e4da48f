/**
 * Inference in WebAssembly: ours against wllama in the same Chromium on the same GGUF files, with the same number of threads,
 * and ours in Node.
 *
 * usage: node bench/wasm.mjs [--threads 1,2] [--repeat 3] [--only smollm2-q4_1,smollm2-q8_0] [--peer FOLDER] [--models FOLDER] [--json FILE] [--write]
 *
 * Each measurement is a browser of its own, both sides in turn, in changing order; in it a page loads the model and answers,
 * three times over. A prompt of about 512 tokens is prefilled, 64 are decoded greedily; figures are medians over all
 * answers. Memory is the highest resident memory of the page's process (VmHWM) after the first answer.
 *
 * --json FILE writes every number; --write writes results/wasm.json and the table of results/README.md.
 * The peer's page is ../shared/peers/wllama/index.html (ZEPHYR_PEERS: another folder); --peer (default
 * /tmp/zephyr-peer-wllama) holds @wllama/wllama, which is no dependency of the package. Chromium: ZEPHYR_CHROMIUM, else
 * /usr/bin/chromium. Models: SmolLM2 Q4_1 by ../shared/env/models.sh, and our Q8_0 export of it, which is written where it is missing.
 */
import { execFileSync } from "node:child_process";
import { createReadStream, existsSync, readFileSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { loadavg } from "node:os";
import { extname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";
import { fail, keep, lastLine, machine, median, models, shared, start, whole } from "./job.mjs";
import { wasmTable } from "./table.mjs";

const { values: flags } = parseArgs({
  options: {
    threads: { type: "string", default: "1,2" },
    repeat: { type: "string", default: "3" },
    only: { type: "string" },
    peer: { type: "string", default: "/tmp/zephyr-peer-wllama" },
    models: { type: "string", default: models },
    json: { type: "string" },
    write: { type: "boolean", default: false },
  },
});
const repeat = whole(flags, "repeat", 1);
const counts = flags.threads.split(",").map((threads) => whole({ threads }, "threads", 1));
const ANSWERS = 3;
const root = fileURLToPath(new URL("..", import.meta.url));
const executablePath = process.env.ZEPHYR_CHROMIUM ?? "/usr/bin/chromium";
const peerPage = join(process.env.ZEPHYR_PEERS ?? join(shared, "peers"), "wllama", "index.html");
const all = [
  { name: "smollm2-q4_1", title: "SmolLM2-135M Q4_1", file: join(flags.models, "smollm2-135m-instruct.q4_1.gguf") },
  {
    name: "smollm2-q8_0",
    title: "SmolLM2-135M Q8_0",
    kind: "Q8_0",
    file: join(flags.models, "smollm2-135m-instruct.q8_0.gguf"),
  },
];
const files = all.filter(({ name }) => !flags.only || flags.only.split(",").includes(name));
if (files.length === 0) fail(`--only ${flags.only} names no model.`);
prepare();

const load = [loadavg()[0]];
const results = [];
const seen = {};
for (const model of files) for (const threads of counts) results.push(await compare(model, threads));
load.push(loadavg()[0]);

const report = {
  name: "wasm",
  about:
    "Ours against wllama in one browser on one file, with as many threads; ratio = ours / peer (above 1 better), load and memory below 1.",
  date: new Date().toISOString(),
  machine: { ...machine(), load_before: load[0], load_after: load[1] },
  repetitions: repeat * ANSWERS,
  versions: versions(),
  results,
};
console.log(wasmTable(report));
keep(report, flags);

/** Everything that must be there, before minutes are spent. */
function prepare() {
  if (!existsSync(join(root, "dist", "web", "browser.js"))) fail("dist/web is missing. Run `npm run build:wasm`.");
  if (!existsSync(executablePath)) fail(`${executablePath} is missing. Set ZEPHYR_CHROMIUM.`);
  if (!existsSync(peerPage)) fail(`the peer ${peerPage} is missing. Set ZEPHYR_PEERS to its folder.`);
  if (!existsSync(join(flags.peer, "node_modules", "@wllama", "wllama"))) {
    const install = `mkdir -p ${flags.peer} && cd ${flags.peer} && npm init -y && npm i @wllama/wllama@3`;
    fail(`${flags.peer} has no @wllama/wllama. ${install}`);
  }
  for (const { file, kind } of files.includes(all[1]) ? all : files) {
    if (existsSync(file)) continue;
    if (!kind) fail(`${file} is missing. Run ../shared/env/models.sh.`);
    process.stderr.write(`writing ${file} …\n`);
    const cli = join(root, "dist", "cli.js");
    execFileSync(process.execPath, [cli, "export", "gguf", all[0].file, file, "--type", kind], { stdio: "inherit" });
  }
}

/** Both sides in turn on one file, then ours in Node. */
async function compare({ name, title, file }, threads) {
  const runs = { ours: [], peer: [], node: [] };
  for (let round = 0; round < repeat; round++) {
    // The order turns round, so that a machine that grows slower or faster favours neither side.
    for (const side of round % 2 === 0 ? ["ours", "peer"] : ["peer", "ours"]) {
      const run = await inBrowser(side, file, threads);
      say(`${name}, ${threads} threads, round ${round + 1}/${repeat}, ${side}`, run);
      runs[side].push(run);
    }
    const run = lastLine(
      await start(process.execPath, [join(root, "bench/wasm/node.mjs"), file, ANSWERS, threads], threads),
    );
    run.load_ms = [run.load_ms];
    say(`${name}, ${threads} threads, round ${round + 1}/${repeat}, ours in Node`, run);
    runs.node.push(run);
  }
  const [ours, peer, node] = [summary(runs.ours), summary(runs.peer), summary(runs.node)];
  const ratio = (key) => ours[key].median / peer[key].median;
  return {
    name,
    title,
    threads,
    file_mib: statSync(file).size / 2 ** 20,
    ratio: { prefill: ratio("prefill_tok_s"), decode: ratio("decode_tok_s") },
    load_ratio: ratio("load_ms"),
    memory_ratio: ours.peak_rss_mib / peer.peak_rss_mib,
    ours,
    peer,
    node,
  };
}

function say(what, { runs, peak_rss_mib }) {
  const [prefill, decode] = ["prefill_tok_s", "decode_tok_s"].map((key) => median(runs.map((one) => one[key])));
  process.stderr.write(
    `${what}: prefill ${prefill.toFixed(1)}, decode ${decode.toFixed(1)} tok/s, ${Math.round(peak_rss_mib)} MiB\n`,
  );
}

/** A page of one side in a browser of its own. */
async function inBrowser(side, model, threads) {
  const server = await serve(side, model, threads > 1);
  const args = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
  ];
  const browser = await chromium.launch({ executablePath, args });
  try {
    seen.chromium ??= browser.version();
    const page = await browser.newPage();
    page.on("pageerror", (error) => process.stderr.write(`${side}: ${error.message}\n`));
    await page.goto(`http://127.0.0.1:${server.address().port}/`);
    await page.waitForFunction("window.ready");
    const found = [];
    let peak_rss_mib;
    for (let answer = 0; answer < ANSWERS; answer++) {
      // A model file is read, not fetched, while the clock runs.
      found.push(await page.evaluate((threads) => window.bench(threads), threads));
      peak_rss_mib ??= await peakOfPages(browser);
    }
    const runs = found.map((one) => (side === "ours" ? ourRun(one) : peerRun(one, threads)));
    return { load_ms: found.map((one) => one.load), peak_rss_mib, runs };
  } finally {
    await browser.close();
    server.close();
  }
}

function ourRun({ timing, answered }) {
  return {
    prompt_tokens: timing.promptTokens,
    prefill_tok_s: (timing.promptTokens * 1000) / timing.promptMs,
    decode_tok_s: ((answered - 1) * 1000) / timing.answerMs,
  };
}

function peerRun({ timings, threads }, asked) {
  if (threads !== asked) throw new Error(`the peer took ${threads} threads`);
  return {
    prompt_tokens: timings.prompt_n,
    prefill_tok_s: timings.prompt_per_second,
    decode_tok_s: timings.predicted_per_second,
  };
}

/** The highest resident memory of the browser's page processes. */
async function peakOfPages(browser) {
  const session = await browser.newBrowserCDPSession();
  const { processInfo } = await session.send("SystemInfo.getProcessInfo");
  const peaks = processInfo
    .filter(({ type }) => type === "renderer")
    .map(({ id }) => Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${id}/status`, "utf8"))?.[1] ?? 0) / 1024);
  return Math.max(...peaks);
}

function serve(side, model, isolated) {
  const types = { ".html": "text/html", ".js": "text/javascript", ".wasm": "application/wasm" };
  const home = side === "ours" ? root : flags.peer;
  const server = createServer((request, response) => {
    const path = decodeURIComponent(new URL(request.url, "http://localhost").pathname);
    const page = side === "ours" ? join(root, "bench/wasm/ours.html") : peerPage;
    const file = path === "/" ? page : path === "/model.gguf" ? model : join(home, path);
    if (path.includes("..") || !existsSync(file)) {
      response.writeHead(404).end();
      return;
    }
    const headers = {
      "content-type": types[extname(file)] ?? "application/octet-stream",
      "content-length": statSync(file).size,
    };
    if (isolated) {
      headers["cross-origin-opener-policy"] = "same-origin";
      headers["cross-origin-embedder-policy"] = "require-corp";
    }
    response.writeHead(200, headers);
    createReadStream(file).pipe(response);
  });
  return new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(server)));
}

function summary(runs) {
  const all = runs.flatMap((run) => run.runs);
  const over = (values) => {
    const middle = median(values);
    const [min, max] = [Math.min(...values), Math.max(...values)];
    return { median: middle, min, max, relative: (max - min) / middle };
  };
  return {
    prompt_tokens: all[0].prompt_tokens,
    prefill_tok_s: over(all.map((run) => run.prefill_tok_s)),
    decode_tok_s: over(all.map((run) => run.decode_tok_s)),
    load_ms: over(runs.flatMap((run) => run.load_ms)),
    peak_rss_mib: Math.max(...runs.map((run) => run.peak_rss_mib)),
  };
}

function versions() {
  const manifest = (file) => JSON.parse(readFileSync(file, "utf8"));
  const own = manifest(join(root, "package.json"));
  const theirs = manifest(join(flags.peer, "node_modules", "@wllama", "wllama", "package.json"));
  const commit = execFileSync("git", ["rev-parse", "--short", "HEAD"], { cwd: root, encoding: "utf8" }).trim();
  return {
    [own.name]: `${own.version} (${commit})`,
    [theirs.name]: theirs.version,
    chromium: seen.chromium,
    node: process.versions.node,
  };
}
