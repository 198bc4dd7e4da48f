/** Scores and answers of models that were judged on one bench: what its pages have in common. */
import { whole } from "./format";
import { type Html, html } from "./html";

/** A mean score with its 95 % interval and the number of judgements. */
export interface ScoreSummary {
  mean: number;
  low: number;
  high: number;
  n: number;
}

/** The judged answers of one model. */
export interface JudgedModel {
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

/** A conversation with the answers of the models. */
export interface JudgedConversation {
  category: string;
  turns: readonly {
    prompt: string;
    /** In the order of the models. */
    answers: readonly { model: string; text: string; score: number; rationale: string }[];
  }[];
}

/** Models that were judged on one bench, and the lowest and highest score that its judge gives. */
export interface Scored {
  scale: readonly [low: number, high: number];
  models: readonly JudgedModel[];
}

/** The colours of models by name. The first is the base and grey; the others take the palette in turn. */
export function modelColors(models: readonly JudgedModel[]): ReadonlyMap<string, number> {
  const color = (index: number) =>
    index === 0 && models.length > 1 ? 5 : ((index + (models.length > 1 ? 3 : 0)) % 4) + 1;
  return new Map(models.map(({ name }, index) => [name, color(index)]));
}

/** Means with their intervals, over all and by turn. */
export function scoreTable({ models, scale }: Scored, colors: ReadonlyMap<string, number>): Html {
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

/** Conversations with what each model said, its score and why. */
export function sideBySide(list: readonly JudgedConversation[], colors: ReadonlyMap<string, number>): Html | null {
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
