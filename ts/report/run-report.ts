import type { DataReport } from "../data/converted";
import { placeText } from "../errors";
import { type Method, methods } from "../train/methods";
import { duration } from "../train/progress";
import { type Reference, referenceTexts } from "../train/trainer";
import { figure, percent, whole } from "./format";
import { type Html, html } from "./html";
import { configTable, factTable, footer, page, tiles } from "./page";
import { type MetricsHistory, trainingCharts } from "./training-charts";

/** What the data held and what became of it. */
export interface RunReportData extends Omit<DataReport, "format"> {
  /** Tokens of one epoch. */
  tokens: number;
  /** Tokens of one epoch that the loss sees. */
  supervisedTokens: number;
  /** Rows that lost tokens to maxLength. */
  cutRows: number;
  /** Tokens lost to maxLength. */
  cutTokens: number;
  /** Tokens that belong half to the template and half to a message. */
  straddlingTokens?: number;
  /** Single answers in the kept rows (KTO): a pair has two. */
  answers?: number;
  packing?: { packs: number; fillRate: number };
  /** What a preference run was measured against. */
  reference?: Reference;
}

/** An answer of the model before and after training. */
export interface RunReportSample {
  prompt: string;
  /** Left out when there was none. */
  before?: string;
  after: string;
}

/** Everything on the page of a run. */
export interface RunReportInput {
  title: string;
  method: Method;
  /** Path or id of the model that was trained. */
  model: string;
  /** Lines of metrics.jsonl, in order; `tokens_per_second` as well where known. */
  metrics: MetricsHistory;
  summary: { steps: number; seconds: number; tokens: number };
  /** The resolved configuration. */
  config: Readonly<Record<string, unknown>>;
  data: RunReportData;
  samples?: readonly RunReportSample[];
  warnings?: readonly string[];
  /** For example `{ "zephyr-align": "0.1.0", node: "20.20.2" }`. */
  versions: Readonly<Record<string, string>>;
  /** Shown as it is, for example an ISO date. */
  createdAt?: string;
}

/** The report of a run: one self-contained HTML file, light or dark as the reader's system. */
export function renderRunReport(input: RunReportInput): string {
  const { summary, metrics } = input;
  const last = (key: string) => metrics.findLast((line) => typeof line[key] === "number")?.[key] ?? undefined;
  const shown = (label: string, key: string): [string, string][] => {
    const value = last(key);
    return value === undefined || value === null ? [] : [[label, figure(value)]];
  };
  const body = html`
<h1>${input.title}</h1>
<p class="lead">${methods[input.method].lead} of ${input.model}</p>
${tiles([
  ["optimiser steps", whole(summary.steps)],
  ["time", duration(summary.seconds)],
  ["tokens per second", summary.seconds > 0 ? whole(summary.tokens / summary.seconds) : "–"],
  ...shown("loss, last logged step", "loss"),
  ...shown("held-out loss", "eval_loss"),
  ...shown("margin, last logged step", "rewards/margins"),
  ...shown("accuracy, last logged step", "rewards/accuracies"),
])}
${warningNotes(input.warnings ?? [])}
<h2>Curves</h2>
${trainingCharts(metrics)}
${sampleCards(input.samples ?? [], "After")}
<div class="columns">
<section><h2>Data</h2>${dataTable(input.data, input.method)}</section>
<section><h2>Configuration</h2>${configTable(input.config)}</section>
</div>
${skippedRows(input.data)}
${footer(input.versions, input.createdAt)}`;
  return page(input.title, body);
}

/** What the user was told on the way. */
export function warningNotes(list: readonly string[]): Html | null {
  return list.length > 0
    ? html`<ul class="notes">${list.map((text) => html`<li class="warns">${text}</li>`)}</ul>`
    : null;
}

/** What the data held, and what became of it. */
export function dataTable(data: RunReportData, method: Method): Html {
  const supervised = data.tokens > 0 ? ` (${percent(data.supervisedTokens / data.tokens)})` : "";
  return factTable([
    ["Source", data.source],
    ["Format", data.description],
    ...(data.reference ? ([["Measured against", referenceTexts[data.reference]]] as const) : []),
    ["Rows read", whole(data.rows)],
    [methods[method].rows === "pairs" ? "Pairs trained on" : "Rows trained on", whole(data.kept)],
    ...(data.answers === undefined ? [] : ([["Single answers in them", whole(data.answers)]] as const)),
    ["Left out", whole(data.skipped)],
    ["Equal to an earlier row", whole(data.duplicates)],
    ["Cut to the maximal length", `${whole(data.cutRows)} rows, ${whole(data.cutTokens)} tokens`],
    ["Tokens of an epoch", whole(data.tokens)],
    ["Supervised tokens", `${whole(data.supervisedTokens)}${supervised}`],
    ...(data.straddlingTokens ? ([["Tokens across template and message", whole(data.straddlingTokens)]] as const) : []),
    ...(data.packing
      ? ([["Packs", `${whole(data.packing.packs)}, ${percent(data.packing.fillRate)} full`]] as const)
      : []),
    ...(data.droppedLeadingAssistant > 0
      ? ([["Leading assistant turns cut", whole(data.droppedLeadingAssistant)]] as const)
      : []),
    ...(methods[method].rows === "pairs" ? ([["Chosen equal to rejected", whole(data.equalPairs)]] as const) : []),
  ]);
}

/** How many rows left out a page lists; the report object has more. */
const listedOnPage = 50;

function skippedRows(data: RunReportData): Html | null {
  if (data.skippedRows.length === 0) return null;
  const listed = data.skippedRows.slice(0, listedOnPage);
  const more = data.skipped > listed.length ? ` (the first ${listed.length} of ${whole(data.skipped)})` : "";
  return html`<h2>Rows left out${more}</h2>
<div class="table"><table><thead><tr><th>Place</th><th>Code</th><th>Why</th></tr></thead><tbody>${listed.map(
    ({ place, code, problem }) =>
      html`<tr><td><code>${placeText(place)}</code></td><td><code>${code}</code></td><td>${problem}</td></tr>`,
  )}</tbody></table></div>`;
}

/** Answers before and after, or before and now. */
export function sampleCards(list: readonly RunReportSample[], after: string): Html | null {
  if (list.length === 0) return null;
  return html`<h2>Samples</h2>${list.map(
    ({ prompt, before, after: answer }) => html`<div class="card sample"><p class="said">Prompt</p><pre>${prompt}</pre>
<div class="answers">${before === undefined ? null : html`<div><h4>Before</h4><pre>${before}</pre></div>`}<div><h4>${after}</h4><pre>${answer}</pre></div></div></div>`,
  )}`;
}
