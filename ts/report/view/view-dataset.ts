/** A page on this machine to look at the rows of a data set. */
import { type DatasetInput, dataset } from "../../data";
import { isDataset } from "../../data/dataset-type";
import { jaccard } from "../../data/word-runs";
import { throwIfAborted } from "../../errors";
import type { Tokenizer } from "../../model/tokenizer";
import type { SeenOptions } from "../../train/seen-row";
import { percent, whole } from "../format";
import { type Html, html } from "../html";
import { LoopbackServer, openNear, send } from "../loopback-server";
import { BrowsedData, type BrowsedRow, promptOf } from "./browsed-data";
import { exactDuplicates, type Groups, nearDuplicates, nearSimilarity } from "./duplicates";
import { Matches } from "./matches";
import { promptRuns, signatureLength, similarity } from "./minhash";
import { type Overview, overviewHtml, overviewOf, type Progress } from "./overview-html";
import { filterOf, filterQuery, type KnownGroups } from "./row-filter";
import { factsOf, type Panel, panels, rowHtml, type Twin, type Twins } from "./row-html";
import { RowTable } from "./row-table";
import { viewPage } from "./view-page";

/** Options of {@link viewDataset}. */
export interface ViewOptions {
  /** Port on the loopback interface; another one when it is taken. @default 4610 */
  port?: number;
  /** Shows rows as tokens, with what is learnt of them. */
  tokenizer?: Tokenizer;
  /** How training would encode and cut; the trainers' options of the same names. */
  encoding?: SeenOptions;
  /** Called with what the user should know, for example that the port was taken. */
  onWarning?: (text: string) => void;
}

/** A page that is served until it is closed. */
export interface DatasetView {
  readonly url: string;
  /** What is in the data set; resolved when every row has been read and compared, ZA_ABORTED when it is closed before. */
  readonly overview: Promise<Overview>;
  /** Groups of duplicates, each by its rows; resolved with `overview`. */
  readonly duplicates: Promise<{ exact: number[][]; near: number[][] }>;
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** The port that is tried first. */
export const viewPort = 4610;

/** Rows of a page of the list. */
const pageRows = 50;

/** Milliseconds that one question may look for rows. */
const patience = 200;

/** Results of filters that are kept. */
const keptResults = 4;

/** Rows that are named as duplicates of one. */
const namedTwins = 20;

/**
 * Serves a page to browse the rows of a data set, on this machine only. Rows are read when they are looked at; one pass in
 * the background counts and compares them.
 *
 * @throws the typed error of data that cannot be opened
 */
export async function viewDataset(input: DatasetInput, options: ViewOptions = {}): Promise<DatasetView> {
  const rows = isDataset(input) ? input : dataset(input);
  const browser = new RowBrowser(await BrowsedData.open(rows), options);
  const port = options.port ?? viewPort;
  const page = viewPage();
  const server = await openNear(
    port,
    (free) =>
      LoopbackServer.open(free, {
        "/": (_, response) => send(response, "text/html", page),
        "/list": async (query, response) =>
          send(response, "application/json", JSON.stringify(await browser.list(query))),
        "/row": async (query, response) => send(response, "application/json", JSON.stringify(await browser.row(query))),
        "/overview": (_, response) => send(response, "application/json", JSON.stringify(browser.overview())),
      }),
    () => options.onWarning?.(`port ${port} is taken: the page is on another one`),
  );
  const close = async () => {
    await browser.close();
    await server.close();
  };
  const overview = browser.known.then(() => browser.figures());
  const duplicates = browser.known.then(() => browser.duplicates());
  // Whoever asks gets the error; nobody has to ask.
  for (const each of [overview, duplicates]) each.catch(() => {});
  return {
    url: server.url,
    overview,
    duplicates,
    close,
    [Symbol.asyncDispose]: close,
  };
}

/** Answers the page's questions. */
class RowBrowser {
  /** Resolved when everything about the rows is known. */
  readonly known: Promise<void>;
  readonly #data: BrowsedData;
  readonly #table: RowTable;
  readonly #options: ViewOptions;
  readonly #groups: KnownGroups = { exact: undefined, near: undefined };
  readonly #results = new Map<string, Matches>();
  readonly #stop = new AbortController();
  #compared = 0;

  constructor(data: BrowsedData, options: ViewOptions) {
    this.#data = data;
    this.#options = options;
    this.#table = new RowTable(data.length);
    this.known = this.#look();
    this.known.catch((error) => {
      if (!this.#stop.signal.aborted) options.onWarning?.(`the rows cannot be read to their end: ${error}`);
    });
  }

  async #look(): Promise<void> {
    const { signal } = this.#stop;
    await this.#table.fill(this.#data, signal);
    this.#groups.exact = exactDuplicates(this.#table);
    this.#groups.near = await nearDuplicates(this.#table, signal, (share) => {
      this.#compared = share;
    });
    throwIfAborted(signal);
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.known.catch(() => {});
    await Promise.all([...this.#results.values()].map((each) => each.close()));
    await this.#data.data.close();
  }

  figures(): Overview {
    return overviewOf(this.#table, this.#groups);
  }

  duplicates(): { exact: number[][]; near: number[][] } {
    const lists = (groups: Groups | undefined) => (groups ? [...groups.all()].map((each) => [...each]) : []);
    return { exact: lists(this.#groups.exact), near: lists(this.#groups.near) };
  }

  /** A page of the list: `page`, or the one that `row` stands on. */
  async list(query: URLSearchParams) {
    const filter = filterQuery(query);
    const matches = await this.#matches(filter);
    await matches.advance(patience);
    const pages = Math.max(1, Math.ceil(matches.total / pageRows));
    const asked = query.has("page") ? Number(query.get("page")) : this.#pageOf(matches, query.get("row"));
    const page = Math.min(Math.max(0, Number.isInteger(asked) ? asked : 0), pages - 1);
    const rows = matches.slice(page * pageRows, (page + 1) * pageRows);
    const shown = await Promise.all(rows.map((row) => this.#data.row(row)));
    const of = `${whole(matches.total)} of ${whole(this.#data.length)} rows`;
    const status = matches.complete ? of : `${of} · looked at ${percent(matches.share)}`;
    const items = shown.map((row) => itemHtml(row, addressOf(filter, row.index)));
    const nothing = matches.complete ? "No row is like that." : "";
    const list = html`${items.length > 0 ? html`<ol>${items}</ol>` : html`<p class="pager">${nothing}</p>`}`;
    return { html: list.toString(), rows, page, pages, status, complete: matches.complete };
  }

  #pageOf(matches: Matches, row: string | null): number {
    const position = row === null ? -1 : matches.position(Number(row));
    return position < 0 ? 0 : Math.floor(position / pageRows);
  }

  /** The rows of a filter; those of the last few filters are kept. */
  async #matches(filter: URLSearchParams): Promise<Matches> {
    const key = String(filter);
    const searched = { data: this.#data, table: this.#table, groups: this.#groups };
    const known = this.#results.get(key) ?? new Matches(filterOf(filter), searched);
    // The map is in order of use.
    this.#results.delete(key);
    this.#results.set(key, known);
    const oldest = this.#results.keys().next().value;
    if (this.#results.size > keptResults && oldest !== undefined) {
      const gone = this.#results.get(oldest);
      this.#results.delete(oldest);
      await gone?.close();
    }
    return known;
  }

  /** The row that is asked for. */
  async row(query: URLSearchParams) {
    const index = Number(query.get("row") || Number.NaN);
    const row = await this.#data.row(index);
    const filter = filterQuery(query);
    const panel = panels.find((each) => each === query.get("panel")) ?? "text";
    const link = (other: number, shown: Panel = panel) => addressOf(filter, other, shown);
    const { tokenizer, encoding } = this.#options;
    const content = rowHtml(row, {
      panel,
      query: filter.get("q") ?? "",
      encoding: tokenizer ? { tokenizer, options: encoding ?? wholeRows } : undefined,
      exact: this.#sameRows(row),
      near: await this.#nearRows(row),
      link,
      panelLink: (shown) => link(index, shown),
    });
    return { html: content.toString(), title: `row ${whole(index)} · ${this.#data.source}` };
  }

  #sameRows({ index }: BrowsedRow): Twins {
    const others = [...(this.#groups.exact?.of(index) ?? [])].filter((each) => each !== index);
    return { twins: others.slice(0, namedTwins).map((row) => ({ row, similarity: 1 })), all: others.length };
  }

  /** The rows with the nearest prompts, by their signatures; how near those named are is computed from their texts. */
  async #nearRows({ index, content }: BrowsedRow): Promise<Twins> {
    if (!content) return { twins: [], all: 0 };
    const found: Twin[] = [];
    for (const row of this.#groups.near?.of(index) ?? []) {
      const alike = similarity(this.#table.signatures, index * signatureLength, row * signatureLength);
      // A group holds rows that are alike by way of others, too.
      if (row !== index && alike >= nearSimilarity) found.push({ row, similarity: alike });
    }
    found.sort((a, b) => b.similarity - a.similarity);
    const own = promptRuns(promptOf(content));
    const twins = await Promise.all(
      found.slice(0, namedTwins).map(async ({ row }) => {
        const other = (await this.#data.row(row)).content;
        return { row, similarity: other ? jaccard(own, promptRuns(promptOf(other))) : 0 };
      }),
    );
    return { twins: twins.sort((a, b) => b.similarity - a.similarity || a.row - b.row), all: found.length };
  }

  /** The data set as a whole, as far as it is known. */
  overview() {
    const read = this.#table.rows === 0 ? 1 : this.#table.read / this.#table.rows;
    const progress: Progress = !this.#groups.exact
      ? { share: Math.min(read, 0.9999), text: "reading the rows" }
      : { share: this.#groups.near ? 1 : Math.min(this.#compared, 0.9999), text: "comparing prompts" };
    const content = overviewHtml(this.#data, this.#table, this.#groups, progress);
    return {
      html: content.toString(),
      title: `${this.#data.source} · zephyr-align view`,
      complete: progress.share === 1,
    };
  }
}

/** Nothing is cut. */
const wholeRows: SeenOptions = {
  maxLength: Number.MAX_SAFE_INTEGER,
  maxPromptLength: null,
  truncation: "keep-answer",
  lossOn: "assistant",
  answerEnd: "eos",
  specialsInContent: "text",
  onBadRow: "skip",
};

/** `#row=17&q=…`: the row under a filter. */
function addressOf(filter: URLSearchParams, row: number, panel: Panel = "text"): string {
  const query = new URLSearchParams({ row: String(row) });
  if (panel !== "text") query.set("panel", panel);
  for (const [name, value] of filter) query.set(name, value);
  return `#${query}`;
}

/** Characters of a row in the list. */
const previewLength = 240;

function itemHtml(row: BrowsedRow, address: string): Html {
  const text = row.content ? promptOf(row.content) : (row.error?.problem ?? "");
  const preview = text
    .slice(0, 4 * previewLength)
    .replaceAll(/\s+/g, " ")
    .slice(0, previewLength);
  const facts = factsOf(row).map(({ text: fact, kind }) =>
    kind ? html`<span class="badge ${kind}">${fact}</span>` : html`<span>${fact}</span>`,
  );
  return html`<li><a href="${address}" data-row="${row.index}"><div class="facts"><b>${whole(row.index)}</b>${facts}</div><div class="preview" dir="auto">${preview === "" ? "(no text)" : preview}</div></a></li>`;
}
