import { whole } from "./format";
import { type Html, html } from "./html";

/** A bar of a histogram. */
export interface Bin {
  label: string;
  count: number;
}

const width = 560;
const height = 150;
const margin = { left: 8, right: 8, top: 18, bottom: 22 };

/** How often values lie in each range; nothing when there is none at all. */
export function histogram(title: string, bins: readonly Bin[]): Html | null {
  const most = Math.max(0, ...bins.map(({ count }) => count));
  if (most === 0) return null;
  const step = (width - margin.left - margin.right) / bins.length;
  const plot = height - margin.top - margin.bottom;
  // Labels are as wide as 9 characters or so.
  const every = Math.ceil(bins.length / 9);
  const at = (value: number) => Number(value.toFixed(1));
  return html`<figure class="chart"><figcaption>${title}</figcaption>
<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${title}: ${bins.map(({ label, count }) => `${label}: ${whole(count)}`).join(", ")}">
<line class="grid" x1="${margin.left}" x2="${width - margin.right}" y1="${margin.top + plot}" y2="${margin.top + plot}"/>${bins.map(
    ({ label, count }, i) => {
      const tall = count === 0 ? 0 : Math.max(1.5, (plot * count) / most);
      const x = margin.left + i * step;
      return html`<g><title>${label}: ${whole(count)}</title><rect class="b1" x="${at(x + step * 0.08)}" y="${at(margin.top + plot - tall)}" width="${at(step * 0.84)}" height="${at(tall)}" rx="2"/>${
        count === most || bins.length <= 9
          ? html`<text class="tick" x="${at(x + step / 2)}" y="${at(margin.top + plot - tall - 4)}" text-anchor="middle">${count > 0 ? whole(count) : null}</text>`
          : null
      }${
        i % every === 0
          ? html`<text class="tick" x="${at(x + step / 2)}" y="${height - 6}" text-anchor="middle">${label}</text>`
          : null
      }</g>`;
    },
  )}
</svg></figure>`;
}
