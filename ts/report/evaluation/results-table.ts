/** The results table in the form of the Zephyr paper: our rows with their intervals, published rows marked as such. */
import type { Figure } from "../../judge/result";
import { percent, whole } from "../format";
import { type Html, html } from "../html";
import { type Evaluation, interval, type ResultRow, shown } from "./evaluation";
import { type PublishedName, type PublishedSource, publishedRows, publishedSources } from "./published";

/** Columns, in the paper's order and then the newer ones. */
export const columns: readonly { name: PublishedName; title: string; unit: string }[] = [
  { name: "mt-bench", title: "MT-Bench", unit: "score" },
  { name: "alpaca-eval-1.0", title: "AlpacaEval 1.0", unit: "win %" },
  { name: "alpaca-eval-2.0", title: "AlpacaEval 2.0", unit: "win %" },
  { name: "alpaca-eval-2.0-lc", title: "AlpacaEval 2.0 LC", unit: "win %" },
];

/** The columns that a report shows: the paper's two always, the others when a run of ours has them. */
export function shownColumns({ table }: Evaluation): typeof columns {
  const ours = new Set(table.flatMap(({ figures }) => Object.keys(figures)));
  return columns.filter(({ name }) => name === "mt-bench" || name === "alpaca-eval-1.0" || ours.has(name));
}

/** Published rows that say something in the columns shown. */
export function shownPublished(evaluation: Evaluation): typeof publishedRows {
  const names = shownColumns(evaluation).map(({ name }) => name);
  return publishedRows.filter(({ figures }) => names.some((name) => figures[name] !== undefined));
}

/** Sources of what is shown, numbered from 1 in this order. */
export function shownSources(evaluation: Evaluation): PublishedSource[] {
  const names = shownColumns(evaluation).map(({ name }) => name);
  const used = publishedRows.flatMap(({ figures }) => names.flatMap((name) => figures[name]?.source ?? []));
  return (Object.keys(publishedSources) as PublishedSource[]).filter((source) => used.includes(source));
}

/** The table as HTML. */
export function resultsTable(evaluation: Evaluation): Html | null {
  if (evaluation.table.length === 0) return null;
  const shownOnes = shownColumns(evaluation);
  const sources = shownSources(evaluation);
  return html`<h2>Results</h2><div class="table"><table class="results">
<thead><tr><th scope="col">Model</th><th scope="col">Size</th><th scope="col">Align</th>${shownOnes.map(({ title, unit }) => html`<th scope="col" class="number">${title} <small>${unit}</small></th>`)}</tr></thead>
<tbody>${evaluation.table.map((row) => ourRow(row, shownOnes))}</tbody>
<tbody class="published"><tr><th scope="rowgroup" colspan="${3 + shownOnes.length}">Published by others, not measured here</th></tr>
${shownPublished(evaluation).map(
  ({ model, size, align, figures }) =>
    html`<tr><th scope="row">${model} <span class="badge">published</span></th><td>${size ?? "–"}</td><td>${align ?? "–"}</td>${shownOnes.map(
      ({ name }) => {
        const figure = figures[name];
        return figure
          ? html`<td class="number">${shown(figure.value)}<sup>${sources.indexOf(figure.source) + 1}</sup>${figure.standardError === null ? null : html` <small>± ${shown(figure.standardError)}</small>`}</td>`
          : html`<td class="number">–</td>`;
      },
    )}</tr>`,
)}</tbody></table></div>
<p class="lead small">Behind a value of ours: its 95 % interval by bootstrap over questions, and the judgments in it. Behind a published one: ± its standard error where one is published. ${sources.map((source, i) => html`<sup>${i + 1}</sup> ${publishedSources[source]}. `)}</p>`;
}

function ourRow({ model, runs, figures }: ResultRow, shownOnes: typeof columns): Html {
  const cell = (figure: Figure | undefined) =>
    figure
      ? html`<td class="number"><b>${shown(figure.value)}</b> <small>${interval(figure)}<br>n ${whole(figure.n)}${figure.repeats > 1 ? `, ${figure.repeats} times, spread ${shown(figure.spread)}` : ""}${figure.standardError === null ? "" : `, s.e. ${shown(figure.standardError)}`}</small></td>`
      : html`<td class="number">–</td>`;
  const judges = [...new Set(runs.map(({ result }) => result.judge.returned[0]?.id ?? result.judge.asked))].join(", ");
  const compat = runs.some(({ result }) => result.mode === "compat");
  return html`<tr><th scope="row"><i class="key b${colorOf(runs[0]!.index)}"></i>${model}${compat ? html` <span class="badge">compat</span>` : null}<br><small>judged by ${judges}</small></th><td>–</td><td>–</td>${shownOnes.map(({ name }) => cell(figures[name]))}</tr>`;
}

/** The colour of a run: 1 to 4 in turn; 5 is grey, for what others published. */
export function colorOf(index: number): number {
  return (index % 4) + 1;
}

/** Every figure of the runs of a protocol. */
export function figureTable(runs: Evaluation["runs"]): Html {
  const names = [
    ...new Map(runs.flatMap(({ result }) => result.figures.map(({ name, label }) => [name, label] as const))),
  ];
  return html`<div class="table"><table><thead><tr><th scope="col">Figure</th>${runs.map(({ label, index }) => html`<th scope="col" class="number"><i class="key b${colorOf(index)}"></i>${label}</th>`)}</tr></thead>
<tbody>${names.map(
    ([name, label]) =>
      html`<tr><th scope="row">${label}</th>${runs.map(({ result }) => {
        const figure = result.figures.find((each) => each.name === name);
        return figure
          ? html`<td class="number"><b>${shown(figure.value)}</b>${figure.unit === "percent" && figure.value !== null ? " %" : ""} <small>${[interval(figure), figure.standardError === null ? "" : `s.e. ${shown(figure.standardError)}`, `n ${whole(figure.n)}`].filter((each) => each !== "").join(" · ")}</small></td>`
          : html`<td class="number">–</td>`;
      })}</tr>`,
  )}
${runs.some(({ result }) => result.counts) ? html`<tr><th scope="row">Wins, ties, losses</th>${runs.map(({ result: { counts } }) => html`<td class="number">${counts ? `${whole(counts.wins)} / ${whole(counts.ties)} / ${whole(counts.losses)}` : "–"}</td>`)}</tr>` : null}
<tr><th scope="row">Judged</th>${runs.map(({ result: { completeness: c } }) => html`<td class="number">${whole(c.judged)} of ${whole(c.expected)} <small>${c.expected > 0 ? percent(c.judged / c.expected) : ""}</small></td>`)}</tr>
</tbody></table></div>`;
}
