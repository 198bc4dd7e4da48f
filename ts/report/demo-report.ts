import { duration } from "../train/progress";
import { percent, whole } from "./format";
import { type Html, html } from "./html";
import { intervalBars } from "./interval-bars";
import { factTable, footer, page } from "./page";
import { type MetricsHistory, trainingCharts } from "./training-charts";

/** A mean score with its 95 % interval and the number of judgements. */
export interface ScoreSummary {
  mean: number;
  low: number;
  high: number;
  n: number;
}

/** The judged answers of one model. */
export interface DemoModel {
  /** For example `dSFT + dDPO`. */
  name: string;
  /** One line under the name, for example how it was trained. */
  note?: string;
  score: ScoreSummary;
  turn1: ScoreSummary;
  turn2: ScoreSummary;
  /** By category, in the order to show. */
  categories: Readonly<Record<string, ScoreSummary>>;
}

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

/** A held-out conversation with the answers of the models. */
export interface DemoExample {
  category: string;
  turns: readonly {
    prompt: string;
    /** In the order of the models. */
    answers: readonly { model: string; text: string; score: number; rationale: string }[];
  }[];
}

/** Everything on the demo's page. */
export interface DemoReportInput {
  title: string;
  /** What was done and how it was judged, a few sentences. */
  introduction: string;
  /** Lowest and highest score the judge gives. */
  scale: readonly [low: number, high: number];
  models: readonly DemoModel[];
  winRates: readonly DemoWinRate[];
  /** What the demo claims, and whether its own numbers bear it out. */
  claims: readonly { text: string; holds: boolean }[];
  examples: readonly DemoExample[];
  training: readonly { title: string; metrics: MetricsHistory; steps: number; seconds: number; tokens: number }[];
  /** Other figures: time of each part, seeds, sizes. */
  facts: readonly (readonly [label: string, value: string])[];
  versions: Readonly<Record<string, string>>;
  createdAt?: string;
}

/** The report of the demo: one self-contained HTML file, light or dark as the reader's system. */
export function renderDemoReport(input: DemoReportInput): string {
  const colors = new Map(input.models.map(({ name }, i) => [name, modelColor(i, input.models.length)]));
  const body = html`
<h1>${input.title}</h1>
<p class="lead">${input.introduction}</p>
${claims(input.claims)}
<h2>Scores on held-out prompts</h2>
${scoreTable(input, colors)}
<h2>By category</h2>
${categoryBars(input, colors)}
${winRates(input.winRates)}
${examples(input.examples, colors)}
${input.training.map(
  ({ title, metrics, steps, seconds, tokens }) => html`<h2>${title}</h2>
<p class="lead">${whole(steps)} steps in ${duration(seconds)}, ${seconds > 0 ? whole(tokens / seconds) : "–"} tokens per second</p>
${trainingCharts(metrics)}`,
)}
${input.facts.length > 0 ? html`<h2>Figures</h2>${factTable(input.facts)}` : null}
${footer(input.versions, input.createdAt)}`;
  return page(input.title, body);
}

/** The first model is the base and grey; the others take the palette in turn. */
function modelColor(index: number, count: number): number {
  return index === 0 && count > 1 ? 5 : ((index + (count > 1 ? 3 : 0)) % 4) + 1;
}

function claims(list: readonly { text: string; holds: boolean }[]): Html | null {
  if (list.length === 0) return null;
  return html`<ul class="notes card">${list.map(
    ({ text, holds }) =>
      html`<li class="${holds ? "holds" : "fails"}">${text}${holds ? null : " (not borne out in this run)"}</li>`,
  )}</ul>`;
}

function scoreTable({ models, scale }: DemoReportInput, colors: ReadonlyMap<string, number>): Html {
  return html`<div class="table"><table>
<thead><tr><th>Model</th><th class="number">Mean, 95 % interval</th><th style="width:34%">${scale[0]} to ${scale[1]}</th><th class="number">Turn 1</th><th class="number">Turn 2</th><th class="number">Judged</th></tr></thead>
<tbody>${models.map(
    ({
      name,
      note,
      score,
      turn1,
      turn2,
    }) => html`<tr><th scope="row"><i class="key b${colors.get(name) ?? 1}"></i>${name}${note ? html`<br><span class="lead">${note}</span>` : null}</th>
<td class="number"><b>${score.mean.toFixed(2)}</b> ± ${halfWidth(score)}</td><td>${scoreBar(score, scale, colors.get(name) ?? 1)}</td>
<td class="number">${turn1.mean.toFixed(2)} ± ${halfWidth(turn1)}</td><td class="number">${turn2.mean.toFixed(2)} ± ${halfWidth(turn2)}</td><td class="number">${whole(score.n)}</td></tr>`,
  )}</tbody></table></div>`;
}

function halfWidth({ low, high }: ScoreSummary): string {
  return ((high - low) / 2).toFixed(2);
}

/** A bar from the lowest score to the mean, with the interval as a whisker. */
function scoreBar(score: ScoreSummary, [least, most]: readonly [number, number], color: number): Html {
  const at = (value: number) => {
    const inside = Math.min(Math.max(value, least), most);
    return Number(((300 * (inside - least)) / (most - least)).toFixed(1));
  };
  return html`<svg viewBox="0 0 300 20" preserveAspectRatio="none" style="height:20px" aria-hidden="true"><line class="grid" x1="0" x2="300" y1="19.5" y2="19.5"/><rect class="b${color}" x="0" y="4" width="${Math.max(at(score.mean), 2)}" height="12" rx="2"/><path class="whisker" fill="none" d="M${at(score.low)} 10H${at(score.high)}M${at(score.low)} 6v8M${at(score.high)} 6v8"/></svg>`;
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

function examples(list: readonly DemoExample[], colors: ReadonlyMap<string, number>): Html | null {
  if (list.length === 0) return null;
  return html`<h2>Answers side by side</h2>${list.map(
    ({ category, turns }) =>
      html`<div class="card sample"><h3>${category}</h3>${turns.map(
        ({ prompt, answers }, i) =>
          html`<p class="said">Turn ${i + 1}</p><pre>${prompt}</pre><div class="answers">${answers.map(
            ({ model, text, score, rationale }) =>
              html`<div><h4><i class="key b${colors.get(model) ?? 1}"></i>${model}<b>${score}</b></h4><pre>${text === "" ? "(no text)" : text}</pre><small>${rationale}</small></div>`,
          )}</div>`,
      )}</div>`,
  )}`;
}
