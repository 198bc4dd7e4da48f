import { type Html, html } from "./html";
import { type LineChart, lineChart, type Series } from "./line-chart";

/** Lines of `metrics.jsonl`: the step and the metrics under TRL's names; null stands for a number that is not finite. */
export type MetricsHistory = readonly Readonly<Record<string, number | null>>[];

interface Wanted {
  title: string;
  series: readonly (readonly [key: string, name: string, color: number])[];
  /** Only drawn when the key `needs` was logged, and none of `not`. */
  level?: LineChart["level"] & { needs: string; not?: readonly string[] };
}

const charts: readonly Wanted[] = [
  {
    title: "Loss",
    series: [
      ["loss", "training", 1],
      ["eval_loss", "held out", 2],
    ],
    // Where DPO begins; KTO and the losses without a reference begin elsewhere.
    level: { y: Math.LN2, label: "ln 2", needs: "rewards/margins", not: ["kl", "nll_loss"] },
  },
  {
    title: "Rewards",
    series: [
      ["rewards/chosen", "chosen", 1],
      ["rewards/rejected", "rejected", 2],
      ["rewards/margins", "margins", 3],
    ],
    level: { y: 0, label: "", needs: "rewards/chosen" },
  },
  {
    title: "Chosen above rejected (share of pairs)",
    series: [
      ["rewards/accuracies", "training", 1],
      ["eval_rewards/accuracies", "held out", 2],
    ],
  },
  {
    title: "Log-probs of the answers",
    series: [
      ["logps/chosen", "chosen", 1],
      ["logps/rejected", "rejected", 2],
    ],
  },
  {
    title: "Cross-entropy beside the preference",
    series: [
      ["nll_loss", "training", 1],
      ["eval_nll_loss", "held out", 2],
    ],
  },
  {
    title: "KL estimate (nats)",
    series: [
      ["kl", "training", 1],
      ["eval_kl", "held out", 2],
    ],
  },
  {
    title: "Token accuracy",
    series: [
      ["mean_token_accuracy", "training", 1],
      ["eval_mean_token_accuracy", "held out", 2],
    ],
  },
  { title: "Learning rate", series: [["learning_rate", "learning rate", 1]] },
  { title: "Gradient norm (before clipping)", series: [["grad_norm", "gradient norm", 1]] },
  { title: "Tokens per second", series: [["tokens_per_second", "tok/s", 1]] },
  { title: "Share of the machine's peak for matrix products", series: [["peak_share", "share", 1]] },
  { title: "Memory of the process (RSS, MiB)", series: [["rss_mib", "MiB", 1]] },
];

/** The curves of a run, those that have values. */
export function trainingCharts(history: MetricsHistory): Html {
  return html`<div class="charts">${charts.map((wanted) => lineChart(chartOf(wanted, history)))}</div>`;
}

function chartOf({ title, series, level }: Wanted, history: MetricsHistory): LineChart {
  const lines: Series[] = series.map(([key, name, color]) => ({
    name,
    color,
    points: history.flatMap((line) => {
      const y = line[key];
      return typeof y === "number" && typeof line.step === "number" ? [{ x: line.step, y }] : [];
    }),
  }));
  const logged = (key: string) => history.some((line) => typeof line[key] === "number");
  const shown = level && logged(level.needs) && !level.not?.some(logged);
  return { title, series: lines, xLabel: "step", ...(shown ? { level } : {}) };
}
