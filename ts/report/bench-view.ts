/** The embedded bench as parts of a page: what a report and a page in a browser show of it. */
import { type BenchScores, type Judged, scoresOf } from "../../recipes/demo/bench";
import { categories } from "../../recipes/demo/world";
import { type Html, html } from "./html";
import { intervalBars } from "./interval-bars";
import { radarChart } from "./radar-chart";
import { type JudgedConversation, type JudgedModel, modelColors, scoreTable, sideBySide } from "./scores";
import { style } from "./style";

/** What a model said on the bench, judged. */
export interface JudgedRun {
  name: string;
  /** One line under the name. */
  note?: string;
  judged: readonly Judged[];
}

/** The style sheet of {@link benchHtml}, light or dark as the reader's system. */
export const benchStyle: string = style.text;

/**
 * Table, radar, bars and answers of models that answered the same tasks, as the inside of an element. Every text of a model is
 * escaped.
 */
export function benchHtml(runs: readonly JudgedRun[]): string {
  if (runs.length === 0) return "";
  const models = runs.map(({ name, note, judged }): JudgedModel => {
    return { name, ...(note === undefined ? {} : { note }), ...scoresOf(judged) };
  });
  const colors = modelColors(models);
  return html`<h2>Scores</h2>
${scoreTable({ scale: [1, 10], models }, colors)}
<h2>By category</h2>
<div class="columns">${radar(models, colors)}${bars(models, colors)}</div>
${sideBySide(conversations(runs), colors)}`.toString();
}

function radar(models: readonly JudgedModel[], colors: ReadonlyMap<string, number>): Html {
  return radarChart({
    title: "Mean score, 1 to 10",
    axes: [...categories],
    rings: [2, 4, 6, 8, 10],
    series: models.map(({ name, categories: scores }, index) => ({
      name,
      color: colors.get(name) ?? 1,
      dash: index,
      values: categories.map((category) => {
        const score = (scores as BenchScores["categories"])[category];
        return score.n > 0 ? { value: score.mean, note: `, n ${score.n}` } : null;
      }),
    })),
  });
}

function bars(models: readonly JudgedModel[], colors: ReadonlyMap<string, number>): Html {
  const shown = (name: string) => ({ name, color: colors.get(name) ?? 1 });
  return intervalBars({
    title: "Mean score and 95 % interval",
    scale: [1, 10],
    half: true,
    labelWidth: 110,
    legend: models.map(({ name }) => shown(name)),
    groups: categories.map((label) => ({
      label,
      bars: models.map(({ name, categories: scores }) => {
        const { mean, low, high, n } = scores[label]!;
        return { ...shown(name), value: mean, low, high, note: `n ${n}` };
      }),
    })),
  });
}

/** The tasks in their order, each with the answers of all models. */
function conversations(runs: readonly JudgedRun[]): JudgedConversation[] {
  return runs[0]!.judged.map(({ task }, index) => ({
    category: task.category,
    turns: ([0, 1] as const).map((turn) => ({
      prompt: task.turns[turn].prompt,
      answers: runs.flatMap(({ name, judged }) => {
        const own = judged[index];
        if (own?.task.id !== task.id) return [];
        const { score, rationale } = own.judgements[turn];
        return [{ model: name, text: own.answers[turn], score, rationale }];
      }),
    })),
  }));
}
