/** What is in a data set as a whole. */
import { errorCodes } from "../../errors";
import { figure, percent, ticks, whole } from "../format";
import { type Bin, histogram } from "../histogram";
import { type Html, html } from "../html";
import { tiles } from "../page";
import type { BrowsedData } from "./browsed-data";
import { nearSimilarity } from "./duplicates";
import type { KnownGroups } from "./row-filter";
import { mostCompared, type RowTable } from "./row-table";

/** Figures of the rows read so far. */
export interface Overview {
  rows: number;
  read: number;
  usable: number;
  bad: { code: string; rows: number }[];
  equalPairs: number;
  /** Groups of rows that say the same, and the rows in them; null until all rows are read. */
  exactDuplicates: { groups: number; rows: number } | null;
  /** The same of rows whose prompts are alike. */
  nearDuplicates: { groups: number; rows: number; similarity: number } | null;
  /** UTF-16 units. */
  characters: number;
}

/** Adds up the table. */
export function overviewOf(table: RowTable, { exact, near }: KnownGroups): Overview {
  const bad = new Array<number>(table.codes.length).fill(0);
  let equalPairs = 0;
  let characters = 0;
  for (let row = 0; row < table.read; row++) {
    if (table.code[row]! > 0) bad[table.code[row]! - 1]!++;
    equalPairs += table.equal[row]!;
    characters += table.length[row]!;
  }
  const groups = (found: KnownGroups["exact"]) => (found ? { groups: found.groups, rows: found.rows } : null);
  return {
    rows: table.rows,
    read: table.read,
    usable: table.read - bad.reduce((sum, each) => sum + each, 0),
    bad: table.codes.map((code, i) => ({ code, rows: bad[i]! })),
    equalPairs,
    exactDuplicates: groups(exact),
    nearDuplicates: near ? { ...groups(near)!, similarity: nearSimilarity } : null,
    characters,
  };
}

/** The page before a row is chosen. `progress` is the share of everything that is looked for in the background. */
export function overviewHtml(data: BrowsedData, table: RowTable, groups: KnownGroups, progress: Progress): Html {
  const found = overviewOf(table, groups);
  const link = (rows: number, filter: string) => (rows > 0 ? html` <a href="#${filter}">show</a>` : null);
  const inGroups = (each: { groups: number; rows: number } | null) =>
    each === null
      ? "…"
      : each.rows === 0
        ? "none"
        : `${whole(each.rows)} in ${whole(each.groups)} ${each.groups === 1 ? "group" : "groups"}`;
  return html`<h1>${data.source}</h1>
<p class="lead">${data.description}</p>
${progress.share < 1 ? html`<p class="lead">${progress.text}: ${percent(progress.share)}</p><progress max="1" value="${progress.share.toFixed(4)}" aria-label="${progress.text}"></progress>` : null}
${tiles([
  ["rows", whole(found.rows)],
  ["can be used", whole(found.usable)],
  ["characters", found.characters >= 1e7 ? `${whole(found.characters / 1e6)} M` : whole(found.characters)],
])}
<div class="table"><table><thead><tr><th>Worth a look</th><th class="number">Rows</th></tr></thead><tbody>
${found.bad.map(
  ({ code, rows }) =>
    html`<tr><th scope="row"><code>${code}</code> ${(errorCodes as Record<string, string>)[code] ?? ""}${link(rows, `kind=bad&code=${code}`)}</th><td class="number">${whole(rows)}</td></tr>`,
)}
${
  data.purpose === "sft"
    ? null
    : html`<tr><th scope="row">Chosen equals rejected${link(found.equalPairs, "kind=equal")}</th><td class="number">${whole(found.equalPairs)}</td></tr>`
}
<tr><th scope="row">The same as another row${link(found.exactDuplicates?.rows ?? 0, "kind=exact")}</th><td class="number">${inGroups(found.exactDuplicates)}</td></tr>
<tr><th scope="row">Prompt like another row's${link(found.nearDuplicates?.rows ?? 0, "kind=near")}${table.rows > mostCompared ? html`<br><span class="lead">among the first ${whole(mostCompared)} rows</span>` : null}</th><td class="number">${inGroups(found.nearDuplicates)}</td></tr>
</tbody></table></div>
<div class="charts">${histogram("Messages of a row", messageBins(table))}${histogram("Characters of a row", lengthBins(table))}${histogram("Margin of the scores (chosen − rejected)", marginBins(table))}</div>`;
}

/** How far the work in the background is. */
export interface Progress {
  share: number;
  /** What is being done. */
  text: string;
}

function goodRows(table: RowTable): number[] {
  const rows: number[] = [];
  for (let row = 0; row < table.read; row++) if (table.code[row] === 0) rows.push(row);
  return rows;
}

function messageBins(table: RowTable): Bin[] {
  const counts = new Map<number, number>();
  const { system, user, assistant } = table.counts;
  for (const row of goodRows(table)) {
    const messages = Math.min(system[row]! + user[row]! + assistant[row]!, mostMessages);
    counts.set(messages, (counts.get(messages) ?? 0) + 1);
  }
  const most = Math.max(0, ...counts.keys());
  return Array.from({ length: most }, (_, i) => ({
    label: i + 1 === mostMessages ? `${mostMessages}+` : String(i + 1),
    count: counts.get(i + 1) ?? 0,
  }));
}

const mostMessages = 20;

/** Two ranges for each doubling. */
function lengthBins(table: RowTable): Bin[] {
  const rangeOf = (length: number) => Math.max(0, Math.floor(2 * Math.log2(length + 1)));
  const counts: number[] = [];
  for (const row of goodRows(table)) {
    const range = rangeOf(table.length[row]!);
    counts[range] = (counts[range] ?? 0) + 1;
  }
  const least = counts.findIndex((count) => count > 0);
  if (least < 0) return [];
  return Array.from({ length: counts.length - least }, (_, i) => ({
    label: short(2 ** ((least + i) / 2) - 1),
    count: counts[least + i] ?? 0,
  }));
}

/** Two digits. */
function short(value: number): string {
  const round = Number(value.toPrecision(2));
  return round >= 1000 ? `${figure(round / 1000)}k` : figure(Math.round(round));
}

function marginBins(table: RowTable): Bin[] {
  const values = goodRows(table).flatMap((row) => (Number.isNaN(table.margin[row]!) ? [] : [table.margin[row]!]));
  if (values.length === 0) return [];
  const low = values.reduce((least, each) => Math.min(least, each));
  const high = values.reduce((most, each) => Math.max(most, each));
  const [first = low, second = low + 1] = ticks(low, high, 16);
  const step = second - first || 1;
  const start = Math.floor(low / step + 1e-9);
  const bins: Bin[] = Array.from({ length: Math.floor(high / step + 1e-9) - start + 1 }, (_, i) => ({
    label: figure(Number(((start + i) * step).toPrecision(6))),
    count: 0,
  }));
  for (const each of values) bins[Math.floor(each / step + 1e-9) - start]!.count++;
  return bins;
}
