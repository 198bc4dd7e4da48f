import { ticks } from "./format";
import { type Html, html } from "./html";

/** A value with its interval. */
export interface IntervalBar {
  name: string;
  /** Index into the palette of the page, 1 to 5. */
  color: number;
  value: number;
  /** null when there is no interval. */
  low: number | null;
  high: number | null;
  /** Measured by others: drawn as an outline. */
  published?: boolean;
  /** What the value is of, for example `n 160`. */
  note?: string;
}

/** Bars in groups, with 95 % intervals as whiskers. */
export interface IntervalBars {
  title: string;
  groups: readonly { label: string; bars: readonly IntervalBar[] }[];
  scale: readonly [least: number, most: number];
  /** Names of the colours, when a group holds several bars. */
  legend?: readonly { name: string; color: number }[];
  /** A value worth seeing, for example 50 %. */
  level?: number;
  /** Room for the labels of the groups. @default 150 */
  labelWidth?: number;
  /** Drawn to stand beside another chart. @default false */
  half?: boolean;
}

const barHeight = 9;
const barGap = 2;
const groupGap = 16;
/** Of a label, about. */
const characterWidth = 6.4;
const top = 8;
const bottom = 24;

/** Draws the bars from the least value of the scale. Intervals may reach beyond it; the drawing does not. */
export function intervalBars({ title, groups, scale, legend, level, labelWidth = 150, half }: IntervalBars): Html {
  const [least, most] = scale;
  const width = half ? 560 : 900;
  const starts: number[] = [];
  let end = top;
  for (const { bars } of groups) {
    starts.push(end + groupGap / 2);
    end += Math.max(1, bars.length) * (barHeight + barGap) - barGap + groupGap;
  }
  const height = end + bottom;
  const at = (value: number) => {
    const inside = Math.min(Math.max(value, least), most);
    return Number((labelWidth + ((width - labelWidth - 16) * (inside - least)) / (most - least)).toFixed(1));
  };
  return html`<figure class="chart">
<figcaption>${title}${legend ? html`<ul class="legend">${legend.map(({ name, color }) => html`<li><i class="key b${color}"></i>${name}</li>`)}</ul>` : null}</figcaption>
<div class="${half ? "" : "wide"}"${half ? null : html` tabindex="0" role="group" aria-label="${title}"`}><svg class="${half ? "compact" : ""}" viewBox="0 0 ${width} ${height}" role="img" aria-label="${title}">
${ticks(least, most, half ? 5 : 10).map(
  (value) =>
    html`<line class="grid" x1="${at(value)}" x2="${at(value)}" y1="${top}" y2="${height - bottom}"/><text class="tick" x="${at(value)}" y="${height - 8}" text-anchor="middle">${value}</text>`,
)}
${level === undefined ? null : html`<line class="level" x1="${at(level)}" x2="${at(level)}" y1="${top}" y2="${height - bottom}"/>`}
${groups.map(({ label, bars }, row) => {
  const start = starts[row]!;
  const middle = start + (Math.max(1, bars.length) * (barHeight + barGap) - barGap) / 2;
  return html`<text class="label" x="${labelWidth - 12}" y="${middle}" text-anchor="end" dominant-baseline="central">${fitted(label, labelWidth)}</text>${bars.map(
    (bar, i) => barHtml(bar, label, start + i * (barHeight + barGap), labelWidth, at),
  )}`;
})}
</svg></div></figure>`;
}

/** A label that has no room is cut; whole it stands beside the value, under the pointer. */
function fitted(label: string, room: number): string {
  const most = Math.floor((room - 16) / characterWidth);
  return label.length > most ? `${label.slice(0, most - 1)}…` : label;
}

function barHtml(bar: IntervalBar, label: string, y: number, left: number, at: (value: number) => number): Html {
  const { name, color, value, low, high, published, note } = bar;
  const centre = y + barHeight / 2;
  const sure = low !== null && high !== null;
  const said = `${label}${name === label ? "" : `, ${name}`}: ${value.toFixed(2)}${sure ? ` (${low.toFixed(2)} to ${high.toFixed(2)})` : ""}${published ? ", published" : ""}${note ? `, ${note}` : ""}`;
  const wide = Number(Math.max(at(value) - left, 2).toFixed(1));
  return html`<g><title>${said}</title><rect class="${published ? "outline" : "b"}${color}" x="${left}" y="${y}" width="${wide}" height="${barHeight}" rx="2"/>${
    sure
      ? html`<path class="whisker" fill="none" d="M${at(low)} ${centre}H${at(high)}M${at(low)} ${y + 2}v${barHeight - 4}M${at(high)} ${y + 2}v${barHeight - 4}"/>`
      : null
  }</g>`;
}
