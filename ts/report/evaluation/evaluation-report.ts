/** The report of judged runs: one self-contained HTML file. */
import type { BiasFigures, JudgeProtocol, JudgeResult } from "../../judge/result";
import { packageVersion } from "../../native/load";
import { percent, whole } from "../format";
import { type Html, html, raw } from "../html";
import { type IntervalBar, intervalBars } from "../interval-bars";
import { footer, page } from "../page";
import { radarChart } from "../radar-chart";
import type { RunComparison } from "./comparison";
import {
  alarmsOf,
  type EvaluatedRun,
  type Evaluation,
  evaluationOf,
  interval,
  type ProtocolRuns,
  shown,
  signed,
} from "./evaluation";
import { columnOf, publishedRows } from "./published";
import { browserScript, questionAnchor, questionBrowser } from "./question-browser";
import { colorOf, figureTable, resultsTable } from "./results-table";

/** How a report is made. */
export interface EvaluationReportOptions {
  /** @default "Evaluation" */
  title?: string;
  /** Shown as it is, for example an ISO date. */
  createdAt?: string;
}

const style = raw(`
small, .small { font-size:12.5px; color:var(--soft); } td small, th small { font-weight:400; } .small { max-width:none; }
.results td, .results th { vertical-align:baseline; } .results sup { font-size:10px; color:var(--soft); margin-left:2px; }
.published th[colspan] { color:var(--soft); font-weight:500; font-size:13px; background:var(--wash); } .published th, .published td { font-weight:400; }
.badge { font-size:11px; line-height:1.5; padding:0 7px; border-radius:99px; background:var(--wash); color:var(--soft); white-space:nowrap; font-weight:400; border:1px solid var(--rule); }
.halves { display:grid; grid-template-columns:repeat(auto-fill, minmax(min(480px, 100%), 1fr)); gap:16px; align-items:start; margin-bottom:16px; } .halves > * { min-width:0; }
.notes b { font-weight:600; } .card.notes { padding:0 14px; } .notes .alarm { color:var(--bad); } .notes .alarm::before { content:"\\2717"; color:var(--bad); } .notes .note::before { content:"i"; color:var(--soft); font-style:italic; left:6px; }
.filters { display:flex; flex-wrap:wrap; gap:8px 14px; align-items:center; margin-bottom:12px; font-size:13px; } .filters[hidden] { display:none; } .filters label { display:flex; align-items:center; gap:6px; }
.filters input, .filters select { font:inherit; color:inherit; background:var(--card); border:1px solid var(--edge); border-radius:6px; padding:4px 7px; max-width:150px; } .filters input[type=number] { width:64px; }
.filters output { margin-left:auto; color:var(--soft); font-variant-numeric:tabular-nums; }
:focus-visible { outline:2px solid var(--s1); outline-offset:1px; }
summary { cursor:pointer; } .question { background:var(--card); border:1px solid var(--rule); border-bottom-width:0; content-visibility:auto; contain-intrinsic-size:auto 38px; scroll-margin-top:8px; }
.question:first-child { border-radius:8px 8px 0 0; } .question:last-child { border-radius:0 0 8px 8px; border-bottom-width:1px; } .question:only-child { border-radius:8px; }
.question > summary { display:grid; grid-template-columns:150px minmax(0, 1fr) auto; gap:12px; align-items:baseline; padding:8px 14px; list-style:none; } .question > summary::-webkit-details-marker { display:none; }
.question > summary:hover { background:var(--wash); } .question[open] > summary { border-bottom:1px solid var(--rule); }
.where { font-variant-numeric:tabular-nums; font-size:13px; overflow:hidden; } .ask { overflow:hidden; white-space:nowrap; text-overflow:ellipsis; font-size:14px; } .chips { display:flex; gap:10px; font-size:13px; font-variant-numeric:tabular-nums; }
.chip { display:inline-flex; align-items:center; min-width:42px; } .chip .key { width:8px; height:8px; margin-right:5px; }
.turn { padding:4px 14px 0; } .turn h3 { margin:10px 0 6px; font-size:13px; color:var(--soft); } .turn > pre { background:none; border-left:3px solid var(--s1); border-radius:0; padding:2px 12px; }
.reference { margin:8px 0; } .reference summary, .verdict summary, .answers details summary { font-size:13px; color:var(--soft); padding:4px 0; } .verdict summary b { color:var(--ink); }
.answers pre { max-width:100%; } .fault { color:var(--bad); font-size:13px; margin:4px 0; } a { color:var(--link); }
.change { text-align:right; font-variant-numeric:tabular-nums; white-space:nowrap; } .up { color:var(--good); } .down { color:var(--bad); }
summary small { display:inline !important; margin:0 !important; } .small { margin-top:8px; } .published td, .published th { padding-top:4px; padding-bottom:4px; }
.versus { margin-top:32px; } .changed { table-layout:fixed; } .changed th:first-child { overflow:hidden; white-space:nowrap; text-overflow:ellipsis; } .changed th:last-child { width:150px; }
td code { font-size:12px; } .hash { overflow-wrap:anywhere; } .wide:focus-visible { outline-offset:4px; }
:root { --link:#1a5fb4; --edge:#85888f; } @media (prefers-color-scheme: dark) { :root { --link:#8ab8f5; --edge:#71757d; } }
@media (max-width: 700px) { main { padding:20px 12px 40px; } .question > summary { grid-template-columns:minmax(0, 1fr) auto; } .ask { grid-column:1 / -1; grid-row:2; } th, td { padding:6px 9px; } tbody th { min-width:110px; } .number small { display:block; } .results :is(td, th:not([colspan])):is(:nth-child(2), :nth-child(3)) { display:none; } .changed th:last-child { width:110px; } .change small { display:block; } .turn { padding:4px 10px 0; } }
@media print {
  main { max-width:none; padding:0; } .filters { display:none !important; } .table, .wide { overflow:visible; } .wide svg { min-width:0; } figure, tr, .card { break-inside:avoid; } h2, h3 { break-after:avoid; }
  .question { content-visibility:visible; }
}
`);

/** Renders judged runs; several of one protocol are compared with the first. */
export function renderEvaluationReport(
  results: readonly JudgeResult[],
  { title = "Evaluation", createdAt }: EvaluationReportOptions = {},
): string {
  const evaluation = evaluationOf(results);
  const body = html`<style>${style}</style>
<h1>${title}</h1>
<p class="lead">${introduction(evaluation)}</p>
${alarmNotes(evaluation)}
${resultsTable(evaluation)}
${evaluation.protocols.map(protocolSection)}
${biasSection(evaluation)}
${canarySection(evaluation)}
${evaluation.protocols.map(questionBrowser)}
${missingSection(evaluation)}
${originSection(evaluation)}
${footer({ "zephyr-align": packageVersion() }, createdAt)}`;
  return page(title, body, { script: browserScript });
}

function introduction({ runs, protocols }: Evaluation): string {
  const judged = runs.reduce((sum, { result }) => sum + result.completeness.judged, 0);
  const judges = [...new Set(runs.map(({ result }) => result.judge.returned[0]?.id ?? result.judge.asked))];
  return `${whole(judged)} judgments in ${runs.length === 1 ? "one run" : `${runs.length} runs`} of ${protocols.map(({ title }) => title).join(", ")}, by ${judges.join(", ")}.`;
}

function alarmNotes(evaluation: Evaluation): Html | null {
  const list = alarmsOf(evaluation);
  return list.length === 0
    ? null
    : html`<ul class="notes card">${list.map(({ run, text, alarm }) => html`<li class="${alarm ? "alarm" : "note"}">${evaluation.runs.length > 1 ? html`<b>${run}</b>: ` : null}${text}</li>`)}</ul>`;
}

/** The categories of MT-Bench in the order of its published chart, then those of other benchmarks. */
const categoryOrder = ["writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities"];

function categoriesOf(runs: readonly EvaluatedRun[]): { name: string; label: string }[] {
  const found = new Map<string, string>();
  for (const { result } of runs) {
    for (const { name, label, group } of result.figures) if (group === "category") found.set(name, label);
  }
  const rank = (name: string) => {
    const at = categoryOrder.indexOf(name.slice("category/".length));
    return at < 0 ? categoryOrder.length : at;
  };
  return [...found].map(([name, label]) => ({ name, label })).sort((a, b) => rank(a.name) - rank(b.name));
}

function protocolSection(group: ProtocolRuns): Html {
  const { title, runs } = group;
  const rating = runs[0]!.result.scale === "rating";
  const charts = rating ? [radar(runs), ...(runs.length > 2 ? [categoryBars(runs)] : [])] : winBars(group);
  const drawn = charts.filter((chart) => chart !== null);
  const table = figureTable(runs);
  // Beside one chart there is room for a table of two runs.
  const beside = drawn.length === 1 && runs.length <= 2;
  return html`<h2>${title}</h2><div class="halves">${drawn}${beside ? table : null}</div>${beside ? null : table}${comparisonSection(group)}`;
}

/** Bars of every category, for more runs than a table holds beside a radar. */
function categoryBars(runs: readonly EvaluatedRun[]): Html {
  return intervalBars({
    title: "With 95 % intervals",
    scale: [0, 10],
    labelWidth: 120,
    half: true,
    groups: categoriesOf(runs).map(({ name, label }) => ({ label, bars: runs.flatMap((run) => barOf(run, name)) })),
  });
}

function barOf({ label, index, result }: EvaluatedRun, name: string): IntervalBar[] {
  const figure = result.figures.find((each) => each.name === name);
  if (!figure || figure.value === null) return [];
  const { value, low, high, n } = figure;
  return [{ name: label, color: colorOf(index), value, low, high, note: `n ${n}` }];
}

/** Rings of a radar of ratings. */
const rings = [2, 4, 6, 8, 10];

function radar(runs: readonly EvaluatedRun[]): Html | null {
  const categories = categoriesOf(runs);
  // Two axes make no surface.
  if (categories.length < 3) return null;
  return radarChart({
    title: "Mean score by category",
    axes: categories.map(({ label }) => label),
    rings,
    series: runs.map(({ label, index, result }) => ({
      name: label,
      color: colorOf(index),
      dash: Math.floor(index / 4),
      values: categories.map(({ name }) => {
        const figure = result.figures.find((each) => each.name === name);
        if (!figure || figure.value === null) return null;
        const sure = interval(figure);
        return { value: figure.value, note: `${sure === "" ? "" : ` (${sure})`}, n ${figure.n}` };
      }),
    })),
  });
}

function winBars({ protocol, runs }: ProtocolRuns): Html[] {
  const overall = runs.flatMap(({ result }) => result.figures.filter(({ group }) => group === "overall"));
  return [...new Map(overall.map(({ name, label }) => [name, label]))].map(([name, label]) => {
    const ours = runs
      .map((run) => ({ label: run.label, bars: barOf(run, name) }))
      .filter(({ bars }) => bars.length > 0);
    const published = publishedBars(protocol, name);
    return intervalBars({
      title: `${label}, % (95 % interval)`,
      groups: [...ours, ...published.map((bar) => ({ label: bar.name, bars: [bar] }))],
      scale: [0, 100],
      level: 50,
      labelWidth: 200,
      half: true,
      ...(published.length > 0 ? { legend: [{ name: "outlines: published by others", color: 5 }] } : {}),
    });
  });
}

/** What others published of the same figure, the highest first; the interval is 1.96 standard errors. */
function publishedBars(protocol: JudgeProtocol, figureName: string): IntervalBar[] {
  const controlled = figureName === "length_controlled_win_rate" && protocol === "alpaca-eval-2.0";
  const column = controlled ? "alpaca-eval-2.0-lc" : figureName === "win_rate" ? columnOf(protocol) : undefined;
  if (column === undefined) return [];
  const bars = publishedRows.flatMap(({ model, size, figures }): IntervalBar[] => {
    const figure = figures[column];
    if (!figure) return [];
    const { value, standardError: error } = figure;
    const [low, high] = error === null ? [null, null] : [value - 1.96 * error, value + 1.96 * error];
    return [{ name: size ? `${model} ${size}` : model, color: 5, published: true, value, low, high }];
  });
  return bars.sort((a, b) => b.value - a.value);
}

/** Each run less the first one of its protocol. */
function comparisonSection({ protocol, runs, comparisons }: ProtocolRuns): Html | null {
  const [one] = comparisons;
  if (!one) return null;
  const cautions = comparisons.flatMap(({ second, cautions: list }) => list.map((text) => ({ second, text })));
  const table = html`<div class="table"><table><thead><tr><th scope="col">Difference</th>${comparisons.map(({ second }) => html`<th scope="col" class="number">${second}</th>`)}</tr></thead><tbody>${one.differences.map(
    ({ name, label }) =>
      html`<tr><th scope="row">${label}</th>${comparisons.map(({ differences }) => differenceCell(differences.find((each) => each.name === name)))}</tr>`,
  )}
<tr><th scope="row">Turns scored higher, the same, lower</th>${comparisons.map(({ turns: t }) => html`<td class="number">${whole(t.higher)} / ${whole(t.same)} / ${whole(t.lower)}</td>`)}</tr>
<tr><th scope="row">Share scored higher, ties half</th>${comparisons.map(({ higherRate: r }) => html`<td class="number">${percent(r.rate)} <small>${percent(r.low)} to ${percent(r.high)}</small></td>`)}</tr></tbody></table></div>`;
  const digits = runs[0]!.result.scale === "win" ? 2 : 1;
  const changed = comparisons.map((comparison) => changedTable(comparison, protocol, digits));
  return html`<h3 class="versus">Compared with ${one.first}</h3>
<p class="lead small">What each scores more than ${one.first} on the turns that both have, with 95 % intervals of the paired difference by bootstrap over questions. One whose interval leaves out 0 is coloured.</p>
${cautions.length > 0 ? html`<ul class="notes card">${cautions.map(({ second, text }) => html`<li class="note"><b>${second}</b>: ${text}</li>`)}</ul><p></p>` : null}
${comparisons.length === 1 ? html`<div class="halves">${table}${changed}</div>` : html`${table}<p></p><div class="halves">${changed}</div>`}`;
}

function differenceCell(difference: RunComparison["differences"][number] | undefined): Html {
  if (!difference) return html`<td class="number">–</td>`;
  const { value, low, high, unit, n } = difference;
  const sure = low !== null && high !== null;
  const kind = !sure ? "" : low > 0 ? "up" : high < 0 ? "down" : "";
  return html`<td class="number"><b class="${kind}">${signed(value)}</b>${unit === "percent" ? " %" : ""} <small>${sure ? `${signed(low)} to ${signed(high)} · ` : ""}n ${whole(n)}</small></td>`;
}

function changedTable({ second, changed }: RunComparison, protocol: string, digits: number): Html {
  return html`<div class="table"><table class="changed"><thead><tr><th scope="col">Changed most by ${second}</th><th scope="col" class="number">From, to</th></tr></thead><tbody>${
    changed.length === 0
      ? html`<tr><td colspan="2">No question changed.</td></tr>`
      : changed.map(
          ({ id, category, prompt, first, second: to }) =>
            html`<tr><th scope="row"><a href="#${questionAnchor(protocol, id)}">${id}</a>${category ? html` <span class="badge">${category}</span>` : null} <small dir="auto">${prompt.slice(0, 120)}</small></th><td class="change"><b class="${to > first ? "up" : "down"}">${signed(to - first)}</b> <small>${shown(first, digits)} → ${shown(to, digits)}</small></td></tr>`,
        )
  }</tbody></table></div>`;
}

const biases: readonly { name: keyof BiasFigures; label: string; none: string }[] = [
  { name: "firstPosition", label: "The answer shown first wins", none: "50 % is none" },
  { name: "swapFlips", label: "The winner changes when the order is swapped", none: "0 % is none" },
  { name: "longerWins", label: "The longer answer wins", none: "50 % is none" },
  { name: "lengthCorrelation", label: "Correlation of score and length", none: "0 is none" },
];

function biasSection({ runs }: Evaluation): Html | null {
  const known = biases.filter(({ name }) => runs.some(({ result }) => result.bias[name] !== null));
  if (known.length === 0) return null;
  const value = (bias: BiasFigures, name: keyof BiasFigures) => {
    const figure = bias[name];
    if (figure === null) return html`–`;
    return html`${"rate" in figure ? percent(figure.rate) : figure.r.toFixed(2)} <small>n ${whole(figure.n)}</small>`;
  };
  return html`<h2>What pulls the judge besides quality</h2><div class="table"><table><thead><tr><th scope="col">Figure</th>${runs.map(({ label, result }) => html`<th scope="col" class="number">${label}<br><small>${result.protocol}</small></th>`)}</tr></thead><tbody>${known.map(
    ({ name, label, none }) =>
      html`<tr><th scope="row">${label} <small>${none}</small></th>${runs.map(({ result }) => html`<td class="number">${value(result.bias, name)}</td>`)}</tr>`,
  )}
<tr><th scope="row">Mean length of an answer <small>characters</small></th>${runs.map(({ result }) => html`<td class="number">${result.model.meanLength === null ? "–" : whole(result.model.meanLength)}</td>`)}</tr></tbody></table></div>`;
}

function canarySection({ runs }: Evaluation): Html | null {
  const judged = runs.filter(({ result }) => result.canaries.length > 0);
  if (judged.length === 0) return null;
  return html`<h2>Canaries</h2><p class="lead">Constant answers that deserve nothing, judged in the place of the model's. A judge that likes them cannot be trusted.</p>
<div class="table"><table><thead><tr><th scope="col">Run</th><th scope="col">Canary</th><th scope="col" class="number">Score</th><th scope="col" class="number">Alarm from</th><th scope="col" class="number">n</th></tr></thead><tbody>${judged.flatMap(
    ({ label, result }) =>
      result.canaries.map(
        ({ name, answer, score, limit, flagged, n }) =>
          html`<tr><th scope="row">${label} <small>${result.protocol}</small></th><td>${name}<br><small dir="auto">${answer.length > 160 ? `${answer.slice(0, 160)}…` : answer}</small></td><td class="number">${flagged ? html`<b class="down">${shown(score)} alarm</b>` : shown(score)}</td><td class="number">${shown(limit)}</td><td class="number">${whole(n)}</td></tr>`,
      ),
  )}</tbody></table></div>`;
}

/** How many failures a page lists. */
const listedFailures = 100;

function missingSection({ runs }: Evaluation): Html | null {
  const failures = runs.flatMap(({ label, result }) => result.failures.map((failure) => ({ label, result, failure })));
  const flagged = runs.flatMap(({ label, result }) =>
    result.flaggedAnswers.map((answer) => ({ label, result, answer })),
  );
  const place = (protocol: string, id: number | string, turn: number) =>
    html`<a href="#${questionAnchor(protocol, id)}">${id}</a>, turn ${turn}`;
  const more = failures.length > listedFailures ? ` (the first ${listedFailures} of ${whole(failures.length)})` : "";
  return html`${
    failures.length === 0
      ? null
      : html`<h2>Missing in the figures${more}</h2><div class="table"><table><thead><tr><th scope="col">Run</th><th scope="col">Question</th><th scope="col">Why</th></tr></thead><tbody>${failures
          .slice(0, listedFailures)
          .map(
            ({ label, result, failure }) =>
              html`<tr><th scope="row">${label}</th><td>${place(result.protocol, failure.id, failure.turn)}${failure.repeat > 0 ? `, repeat ${failure.repeat + 1}` : ""}${failure.first ? `, ${failure.first} first` : ""}</td><td>${failure.problem}</td></tr>`,
          )}</tbody></table></div>`
  }${
    flagged.length === 0
      ? null
      : html`<h2>Answers that speak to the judge</h2><div class="table"><table><thead><tr><th scope="col">Run</th><th scope="col">Question</th><th scope="col">Words</th></tr></thead><tbody>${flagged
          .slice(0, listedFailures)
          .map(
            ({ label, result, answer }) =>
              html`<tr><th scope="row">${label}</th><td>${place(result.protocol, answer.id, answer.turn)}</td><td><code>${answer.excerpt}</code></td></tr>`,
          )}</tbody></table></div>`
  }`;
}

/** What a run was made of: rows of the table at the end. */
const origins: readonly (readonly [label: string, value: (result: JudgeResult) => string])[] = [
  ["Protocol", ({ protocol, mode }) => `${protocol}, ${mode}`],
  ["Made", ({ createdAt }) => `${createdAt.slice(0, 16).replace("T", " ")} UTC`],
  ["Judge asked for", ({ judge }) => judge.asked],
  [
    "Judge as returned",
    ({ judge }) => judge.returned.map(({ id, answers }) => `${id} (${whole(answers)})`).join(", ") || "–",
  ],
  [
    "Sampling of the judge",
    ({ judge: { sampling: s } }) =>
      `temperature ${s.temperature}, ${whole(s.maxTokens)} tokens${s.topLogprobs === null ? "" : `, top ${s.topLogprobs} log-probs`}`,
  ],
  ["Opponent", ({ opponent }) => opponent?.name ?? "–"],
  ["Answers", ({ model }) => `${model.answers}${model.file === null ? "" : `, ${model.file}`}`],
  ["Chat template", ({ model }) => model.template ?? "not known"],
  [
    "Sampling of the answers",
    ({ model: { sampling: s } }) =>
      s === null
        ? "not known"
        : `temperature ${s.temperature}, ${whole(s.maxTokens)} tokens, ${s.choices} ${s.choices === 1 ? "choice" : "choices"}, seed ${s.seed}`,
  ],
  ["sha256 of the questions", ({ hashes }) => hashes.questions],
  ["sha256 of the judge's prompts", ({ hashes }) => hashes.prompts ?? "–"],
  ["sha256 of the references", ({ hashes }) => hashes.references ?? "–"],
  ["sha256 of the answers", ({ hashes }) => hashes.answers ?? "–"],
  ["Calls", ({ cost }) => `${whole(cost.calls)} new, ${whole(cost.reused)} from the journal or a file`],
  ["Tokens", ({ cost }) => `${whole(cost.promptTokens)} in, ${whole(cost.completionTokens)} out`],
  [
    "Cost of the new calls",
    ({ cost }) =>
      cost.dollars === null ? "not known" : `$${cost.dollars.toFixed(cost.dollars < 1 && cost.dollars > 0 ? 4 : 2)}`,
  ],
  [
    "Versions",
    ({ versions }) =>
      Object.entries(versions)
        .map((each) => each.join(" "))
        .join(", "),
  ],
];

function originSection({ runs }: Evaluation): Html {
  return html`<h2>How it was made</h2><div class="table"><table><thead><tr><th scope="col"></th>${runs.map(({ label }) => html`<th scope="col">${label}</th>`)}</tr></thead><tbody>${origins.map(
    ([name, value]) =>
      html`<tr><th scope="row">${name}</th>${runs.map(({ result }) => html`<td class="hash">${name.startsWith("sha256") ? html`<code title="${value(result)}">${value(result).slice(0, 16)}</code>` : value(result)}</td>`)}</tr>`,
  )}</tbody></table></div>`;
}
