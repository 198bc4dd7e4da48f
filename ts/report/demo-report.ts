import { duration } from "../train/progress";
import { percent, whole } from "./format";
import { type Html, html } from "./html";
import { intervalBars } from "./interval-bars";
import { factTable, footer, page } from "./page";
import { type JudgedConversation, type JudgedModel, modelColors, scoreTable, sideBySide } from "./scores";
import { type MetricsHistory, trainingCharts } from "./training-charts";

/** How often one model's answers were scored above another's on the same prompts; ties count half in `rate`. */
export interface DemoWinRate {
  model: string;
  against: string;
  wins: number;
  ties: number;
  losses: number;
  /** (wins + ties / 2) / all, with its 95 % interval, 0 to 1. */
  rate: number;
  low: number;
  high: number;
}

/** Everything on the demo's page. */
export interface DemoReportInput {
  title: string;
  /** What was done and how it was judged, a few sentences. */
  introduction: string;
  /** Lowest and highest score the judge gives. */
  scale: readonly [low: number, high: number];
  models: readonly JudgedModel[];
  winRates: readonly DemoWinRate[];
  /** What the demo claims, and whether its own numbers bear it out. */
  claims: readonly { text: string; holds: boolean }[];
  examples: readonly JudgedConversation[];
  training: readonly { title: string; metrics: MetricsHistory; steps: number; seconds: number; tokens: number }[];
  /** Other figures: time of each part, seeds, sizes. */
  facts: readonly (readonly [label: string, value: string])[];
  versions: Readonly<Record<string, string>>;
  createdAt?: string;
}

/** The report of the demo: one self-contained HTML file, light or dark as the reader's system. */
export function renderDemoReport(input: DemoReportInput): string {
  const colors = modelColors(input.models);
  const body = html`
<h1>${input.title}</h1>
<p class="lead">${input.introduction}</p>
${claims(input.claims)}
<h2>Scores on held-out prompts</h2>
${scoreTable(input, colors)}
<h2>By category</h2>
${categoryBars(input, colors)}
${winRates(input.winRates)}
${sideBySide(input.examples, colors)}
${input.training.map(
  ({ title, metrics, steps, seconds, tokens }) => html`<h2>${title}</h2>
<p class="lead">${whole(steps)} steps in ${duration(seconds)}, ${seconds > 0 ? whole(tokens / seconds) : "–"} tokens per second</p>
${trainingCharts(metrics)}`,
)}
${input.facts.length > 0 ? html`<h2>Figures</h2>${factTable(input.facts)}` : null}
${footer(input.versions, input.createdAt)}`;
  return page(input.title, body);
}

function claims(list: readonly { text: string; holds: boolean }[]): Html | null {
  if (list.length === 0) return null;
  return html`<ul class="notes card">${list.map(
    ({ text, holds }) =>
      html`<li class="${holds ? "holds" : "fails"}">${text}${holds ? null : " (not borne out in this run)"}</li>`,
  )}</ul>`;
}

/** Bars of every category, one per model; categories in the order of the first model. */
function categoryBars({ models, scale }: DemoReportInput, colors: ReadonlyMap<string, number>): Html {
  const color = (name: string) => colors.get(name) ?? 1;
  return intervalBars({
    title: "Mean score and 95 % interval",
    scale,
    legend: models.map(({ name }) => ({ name, color: color(name) })),
    groups: Object.keys(models[0]?.categories ?? {}).map((label) => ({
      label,
      bars: models.flatMap(({ name, categories }) => {
        const score = categories[label];
        if (!score) return [];
        return [
          { name, color: color(name), value: score.mean, low: score.low, high: score.high, note: `n ${score.n}` },
        ];
      }),
    })),
  });
}

function winRates(list: readonly DemoWinRate[]): Html | null {
  if (list.length === 0) return null;
  return html`<h2>Win rates on the same prompts</h2>
<div class="table"><table><thead><tr><th>Model</th><th>Against</th><th class="number">Win rate, 95 % interval</th><th class="number">Wins</th><th class="number">Ties</th><th class="number">Losses</th></tr></thead>
<tbody>${list.map(
    (each) =>
      html`<tr><th scope="row">${each.model}</th><td>${each.against}</td><td class="number"><b>${percent(each.rate)}</b> (${percent(each.low)} to ${percent(each.high)})</td><td class="number">${whole(each.wins)}</td><td class="number">${whole(each.ties)}</td><td class="number">${whole(each.losses)}</td></tr>`,
  )}</tbody></table></div>`;
}
