/** A row as HTML: its texts, its tokens, or the row as it is written. */
import { placeText, type ZephyrError } from "../../errors";
import type { Tokenizer } from "../../model/tokenizer";
import { classedPieces, type SeenOptions, type SeenSequence, seenRow } from "../../train/seen-row";
import { figure, percent, whole } from "../format";
import { type Html, html } from "../html";
import { factTable } from "../page";
import { allSaid, type BrowsedRow, marginOf, partsOf, rawText, type Said } from "./browsed-data";
import { ratedAnswers } from "./rated-answers";
import { patternOf } from "./row-filter";

/** Ways to look at a row. */
export const panels = ["text", "tokens", "json"] as const;

/** One of {@link panels}. */
export type Panel = (typeof panels)[number];

/** How rows are encoded, when a tokenizer is there. */
export interface Encoding {
  tokenizer: Tokenizer;
  options: SeenOptions;
}

/** Another row that is like this one. */
export interface Twin {
  row: number;
  /** Of the prompts, 0 to 1; 1 for rows that are the same. */
  similarity: number;
}

/** The nearest of the rows that are like one, and how many there are in all. */
export interface Twins {
  twins: readonly Twin[];
  all: number;
}

/** What is shown of a row besides itself. */
export interface RowContext {
  panel: Panel;
  /** Text whose places are marked. */
  query: string;
  encoding: Encoding | undefined;
  /** Rows that say the same. */
  exact: Twins;
  /** Rows whose prompts are alike. */
  near: Twins;
  /** Address of a row under the filter in use. */
  link: (row: number) => string;
  /** Address of a panel of this row. */
  panelLink: (panel: Panel) => string;
}

/** The whole row. */
export function rowHtml(row: BrowsedRow, context: RowContext): Html {
  const { index, error } = row;
  return html`<header class="row-head"><h1>Row ${whole(index)}</h1><code>${placeText(row.place)}</code>
<nav class="panels" aria-label="ways to look at the row">${panels.map(
    (panel) =>
      html`<a href="${context.panelLink(panel)}"${panel === context.panel ? html` aria-current="true"` : null}>${panelNames[panel]}</a>`,
  )}</nav></header>
<p class="badges">${factsOf(row).map(({ text, kind }) => html`<span class="badge ${kind}">${text}</span>`)}</p>
${error ? problemHtml(error) : null}
${twinsHtml("The same row", context.exact, context.link, false)}${twinsHtml("Prompts like this one", context.near, context.link, true)}
${panelHtml(row, context)}`;
}

function problemHtml({ problem, code, place, remedy }: ZephyrError): Html {
  return html`<div class="problem" role="note"><b>Training refuses this row.</b> ${problem}. <code>${code}</code>${place?.field ? html` at <code>${place.field}</code>` : null}${remedy ? html`<br>${remedy}` : null}</div>`;
}

const panelNames: Record<Panel, string> = { text: "Text", tokens: "Tokens", json: "JSON" };

function panelHtml(row: BrowsedRow, context: RowContext): Html | null {
  if (context.panel === "json") return jsonPanel(row, context.query);
  if (!row.content) return html`${ratedHtml(row, context.query)}${jsonPanel(row, context.query)}`;
  return context.panel === "tokens" ? tokenPanel(row, context.encoding) : textPanel(row, context.query);
}

/** A fact about a row; `bad` and `warn` stand out. */
export interface RowFact {
  text: string;
  kind: "" | "bad" | "warn";
}

/** Short facts about a row. */
export function factsOf(row: BrowsedRow): RowFact[] {
  const { content, equal, error } = row;
  if (!content) return [{ text: error?.code ?? "", kind: "bad" }];
  const margin = marginOf(row);
  const said = allSaid(content);
  const length = said.reduce((sum, { text }) => sum + text.length, 0);
  return [
    ...("label" in content ? [{ text: content.label ? "wanted" : "unwanted", kind: "" as const }] : []),
    { text: `${said.length} ${said.length === 1 ? "message" : "messages"}`, kind: "" },
    { text: `${whole(length)} characters`, kind: "" },
    ...(margin === null ? [] : [{ text: `margin ${figure(margin)}`, kind: margin > 0 ? "" : "warn" } as const]),
    ...(equal ? [{ text: "chosen equals rejected", kind: "warn" } as const] : []),
  ];
}

function twinsHtml(title: string, { twins, all }: Twins, link: (row: number) => string, near: boolean) {
  if (all === 0) return null;
  const more = all > twins.length ? ` and ${whole(all - twins.length)} more` : "";
  return html`<p class="twins"><b>${title}:</b> ${twins.map(
    ({ row, similarity }) =>
      html`<a href="${link(row)}">${whole(row)}${near ? html` <small>${percent(similarity)}</small>` : null}</a> `,
  )}${more}</p>`;
}

/** Longest text that a page is given; the rest is counted. */
const longestText = 200_000;

/** A text with what is searched marked in it. */
function marked(text: string, query: string): Html {
  const shown = text.slice(0, longestText);
  const pattern = patternOf(query, "giu");
  const parts: Html[] = [];
  let at = 0;
  for (const match of pattern ? shown.matchAll(pattern) : []) {
    parts.push(html`${shown.slice(at, match.index)}<mark>${match[0]}</mark>`);
    at = match.index + match[0].length;
  }
  const rest = text.length - shown.length;
  return html`${parts}${shown.slice(at)}${rest > 0 ? html`<i class="rest">… ${whole(rest)} more characters</i>` : null}`;
}

function saidHtml({ by, text }: Said, query: string): Html {
  const empty = text.trim() === "" ? html`<i class="rest">(${text === "" ? "no text" : "only white space"})</i>` : null;
  return html`<section class="said-by ${by}"><h2>${by}</h2><div class="words" dir="auto">${empty ?? marked(text, query)}</div></section>`;
}

function textPanel(row: BrowsedRow, query: string): Html {
  const { shared, answers } = partsOf(row.content!);
  const score = (name: string) => (name === "chosen" || name === "rejected" ? row.scores[name] : null);
  return html`${shared.map((said) => saidHtml(said, query))}${
    answers.length === 0
      ? null
      : html`<div class="answer-columns">${answers.map(
          ({ name, said }) =>
            html`<div class="answer ${name}"><h2>${name}${score(name) === null ? null : html`<b>${figure(score(name)!)}</b>`}</h2>${said.map(
              (each) =>
                said.length > 1
                  ? saidHtml(each, query)
                  : html`<div class="words" dir="auto">${marked(each.text, query)}</div>`,
            )}</div>`,
        )}</div>`
  }${ratedHtml(row, query)}${otherColumns(row)}`;
}

/** All rated answers of a row, of which the pair above is two. */
function ratedHtml({ raw }: BrowsedRow, query: string): Html | null {
  const answers = ratedAnswers(raw);
  if (answers.length === 0) return null;
  const score = (value: number | null, name: string) =>
    value === null ? null : html`<b>${figure(value)}</b> ${name} `;
  return html`<h2>All ${answers.length} answers with their ratings</h2><div class="answer-columns">${answers.map(
    ({ model, text, mean, overall, aspects, critique }) =>
      html`<div class="answer"><h2>${model ?? "answer"}<small>${score(mean, "mean of the aspects, 1 to 5")}${score(overall, "overall, 1 to 10")}</small></h2><div class="words" dir="auto">${marked(text, query)}</div>${
        aspects.length === 0
          ? null
          : html`<details><summary>${aspects.map(({ name, rating }) => `${name.replaceAll("_", " ")} ${rating}`).join(", ")}</summary>${aspects.map(
              ({ name, rating, rationale }) =>
                html`<p class="words" dir="auto"><b>${name.replaceAll("_", " ")} ${rating}</b> ${rationale}</p>`,
            )}</details>`
      }${critique ? html`<details><summary>critique</summary><p class="words" dir="auto">${critique}</p></details>` : null}</div>`,
  )}</div>`;
}

/** Columns whose texts are shown above. */
const shownColumns = [
  "instruction",
  "completions",
  "history",
  "messages",
  "conversations",
  "prompt",
  "completion",
  "text",
  "chosen",
  "rejected",
];

function otherColumns({ raw }: BrowsedRow): Html | null {
  const others = Object.entries(raw as Record<string, unknown>).filter(([name]) => !shownColumns.includes(name));
  if (others.length === 0) return null;
  const value = (each: unknown) => {
    const text = typeof each === "string" ? each : rawText(each);
    return text.length > 300 ? `${text.slice(0, 300)}…` : text;
  };
  return html`<h2>Other columns</h2>${factTable(others.map(([name, each]) => [name, html`<code>${value(each)}</code>`]))}`;
}

function jsonPanel({ raw }: BrowsedRow, query: string): Html | null {
  return raw === undefined ? null : html`<pre class="json">${marked(rawText(raw, 2), query)}</pre>`;
}

/** More tokens are not drawn one by one. */
const mostTokens = 20_000;

function tokenPanel(row: BrowsedRow, encoding: Encoding | undefined): Html {
  if (!encoding) {
    return html`<p class="lead">Start the page with <code>--model PATH</code> or <code>--tokenizer FOLDER</code> to see what training would learn of each row.</p>`;
  }
  const { tokenizer, options } = encoding;
  const fitted = seenRow(row.content!, row.place, tokenizer, options);
  const refused = "problem" in fitted ? fitted : undefined;
  // What does not fit is shown whole; what cannot be encoded cannot be shown.
  const seen = refused
    ? seenRow(row.content!, row.place, tokenizer, { ...options, maxLength: Number.MAX_SAFE_INTEGER })
    : fitted;
  const problem = refused ? problemHtml(refused) : null;
  if ("problem" in seen) return html`${problem}`;
  const facts = [
    ...(seen.cut > 0 ? [`${whole(seen.cut)} tokens are cut`] : []),
    ...(seen.straddling > 0 ? [`${whole(seen.straddling)} tokens straddle template and content`] : []),
  ];
  return html`${problem}<p class="mask-key"><span class="learnt">learnt</span> <span class="end">end token, learnt</span> <span class="content">given</span> <span class="template">template</span> <span class="cut">cut</span></p>
${facts.length > 0 ? html`<p class="lead">${facts.join(", ")}.</p>` : null}
<div class="answer-columns">${seen.sequences.map((sequence) => sequenceHtml(sequence, tokenizer))}</div>`;
}

function sequenceHtml(sequence: SeenSequence, tokenizer: Tokenizer): Html {
  const { ids, supervised, side } = sequence;
  const learnt = supervised.reduce((sum, each) => sum + each, 0);
  const share = ids.length > 0 ? ` (${percent(learnt / ids.length)})` : "";
  const pieces = classedPieces({ ...sequence, ids: ids.subarray(0, mostTokens) }, tokenizer);
  return html`<div class="answer ${side ?? ""}"><h2>${side ?? "sequence"}<small>${whole(ids.length)} tokens, ${whole(learnt)} learnt${share}</small></h2><div class="words tokens" dir="auto">${pieces.map(
    ({ text, class: kind, start, end }) =>
      html`<span class="${kind}" title="${[...ids.subarray(start, end)].join(" ")}">${visible(text)}</span>`,
  )}${ids.length > mostTokens ? html`<i class="rest">… ${whole(ids.length - mostTokens)} more tokens</i>` : null}</div></div>`;
}

/** Line breaks are shown and broken; a token without text is shown as such. */
function visible(text: string): string {
  return text === "" ? "∅" : text.replaceAll("\n", "↵\n");
}
