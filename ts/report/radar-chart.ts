import { type Html, html } from "./html";

/** A line around the radar. */
export interface RadarSeries {
  name: string;
  /** Index into the palette of the page, 1 to 5. */
  color: number;
  /** Which of the dashes, so that lines differ without colour, from 0. */
  dash: number;
  /** One for each axis; null when there is none. `note` follows the value where it is read. */
  values: readonly ({ value: number; note: string } | null)[];
}

/** Values around a centre, one axis each, clockwise from the top. */
export interface RadarChart {
  title: string;
  axes: readonly string[];
  series: readonly RadarSeries[];
  /** Values of the rings; the last is the rim. */
  rings: readonly number[];
}

const width = 560;
const height = 430;
const radius = 160;
const centre = { x: width / 2, y: height / 2 };
const dashes = ["", "6 4", "2 4", "10 4 2 4"];

/** Draws closed lines with a mark at each axis, unfilled, so that none hides another. */
export function radarChart({ title, axes, series, rings }: RadarChart): Html {
  const rim = rings.at(-1)!;
  const point = (axis: number, value: number) => {
    const angle = (2 * Math.PI * axis) / axes.length - Math.PI / 2;
    const far = (radius * Math.min(Math.max(value, 0), rim)) / rim;
    const round = (each: number) => Number(each.toFixed(1));
    return { x: round(centre.x + far * Math.cos(angle)), y: round(centre.y + far * Math.sin(angle)) };
  };
  return html`<figure class="chart">
<figcaption>${title}<ul class="legend">${series.map(
    ({ name, color, dash }) =>
      html`<li><svg class="stroke" viewBox="0 0 26 10" width="26" height="10" aria-hidden="true"><path class="line s${color}" stroke-dasharray="${dashes[dash % dashes.length]}" d="M0 5H26"/><circle class="dot s${color}" cx="13" cy="5" r="3"/></svg>${name}</li>`,
  )}</ul></figcaption>
<svg class="compact" viewBox="0 0 ${width} ${height}" role="img" aria-label="${summary(title, axes, series)}">
${rings.map((ring) => html`<circle class="grid" fill="none" cx="${centre.x}" cy="${centre.y}" r="${(radius * ring) / rim}"/>`)}
${axes.map((axis, i) => {
  const end = point(i, rim);
  const label = { x: centre.x + (end.x - centre.x) * 1.1, y: centre.y + (end.y - centre.y) * 1.1 };
  const side = Math.abs(label.x - centre.x) < 2 ? "middle" : label.x > centre.x ? "start" : "end";
  return html`<line class="grid" x1="${centre.x}" y1="${centre.y}" x2="${end.x}" y2="${end.y}"/><text class="label" x="${label.x.toFixed(1)}" y="${label.y.toFixed(1)}" text-anchor="${side}" dominant-baseline="central">${axis}</text>`;
})}
${rings.map((ring) => html`<text class="tick" x="${centre.x + 5}" y="${(centre.y - (radius * ring) / rim + 11).toFixed(1)}">${ring}</text>`)}
${series.map(({ name, color, dash, values }) => {
  const known = values.flatMap((each, i) => (each ? [{ ...each, ...point(i, each.value), axis: axes[i]! }] : []));
  const path = known.map(({ x, y }, i) => `${i === 0 ? "M" : "L"}${x} ${y}`).join("");
  return html`<g><path class="line s${color}" stroke-dasharray="${dashes[dash % dashes.length]}" d="${path}Z"/>${known.map(
    ({ x, y, axis, value, note }) =>
      html`<circle class="dot s${color}" cx="${x}" cy="${y}" r="3.5"><title>${axis}, ${name}: ${value.toFixed(2)}${note}</title></circle>`,
  )}</g>`;
})}
</svg></figure>`;
}

function summary(title: string, axes: readonly string[], series: readonly RadarSeries[]): string {
  const of = ({ name, values }: RadarSeries) =>
    `${name}: ${values.map((each, i) => `${axes[i]} ${each ? each.value.toFixed(2) : "none"}`).join(", ")}`;
  return `${title}. ${series.map(of).join(". ")}`;
}
