/**
 * Tables of the committed results: results/README.md is made from results/*.json, never by hand.
 *
 * usage: node bench/table.mjs
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

/** The table of train.mjs's report, as Markdown. */
export function trainTable(report) {
  const { machine, versions } = report;
  const head = ["", "ours tok/s", "TRL tok/s", "ratio", "ours peak MiB", "TRL peak MiB", "memory ratio"];
  const speed = ({ tokens_per_s, spread }) =>
    `${tokens_per_s.toFixed(1)} ±${((spread.relative / 2) * 100).toFixed(0)} %`;
  const rows = report.results.map(({ title, ours, peer, ratio, memory_ratio }) => [
    title,
    speed(ours),
    speed(peer),
    `${ratio.toFixed(2)}×`,
    ours.peak_rss_mib.toFixed(0),
    peer.peak_rss_mib.toFixed(0),
    memory_ratio.toFixed(2),
  ]);
  const scoring = report.results.find(({ ours }) => ours.precompute_seconds)?.ours.precompute_seconds;
  const about = [
    `${report.model}, ${report.dtype}, ${report.threads} threads, batch ${report.batch}, max length ${report.max_length};`,
    `medians of ${report.repetitions} runs of ${report.steps_measured} steps (a first one left out), both sides in turn on`,
    `the same rows; ± is half the span of the runs, memory the highest peak. ${machine.cpu}, ${machine.cores} cores, ${machine.memory_gib} GiB;`,
    `${Object.entries(versions)
      .map(([name, version]) => `${name} ${version}`)
      .join(", ")}; ${report.date.slice(0, 10)}.`,
    ...(scoring
      ? [`A cached reference is scored before the first step, on both sides; ours took ${scoring.toFixed(1)} s.`]
      : []),
  ];
  return `${markdown([head, ...rows])}\n\n${about.join("\n")}\n`;
}

/** The least and the greatest of some shares. */
function range(shares) {
  return `${Math.min(...shares).toFixed(2)} to ${Math.max(...shares).toFixed(2)}`;
}

/** The table of infer.mjs's report. */
export function inferTable(report) {
  const { machine, versions } = report;
  const head = ["", "threads", "prefill tok/s", "peer", "ratio", "decode tok/s", "peer", "ratio", "load s", "peer"];
  const speed = ({ median, relative }) =>
    `${median.toFixed(median < 100 ? 1 : 0)} ±${((relative / 2) * 100).toFixed(0)} %`;
  const seconds = ({ median }) => (median / 1000).toFixed(2);
  const rows = report.results.map(({ title, threads, ours, peer, ratio }) => [
    title,
    String(threads),
    speed(ours.prefill_tok_s),
    speed(peer.prefill_tok_s),
    `${ratio.prefill.toFixed(2)}×`,
    speed(ours.decode_tok_s),
    speed(peer.decode_tok_s),
    `${ratio.decode.toFixed(2)}×`,
    seconds(ours.load_ms),
    seconds(peer.load_ms),
    ours.peak_rss_mib.toFixed(0),
    peer.peak_rss_mib.toFixed(0),
  ]);
  const scores = (key) => range(report.results.map(({ ours }) => ours[key].median / ours.prefill_tok_s.median));
  const about = [
    `Prompts of ${report.prompt_tokens} tokens, ${report.decoded_tokens} decoded greedily after them; medians of ${report.repetitions} answers, both sides in turn on the`,
    `same file; ± is half the span. The peer is node-llama-cpp, whose load is a map of the file. Log-probabilities of a text`,
    `come at ${scores("score_tok_s")} of the prefill's speed, exact in float32 (the default), and at ${scores("score_rounded_tok_s")} with \`exact: false\`; as`,
    `they need the head for every token, which a prefill needs for one, ${range(report.results.map(({ ours }) => ours.score_bound))} is what there can be.`,
    `${machine.cpu}, ${machine.cores} cores, ${machine.memory_gib} GiB (load ${machine.load_before.toFixed(1)});`,
    `${Object.entries(versions)
      .map(([name, version]) => `${name} ${version}`)
      .join(", ")}; ${report.date.slice(0, 10)}.`,
  ];
  return `${markdown([[...head, "peak MiB", "peer"], ...rows])}\n\n${about.join("\n")}\n`;
}

/** The table of wasm.mjs's report. */
export function wasmTable(report) {
  const { machine, versions } = report;
  const head = [
    "where, threads",
    "prefill tok/s",
    "wllama",
    "ratio",
    "decode tok/s",
    "wllama",
    "ratio",
    "load s",
    "wllama",
  ];
  const speed = ({ median, relative }) =>
    `${median.toFixed(median < 100 ? 1 : 0)} ±${((relative / 2) * 100).toFixed(0)} %`;
  const seconds = ({ median }) => (median / 1000).toFixed(2);
  const rows = report.results.flatMap(({ title, threads, ours, peer, node, ratio }) => [
    [
      `${title}, Chromium, ${threads}`,
      speed(ours.prefill_tok_s),
      speed(peer.prefill_tok_s),
      `${ratio.prefill.toFixed(2)}×`,
      speed(ours.decode_tok_s),
      speed(peer.decode_tok_s),
      `${ratio.decode.toFixed(2)}×`,
      seconds(ours.load_ms),
      seconds(peer.load_ms),
      ours.peak_rss_mib.toFixed(0),
      peer.peak_rss_mib.toFixed(0),
    ],
    [
      `${title}, Node, ${threads}`,
      ...[speed(node.prefill_tok_s), "", "", speed(node.decode_tok_s), "", ""],
      ...[seconds(node.load_ms), "", node.peak_rss_mib.toFixed(0), ""],
    ],
  ]);
  const about = [
    `Prompts of ${report.results[0].ours.prompt_tokens} tokens, 64 decoded greedily after them; medians of ${report.repetitions} answers, both sides in turn in`,
    `browsers of their own on the same file; ± is half the span. Memory is the highest of the page's process. ${machine.cpu},`,
    `${machine.cores} cores, ${machine.memory_gib} GiB (load ${machine.load_before.toFixed(1)});`,
    `${Object.entries(versions)
      .map(([name, version]) => `${name} ${version}`)
      .join(", ")}; ${report.date.slice(0, 10)}.`,
  ];
  return `${markdown([[...head, "peak MiB", "wllama"], ...rows])}\n\n${about.join("\n")}\n`;
}

/** The table of memory.mjs's report. */
export function memoryTable(report) {
  const policies = [...new Set(report.results.map(({ recompute }) => recompute))];
  const methods = [...new Set(report.results.map(({ name }) => name))];
  const cell = (name, policy) => {
    const run = report.results.find((each) => each.name === name && each.recompute === policy);
    return run ? `${run.peak_rss_mib.toFixed(0)} MiB, ${run.tokens_per_s.toFixed(0)} tok/s` : "";
  };
  const rows = methods.map((name) => [name, ...policies.map((policy) => cell(name, policy))]);
  const about = [
    `DPO of ${report.model} with cached reference, batch ${report.batch}, max length ${report.max_length}, ${report.threads} threads: peak of`,
    `the whole process (Node alone: ${report.node_mib.toFixed(0)} MiB) and speed, by recompute policy; the losses are equal to the last bit.`,
    ...(report.qlora_memory_ratio
      ? [
          `QLoRA takes ${report.qlora_memory_ratio.toFixed(2)} of LoRA's memory in f32 where recompute is "auto", and`,
          `${report.qlora_memory_ratio_layer.toFixed(2)} both under "layer".`,
        ]
      : []),
    `${report.machine.cpu}, ${report.machine.cores} cores; ${report.date.slice(0, 10)}.`,
  ];
  return `${markdown([["", ...policies], ...rows])}\n\n${about.join("\n")}\n`;
}

/** The table of shared-prompt.mjs's report. */
export function sharedPromptTable(report) {
  const head = [
    "",
    "tokens separate",
    "tokens shared",
    "ratio",
    "ms separate",
    "ms shared",
    "speedup",
    "shown",
    "ceiling",
  ];
  const rows = report.results.map(({ name, token_ratio, speedup, shown, ceiling, shared, separate }) => [
    name,
    String(separate.tokens),
    String(shared.tokens),
    `${token_ratio.toFixed(3)}×`,
    separate.step_ms.toFixed(0),
    shared.step_ms.toFixed(0),
    `${speedup.toFixed(3)}×`,
    // Of next to nothing no share can be measured.
    token_ratio < 1.05 ? "" : `${(100 * shown).toFixed(0)} %`,
    `${(100 * ceiling).toFixed(0)} %`,
  ]);
  return `${markdown([head, ...rows])}\n`;
}

/** The tables of data.mjs's report. */
export function dataTable(report) {
  const { machine, versions, reading, tokenising } = report;
  const about = [
    `${report.rows} conversations, ${(reading[0].bytes / report.rows / 1000).toFixed(1)} kB each; ${machine.cpu}, ${machine.cores} cores; Node ${versions.node}, tokenizers ${versions.tokenizers}.`,
    ...(report.quiet
      ? []
      : [`The machine was not quiet: load ${report.load_average_before.toFixed(1)} before the run.`]),
  ];
  const passes = reading.map(
    ({ format, bytes, rows_per_s, rss_at_10_percent_mib, rss_at_100_percent_mib, rss_peak_mib }) => [
      format,
      (bytes / 1e6).toFixed(0),
      rows_per_s.toFixed(0),
      rss_at_10_percent_mib.toFixed(0),
      rss_at_100_percent_mib.toFixed(0),
      rss_peak_mib.toFixed(0),
    ],
  );
  const speed = ({ tokens_per_s, spread }) =>
    `${tokens_per_s.toFixed(0)} ±${((spread.relative / 2) * 100).toFixed(0)} %`;
  const tokens = tokenising.map(({ name, threads, ours, peer, ratio }) => [
    `${name}, ${threads} thread${threads === 1 ? "" : "s"}`,
    speed(ours),
    speed(peer),
    `${ratio.toFixed(2)}×`,
  ]);
  return [
    `${about.join(" ")}`,
    "",
    markdown([["", "MB", "rows/s", "MiB at 10 %", "MiB at 100 %", "peak MiB"], ...passes]),
    "",
    markdown([["tokenising", "ours tok/s", "tokenizers tok/s", "ratio"], ...tokens]),
    "",
  ].join("\n");
}

/** Columns of even width, so that the table also reads well in a terminal. */
function markdown([head, ...rows]) {
  const widths = head.map((_, column) => Math.max(3, ...[head, ...rows].map((row) => row[column].length)));
  const line = (row) =>
    `| ${row.map((cell, column) => (column === 0 ? cell.padEnd(widths[0]) : cell.padStart(widths[column]))).join(" | ")} |`;
  const rule = widths.map((width, column) => (column === 0 ? "-".repeat(width) : `${"-".repeat(width - 1)}:`));
  return [line(head), line(rule), ...rows.map(line)].join("\n");
}

/** Writes the README of a results folder. */
export function writeTables(folder) {
  const parts = ["# Measured", "", "Made by `bench/table.mjs` from the JSON files beside it. Do not edit.", ""];
  for (const [name, title, table] of [
    ["train", "Training against TRL on the CPU: `npm run bench:train -- --write`", trainTable],
    ["infer", "Inference against node-llama-cpp on the CPU: `npm run bench:infer -- --write`", inferTable],
    [
      "infer-avx512",
      "The same on a processor with AVX-512 and VNNI: `npm run bench:infer -- --repeat 1 --json bench/results/infer-avx512.json`",
      inferTable,
    ],
    ["wasm", "WebAssembly against wllama: `npm run bench:wasm -- --write`", wasmTable],
    ["shared-prompt", "A pair's prompt computed once: `npm run bench:shared-prompt -- --write`", sharedPromptTable],
    [
      "shared-prompt-bounds",
      "A prompt of two words, and one of hundreds before short answers: `npm run bench:shared-prompt -- --bounds --batch 1 --max-length 768 --steps 4 --write`",
      sharedPromptTable,
    ],
    [
      "shared-prompt-mistral",
      "The same in Mistral's proportions: `npm run bench:shared-prompt -- --mistral --batch 1 --max-length 2048 --steps 4 --write`",
      sharedPromptTable,
    ],
    ["data", "Readers and tokenizer: `npm run bench:data -- --write`", dataTable],
    ["memory", "Memory by recompute policy and adapter: `npm run bench:memory -- --write`", memoryTable],
  ]) {
    const file = join(folder, `${name}.json`);
    if (existsSync(file)) parts.push(`## ${title}`, "", table(JSON.parse(readFileSync(file, "utf8"))));
  }
  writeFileSync(join(folder, "README.md"), parts.join("\n"));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  writeTables(join(dirname(fileURLToPath(import.meta.url)), "results"));
}
