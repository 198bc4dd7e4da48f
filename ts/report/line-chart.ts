import { figure, ticks, whole } from "./format";
import { type Html, html, raw } from "./html";

/** A line of a chart. */
export interface Series {
  name: string;
  /** Index into the palette of the page, 1 to 5. */
  color: number;
  points: readonly { x: number; y: number }[];
}

/** A line chart. */
export interface LineChart {
  title: string;
  series: readonly Series[];
  /** What the x axis counts. */
  xLabel: string;
  /** A level worth seeing, for example ln 2 of the first DPO step. */
  level?: { y: number; label: string };
}

const width = 560;
const height = 224;
const margin = { left: 56, right: 14, top: 10, bottom: 24 };

/** More points than this are averaged in groups: a screen has no more columns. */
const maximumPoints = 400;

/**
 * Draws a chart as SVG; nothing when no series has a finite point. Values can be read under the pointer by the script of
 * the page (`chartScript`).
 */
export function lineChart(chart: LineChart): Html | null {
  const series = chart.series
    .map((each) => ({ ...each, points: each.points.filter(({ x, y }) => Number.isFinite(x) && Number.isFinite(y)) }))
    .filter((each) => each.points.length > 0)
    .map((each) => ({ ...each, points: thinned(each.points) }));
  if (series.length === 0) return null;
  const all = series.flatMap((each) => each.points);
  const xs = extent(all.map(({ x }) => x));
  const ys = padded(extent([...all.map(({ y }) => y), ...(chart.level ? [chart.level.y] : [])]));
  const plotWidth = width - margin.left - margin.right;
  const plotHeight = height - margin.top - margin.bottom;
  const toX = (x: number) => margin.left + (xs.high === xs.low ? 0.5 : (x - xs.low) / (xs.high - xs.low)) * plotWidth;
  const toY = (y: number) => margin.top + (1 - (y - ys.low) / (ys.high - ys.low)) * plotHeight;
  const at = (value: number) => Number(value.toFixed(1));
  const levels = ticks(ys.low, ys.high, 4);
  // figure() rounds; a curve that hardly moves is labelled with all its digits.
  const distinct = new Set(levels.map(figure)).size === levels.length;
  const grid = levels.map(
    (y) =>
      html`<line class="grid" x1="${margin.left}" x2="${width - margin.right}" y1="${at(toY(y))}" y2="${at(toY(y))}"/><text class="tick" x="${margin.left - 8}" y="${at(toY(y))}" text-anchor="end" dominant-baseline="central">${distinct ? figure(y) : String(y)}</text>`,
  );
  const axis = ticks(xs.low, xs.high, 6)
    .filter(Number.isInteger)
    .map(
      (x) =>
        html`<text class="tick" x="${at(toX(x))}" y="${height - margin.bottom + 16}" text-anchor="middle">${whole(x)}</text>`,
    );
  const lines = series.map(({ points, color }) => {
    const first = points[0]!;
    if (points.length === 1) {
      return html`<circle class="dot s${color}" cx="${at(toX(first.x))}" cy="${at(toY(first.y))}" r="3"/>`;
    }
    return html`<polyline class="line s${color}" points="${points.map(({ x, y }) => `${at(toX(x))},${at(toY(y))}`).join(" ")}"/>`;
  });
  const level = chart.level
    ? html`<line class="level" x1="${margin.left}" x2="${width - margin.right}" y1="${at(toY(chart.level.y))}" y2="${at(toY(chart.level.y))}"/><text class="tick" x="${width - margin.right}" y="${at(toY(chart.level.y)) - 5}" text-anchor="end">${chart.level.label}</text>`
    : null;
  const legend =
    series.length > 1
      ? html`<ul class="legend">${series.map(({ name, color }) => html`<li><i class="key b${color}"></i>${name}</li>`)}</ul>`
      : null;
  const data = series.map(({ name, color, points }) => ({
    name,
    color,
    points: points.map(({ x, y }) => [x, figure(y), at(toX(x)), at(toY(y))]),
  }));
  return html`<figure class="chart">
<figcaption>${chart.title}${legend}</figcaption>
<div class="plot"><svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${summary(chart.title, series)}" data-chart="${JSON.stringify({ x: chart.xLabel, series: data })}">
${grid}${axis}<text class="tick" x="${margin.left - 8}" y="${height - margin.bottom + 16}" text-anchor="end">${chart.xLabel}</text>${level}${lines}
<line class="cursor" y1="${margin.top}" y2="${height - margin.bottom}" visibility="hidden"/></svg><div class="tip" hidden></div></div>
</figure>`;
}

function summary(title: string, series: readonly Series[]): string {
  const parts = series.map(({ name, points }) => `${name} from ${figure(points[0]!.y)} to ${figure(points.at(-1)!.y)}`);
  return `${title}: ${parts.join(", ")}`;
}

function extent(values: readonly number[]): { low: number; high: number } {
  let low = Number.POSITIVE_INFINITY;
  let high = Number.NEGATIVE_INFINITY;
  for (const value of values) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  return { low, high };
}

function padded({ low, high }: { low: number; high: number }): { low: number; high: number } {
  const span = high - low;
  const room = span > 0 ? span * 0.06 : Math.abs(high) * 0.1 || 1;
  // A quantity that is never negative keeps its zero.
  return { low: low >= 0 && low - room < 0 ? 0 : low - room, high: high + room };
}

function thinned(points: readonly { x: number; y: number }[]): { x: number; y: number }[] {
  if (points.length <= maximumPoints) return [...points];
  const size = Math.ceil(points.length / maximumPoints);
  const groups: { x: number; y: number }[] = [];
  for (let start = 0; start < points.length; start += size) {
    const group = points.slice(start, start + size);
    groups.push({ x: group.at(-1)!.x, y: group.reduce((sum, { y }) => sum + y, 0) / group.length });
  }
  return groups;
}

/**
 * Shows the values of the step under the pointer. Small, without dependencies, put into the page once. It listens to the
 * document, so that charts may be replaced under the pointer: `readCharts()` then reads the place again.
 */
export const chartScript: Html = raw(`
let pointer, shown;
const hide = () => {
  if (!shown) return;
  shown.parentElement?.querySelector(".tip")?.setAttribute("hidden", "");
  shown.querySelector(".cursor")?.setAttribute("visibility", "hidden");
  shown = undefined;
};
function readCharts() {
  const svg = pointer && document.elementFromPoint(pointer.x, pointer.y)?.closest("svg[data-chart]");
  if (svg !== shown) hide();
  if (!svg) return;
  shown = svg;
  const { x: label, series } = JSON.parse(svg.dataset.chart);
  const tip = svg.parentElement.querySelector(".tip");
  const cursor = svg.querySelector(".cursor");
  const box = svg.getBoundingClientRect();
  const at = (pointer.x - box.left) / box.width * ${width};
  let near, least = Infinity;
  for (const { points } of series) for (const p of points) {
    const far = Math.abs(p[2] - at);
    if (far < least) { least = far; near = p; }
  }
  if (!near) return hide();
  tip.replaceChildren(Object.assign(document.createElement("b"), { textContent: label + " " + near[0] }));
  for (const { name, color, points } of series) {
    const p = points.find((each) => each[0] === near[0]);
    if (!p) continue;
    const line = document.createElement("div");
    const key = Object.assign(document.createElement("i"), { className: "key b" + color });
    line.append(key, name + " " + p[1]);
    tip.append(line);
  }
  cursor.setAttribute("x1", near[2]);
  cursor.setAttribute("x2", near[2]);
  cursor.setAttribute("visibility", "visible");
  tip.hidden = false;
  const left = near[2] / ${width} * box.width;
  tip.style.left = (left + tip.offsetWidth + 24 > box.width ? left - tip.offsetWidth - 12 : left + 12) + "px";
}
document.addEventListener("pointermove", ({ clientX: x, clientY: y }) => { pointer = { x, y }; readCharts(); });
document.documentElement.addEventListener("pointerleave", () => { pointer = undefined; hide(); });
`);
