/** The page of a run that goes on. The server renders its sections; the page puts them in their places as they come. */

import { figure, percent, whole } from "../../report/format";
import { type Html, html, raw } from "../../report/html";
import { configTable, page } from "../../report/page";
import {
  dataTable,
  type RunReportData,
  type RunReportSample,
  sampleCards,
  warningNotes,
} from "../../report/run-report";
import { type MetricsHistory, trainingCharts } from "../../report/training-charts";
import type { Method } from "../methods";
import { methods } from "../methods";
import { duration } from "../progress";

/** Where a run is. */
export type Phase = "preparing" | "training" | "saving" | "finished" | "stopped";

/** Everything that the page shows. */
export interface LiveView {
  method: Method;
  model: string;
  phase: Phase;
  /** Why the run stopped. */
  problem?: string | undefined;
  step: number;
  totalSteps: number;
  /** Passes over the data done. */
  epoch: number;
  /** Since the first step, or since the page was there. */
  seconds: number;
  /** undefined when unknown. */
  secondsLeft: number | undefined;
  tokensPerSecond: number | undefined;
  /** Resident memory of the process, MiB. */
  rss: number;
  /** Lines of metrics.jsonl, and lines of `tokens_per_second` and `rss_mib`. */
  history: MetricsHistory;
  samples: readonly RunReportSample[];
  /** Step of the last samples. */
  sampledAt: number;
  warnings: readonly string[];
  /** Step of the last checkpoint. */
  savedAt: number | undefined;
  outputDir: string | undefined;
  config: Readonly<Record<string, unknown>>;
  data: RunReportData;
}

/** Names of the sections: ids of the page. */
export const sectionNames = ["state", "notes", "charts", "samples", "facts"] as const;

/** HTML of each section. */
export type Sections = Record<(typeof sectionNames)[number], string>;

const style = raw(`
.run { display:flex; flex-wrap:wrap; align-items:center; gap:6px 12px; } .run h1 { margin:0; }
.phase { font-size:13px; font-weight:600; border-radius:99px; padding:2px 10px; background:var(--wash); color:var(--soft); }
.phase.training { background:var(--s1); color:var(--card); } .phase.finished { background:var(--good); color:var(--card); }
.phase.stopped { background:var(--bad); color:var(--card); }
.bar { height:8px; border-radius:4px; background:var(--rule); overflow:hidden; margin:16px 0 8px; } .bar i { display:block; height:100%; background:var(--s1); }
.bar.finished i { background:var(--good); } .bar.stopped i { background:var(--bad); }
.progress { display:flex; flex-wrap:wrap; gap:2px 20px; color:var(--soft); font-variant-numeric:tabular-nums; } .progress b { color:var(--ink); font-weight:600; }
.tiles { grid-template-columns:repeat(auto-fit, minmax(106px, 1fr)); gap:8px; } .tiles div { padding:10px 12px; } .tiles b { font-size:18px; font-variant-numeric:tabular-nums; white-space:nowrap; } .tiles span { display:block; line-height:1.3; }
#lost { position:sticky; top:0; z-index:1; margin:0 0 16px; max-width:none; padding:8px 14px; border-radius:8px; background:var(--bad); color:var(--card); }
`);

/**
 * Every message holds whole sections, and a new connection gets all of them: after a break nothing has to be asked for
 * again. EventSource connects again by itself, unless the answer was not a stream; then this does.
 */
const script = raw(`
const lost = document.getElementById("lost");
function connect() {
  const source = new EventSource("events");
  source.addEventListener("sections", ({ data }) => {
    lost.hidden = true;
    for (const [name, html] of Object.entries(JSON.parse(data))) document.getElementById(name).innerHTML = html;
    document.title = document.querySelector("#state [data-title]")?.dataset.title ?? document.title;
    readCharts();
  });
  source.addEventListener("end", () => source.close());
  source.onerror = () => {
    if (lost.hidden) {
      lost.textContent = "The connection was lost at " + new Date().toLocaleTimeString() + "; trying again. What is below is as it was then.";
      lost.hidden = false;
    }
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, 3000);
  };
}
connect();
`);

/** The page without its sections. */
export function livePage(): string {
  const body = html`<style>${style}</style><p id="lost" role="alert" hidden></p>
${sectionNames.map((name) => html`<section id="${name}"></section>`)}
<noscript>This page shows a run while it goes on, with a small script of its own.</noscript>`;
  return page("zephyr-align", body, { script, connect: true });
}

const lasting: Record<Phase, string> = {
  preparing: "preparing for",
  training: "running for",
  saving: "ran for",
  finished: "ran for",
  stopped: "ran for",
};

/** Title, place in the run, the last figures. */
export function stateSection(view: LiveView): string {
  const { step, totalSteps, phase } = view;
  const share = totalSteps > 0 ? Math.min(1, step / totalSteps) : 0;
  const method = methods[view.method].title;
  const going = phase === "training" || phase === "saving";
  const at = going ? `${Math.floor(100 * share)} %` : phase;
  const left = phase === "training" && view.secondsLeft !== undefined ? view.secondsLeft : undefined;
  return html`<div class="run" data-title="${at} · ${method} of ${view.model}"><h1>${method} of ${view.model}</h1><span class="phase ${phase}">${phase}</span></div>
<div class="bar ${phase}" role="progressbar" aria-label="steps" aria-valuemin="0" aria-valuemax="${totalSteps}" aria-valuenow="${step}"><i style="width:${(100 * share).toFixed(2)}%"></i></div>
<div class="progress"><span>step <b>${whole(step)}</b> of ${whole(totalSteps)}</span><span>epoch <b>${view.epoch.toFixed(2)}</b></span><span>${lasting[phase]} <b>${duration(view.seconds)}</b></span>${left === undefined ? null : html`<span>about <b>${duration(left)}</b> left</span>`}${view.savedAt === undefined ? null : html`<span>saved at step <b>${whole(view.savedAt)}</b></span>`}</div>
${tilesOf(view)}`.toString();
}

/** Three digits: a tile is read at a glance. */
const short = (value: number) => figure(Number(value.toPrecision(3)));

function tilesOf(view: LiveView): Html {
  const tile = (label: string, value: string) => html`<div><b>${value}</b><span>${label}</span></div>`;
  const last = (label: string, key: string, show = short) => {
    const value = view.history.findLast((line) => typeof line[key] === "number")?.[key];
    return typeof value === "number" ? tile(label, show(value)) : null;
  };
  return html`<div class="tiles">${[
    last("loss", "loss"),
    last("held-out loss", "eval_loss"),
    last("reward margin", "rewards/margins"),
    last("pairs right", "rewards/accuracies", percent),
    last("token accuracy", "mean_token_accuracy", percent),
    last("learning rate", "learning_rate"),
    last("gradient norm", "grad_norm"),
    view.tokensPerSecond === undefined ? null : tile("tokens/s", whole(view.tokensPerSecond)),
    tile("memory, MiB", whole(view.rss)),
  ]}</div>`;
}

/** Warnings, why it stopped, and where the results are. */
export function notesSection(view: LiveView): string {
  const { phase, problem, outputDir } = view;
  const ended =
    phase === "finished"
      ? html`<li class="holds">The run is finished; this page stays as it is.${outputDir === undefined ? null : html` Model and report: <code>${outputDir}</code>`}</li>`
      : phase === "stopped"
        ? html`<li class="fails">The run has stopped${problem === undefined ? "" : `: ${problem}`}</li>`
        : null;
  return html`${ended === null ? null : html`<ul class="notes">${ended}</ul>`}${warningNotes(view.warnings)}`.toString();
}

/** The curves so far. */
export function chartsSection(view: LiveView): string {
  const some = view.history.length > 0;
  return html`<h2>Curves</h2>${some ? trainingCharts(view.history) : html`<p class="lead">The first step is not logged yet.</p>`}`.toString();
}

/** Answers before training and now. */
export function samplesSection(view: LiveView): string {
  return (sampleCards(view.samples, `After step ${whole(view.sampledAt)}`) ?? "").toString();
}

/** What does not change: data and configuration. */
export function factsSection(view: LiveView): string {
  return html`<div class="columns">
<section><h2>Data</h2>${dataTable(view.data, view.method)}</section>
<section><h2>Configuration</h2>${configTable(view.config)}</section>
</div>`.toString();
}
