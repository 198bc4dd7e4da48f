import type { DemoModel } from "./demo-report";
import { type Html, html } from "./html";

const width = 900;
const labelWidth = 150;
const barHeight = 9;
const barGap = 2;
const groupGap = 16;
const top = 8;
const bottom = 24;

/** Bars of every category, one per model, with 95 % intervals; categories in the order of the first model. */
export function categoryBars(
  models: readonly DemoModel[],
  [least, most]: readonly [number, number],
  colors: ReadonlyMap<string, number>,
): Html {
  const categories = Object.keys(models[0]?.categories ?? {});
  const groupHeight = models.length * (barHeight + barGap) - barGap + groupGap;
  const height = top + categories.length * groupHeight + bottom;
  // Intervals may reach beyond the scale; the drawing does not.
  const at = (value: number) => {
    const inside = Math.min(Math.max(value, least), most);
    return Number((labelWidth + ((width - labelWidth - 16) * (inside - least)) / (most - least)).toFixed(1));
  };
  const ticks = Array.from({ length: Math.floor(most - least) + 1 }, (_, i) => least + i);
  return html`<figure class="chart">
<figcaption>Mean score and 95 % interval<ul class="legend">${models.map(
    ({ name }) => html`<li><i class="key b${colors.get(name) ?? 1}"></i>${name}</li>`,
  )}</ul></figcaption>
<div class="wide"><svg viewBox="0 0 ${width} ${height}" role="img" aria-label="Mean score of each model in each category">
${ticks.map(
  (value) =>
    html`<line class="grid" x1="${at(value)}" x2="${at(value)}" y1="${top}" y2="${height - bottom}"/><text class="tick" x="${at(value)}" y="${height - 8}" text-anchor="middle">${value}</text>`,
)}
${categories.map((category, row) => {
  const start = top + row * groupHeight + groupGap / 2;
  const middle = start + (groupHeight - groupGap) / 2;
  return html`<text class="label" x="${labelWidth - 12}" y="${middle}" text-anchor="end" dominant-baseline="central">${category}</text>${models.map(
    ({ name, categories: scores }, i) => {
      const score = scores[category];
      if (!score) return null;
      const y = start + i * (barHeight + barGap);
      const centre = y + barHeight / 2;
      return html`<g><title>${category}, ${name}: ${score.mean.toFixed(2)} (${score.low.toFixed(2)} to ${score.high.toFixed(2)}), n ${score.n}</title><rect class="b${colors.get(name) ?? 1}" x="${labelWidth}" y="${y}" width="${Number(Math.max(at(score.mean) - labelWidth, 2).toFixed(1))}" height="${barHeight}" rx="2"/><path class="whisker" fill="none" d="M${at(score.low)} ${centre}H${at(score.high)}M${at(score.low)} ${y + 2}v${barHeight - 4}M${at(score.high)} ${y + 2}v${barHeight - 4}"/></g>`;
    },
  )}`;
})}
</svg></div></figure>`;
}
