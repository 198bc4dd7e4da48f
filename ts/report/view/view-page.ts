/** The page that shows rows. The server renders the list and the row; the page's script puts them in their places. */
import { type Html, html, raw } from "../html";
import { page } from "../page";
import type { kinds, orders, roleChoices } from "./row-filter";

const style = raw(`
html { height:100%; } body { min-height:100%; } body > main { max-width:none; padding:0; }
.app { display:grid; grid-template-columns:minmax(300px, 380px) minmax(0, 1fr); height:100vh; }
.side { display:flex; flex-direction:column; min-height:0; border-right:1px solid var(--rule); background:var(--card); }
.side form { padding:12px 14px 8px; border-bottom:1px solid var(--rule); }
input, select, button { font:inherit; color:inherit; background:var(--page); border:1px solid var(--edge); border-radius:6px; padding:5px 8px; min-width:0; }
button { cursor:pointer; } button:disabled { opacity:.5; cursor:default; }
:focus-visible { outline:2px solid var(--s1); outline-offset:1px; }
input[type=search] { width:100%; } details { margin-top:8px; } summary { cursor:pointer; color:var(--soft); font-size:13px; }
.fields { display:grid; grid-template-columns:auto 1fr 1fr; gap:6px 8px; align-items:center; margin-top:8px; font-size:13px; }
.fields select { grid-column:span 2; } .fields .role { grid-column:1; width:100%; }
#status { margin:0; padding:6px 14px; font-size:13px; color:var(--soft); border-bottom:1px solid var(--rule); font-variant-numeric:tabular-nums; min-height:32px; }
#list { flex:1; min-height:0; overflow-y:auto; } #list ol { list-style:none; margin:0; padding:0; }
#list a { display:block; padding:8px 14px; color:inherit; text-decoration:none; border-bottom:1px solid var(--rule); border-left:3px solid transparent; }
#list a:hover { background:var(--wash); } #list a[aria-current] { background:var(--wash); border-left-color:var(--s1); }
#list .preview { display:-webkit-box; -webkit-box-orient:vertical; -webkit-line-clamp:2; overflow:hidden; overflow-wrap:anywhere; font-size:14px; line-height:1.4; }
#list .facts { display:flex; flex-wrap:wrap; gap:0 10px; align-items:baseline; font-size:12.5px; color:var(--soft); font-variant-numeric:tabular-nums; } #list .facts b { font-weight:600; font-size:13px; color:var(--ink); }
.pager { display:flex; gap:8px; align-items:center; justify-content:space-between; padding:8px 14px; border-top:1px solid var(--rule); font-size:13px; font-variant-numeric:tabular-nums; }
#main { overflow-y:auto; padding:20px 28px 48px; min-width:0; }
#main > * { max-width:1400px; } #main h1 { overflow-wrap:anywhere; }
.row-head { display:flex; flex-wrap:wrap; align-items:center; gap:4px 16px; } .row-head h1 { margin:0; font-size:22px; } .row-head code { color:var(--soft); overflow-wrap:anywhere; }
.panels { display:flex; gap:2px; margin-left:auto; background:var(--wash); border-radius:8px; padding:2px; }
.panels a { padding:3px 12px; border-radius:6px; color:var(--soft); text-decoration:none; font-size:14px; } .panels a[aria-current] { background:var(--card); color:var(--ink); }
.badges { display:flex; flex-wrap:wrap; gap:4px 6px; margin:8px 0 12px; max-width:none; } .badge { font-size:12px; line-height:1.5; padding:0 8px; border-radius:99px; background:var(--wash); color:var(--soft); white-space:nowrap; }
.badge.bad { background:var(--bad); color:var(--card); } .badge.warn { background:var(--warn); color:var(--ink); }
.problem { border:1px solid var(--bad); border-left-width:4px; border-radius:8px; background:var(--card); padding:10px 14px; margin:0 0 14px; overflow-wrap:anywhere; }
.twins { font-size:13px; max-width:none; } .twins a, #main .table a, .lead a { color:var(--link); } .twins small { color:var(--soft); }
.said-by, .answer { background:var(--card); border:1px solid var(--rule); border-radius:8px; padding:10px 14px 12px; margin-bottom:12px; border-left-width:4px; }
.said-by.user, .said-by.prompt { border-left-color:var(--s1); } .said-by.assistant, .said-by.completion { border-left-color:var(--s3); } .said-by.system { border-left-color:var(--s4); }
.answer .said-by { padding:6px 10px 8px; } #main .said-by h2, #main .answer > h2 { display:flex; gap:10px; align-items:baseline; margin:0 0 4px; font-size:13px; font-weight:600; color:var(--soft); }
.answer > h2 b { margin-left:auto; color:var(--ink); font-variant-numeric:tabular-nums; } .answer > h2 small { margin-left:auto; font-weight:400; }
.answer.chosen, .answer.wanted { border-left-color:var(--good); } .answer.rejected, .answer.unwanted { border-left-color:var(--bad); }
.answer-columns { display:grid; grid-template-columns:repeat(auto-fit, minmax(min(360px, 100%), 1fr)); gap:12px; align-items:start; } .answer-columns > * { min-width:0; margin:0; }
.words { white-space:pre-wrap; overflow-wrap:anywhere; } .rest { color:var(--soft); font-size:13px; }
mark { background:var(--mark); color:var(--ink); border-radius:2px; }
.tokens { font:13.5px/1.75 ui-monospace, "SF Mono", Menlo, Consolas, monospace; } .mask-key { display:flex; flex-wrap:wrap; gap:6px 14px; font-size:13px; }
.tokens span, .mask-key span { border-radius:3px; } .tokens span:hover { outline:1px solid var(--soft); }
.learnt { background:var(--learnt); color:var(--ink); } .end { background:var(--good); color:var(--card); } .template { color:var(--soft); }
.cut { color:var(--bad); text-decoration:line-through; } .mask-key span { padding:0 6px; } .mask-key .content { border:1px solid var(--rule); }
.json { border:1px solid var(--rule); background:var(--card); } progress { width:100%; height:8px; accent-color:var(--s1); margin-bottom:8px; }
#main .tiles { margin:12px 0 16px; } #main .charts { margin-top:16px; }
.tiles b { font-variant-numeric:tabular-nums; } kbd { font:12px ui-monospace, monospace; border:1px solid var(--edge); border-bottom-width:2px; border-radius:4px; padding:1px 5px; background:var(--page); color:var(--ink); }
dialog { color:inherit; background:var(--card); border:1px solid var(--rule); border-radius:10px; padding:20px 24px; } dialog::backdrop { background:#0006; }
dialog dl { display:grid; grid-template-columns:auto 1fr; gap:6px 16px; margin:0 0 12px; } dialog dd { margin:0; } dialog h2 { margin-top:0; }
#lost { position:fixed; right:16px; bottom:16px; left:16px; z-index:2; margin:0 auto; padding:8px 14px; border-radius:8px; background:var(--bad); color:var(--card); }
.back { display:none; }
:root { --warn:#fbe3b3; --mark:#ffe08a; --learnt:#cdeeda; --link:#1a5fb4; --edge:#85888f; }
@media (prefers-color-scheme: dark) { :root { --warn:#5a4210; --mark:#6b5410; --learnt:#174a31; --link:#8ab8f5; --edge:#71757d; } }
@media (max-width: 820px) {
  .app { display:block; height:auto; } .side { border-right:0; min-height:100vh; } #main { padding:12px 14px 40px; overflow:visible; }
  [data-on=row] .side, [data-on=list] #main { display:none; } .back { display:inline-block; margin-bottom:10px; } #list { overflow:visible; }
  .panels { margin-left:0; } .answer-columns { grid-template-columns:minmax(0, 1fr); }
}
@media print { .side, .panels, .back { display:none; } .app { display:block; height:auto; } #main { overflow:visible; } }
`);

/**
 * The address holds everything: `#row=17&panel=tokens` and the filter. The list is asked for when the filter changes or
 * the row is not on its page; while the server still looks for rows it is asked again.
 */
const script = raw(`{
const $ = (id) => document.getElementById(id);
const form = $("filter"), app = $("app");
const filterNames = [...new Set([...form.elements].map(({ name }) => name).filter(Boolean))];
const here = () => new URLSearchParams(location.hash.slice(1));
let rows = [], page = 0, pages = 1, listed, shown, asking, timer, fetching;

function go(change, replace) {
  const query = here();
  for (const [name, value] of Object.entries(change)) value === "" || value == null ? query.delete(name) : query.set(name, value);
  const hash = "#" + query;
  if (hash === location.hash) return;
  history[replace ? "replaceState" : "pushState"](null, "", hash);
  show();
}
async function ask(path, query, signal) {
  try {
    const response = await fetch(path + "?" + query, { signal });
    const body = await response.text();
    $("lost").hidden = true;
    if (!response.ok) throw new Error(body);
    return JSON.parse(body);
  } catch (error) {
    if (error.name === "AbortError") return;
    $("lost").textContent = error instanceof TypeError ? "The program behind this page has ended." : error.message;
    $("lost").hidden = false;
  }
}
const filterOf = (query) => { const kept = new URLSearchParams(); for (const name of [...filterNames, "code"]) if (query.get(name)) kept.set(name, query.get(name)); return kept; };

async function list(wantedPage) {
  clearTimeout(timer);
  asking?.abort();
  asking = new AbortController();
  const query = here(), filter = String(filterOf(query));
  const asked = new URLSearchParams(filter);
  if (wantedPage !== undefined) asked.set("page", wantedPage);
  else if (query.has("row")) asked.set("row", query.get("row"));
  listed = filter;
  const found = await ask("list", asked, asking.signal);
  if (!found) return;
  const kept = $("list").scrollTop;
  $("list").innerHTML = found.html;
  $("status").textContent = found.status;
  const moved = page !== found.page;
  ({ rows, page, pages } = found);
  $("pages").textContent = pages > 1 ? "page " + (page + 1).toLocaleString("en-US") + " of " + pages.toLocaleString("en-US") : "";
  $("previous").disabled = page === 0;
  $("next").disabled = page + 1 >= pages;
  select(moved || wantedPage !== undefined ? undefined : kept);
  if (!found.complete) timer = setTimeout(() => list(found.page), 400);
  return found;
}
function select(scroll) {
  const row = here().get("row");
  for (const link of $("list").querySelectorAll("a")) {
    const current = link.dataset.row === row;
    link.toggleAttribute("aria-current", current);
    if (current) link.setAttribute("aria-current", "true");
  }
  if (scroll !== undefined) $("list").scrollTop = scroll;
  $("list").querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
}
async function show() {
  const query = here();
  for (const name of filterNames) form.elements[name].value = query.get(name) ?? form.elements[name].dataset.initial ?? "";
  const row = query.get("row");
  app.dataset.on = row === null && !query.has("list") ? "row" : row === null ? "list" : "row";
  const wanted = row !== null && Number.isInteger(+row) && !rows.includes(+row);
  if (listed !== String(filterOf(query)) || wanted) list(); else select();
  const key = row === null ? "" : String(query);
  if (key === shown) return;
  shown = key;
  fetching?.abort();
  fetching = new AbortController();
  if (row === null) return overview(fetching.signal);
  const found = await ask("row", query, fetching.signal);
  if (!found) return;
  $("content").innerHTML = found.html;
  document.title = found.title;
  $("main").scrollTop = 0;
}
async function overview(signal) {
  const found = await ask("overview", "", signal);
  if (!found || signal.aborted) return;
  $("content").innerHTML = found.html;
  document.title = found.title;
  if (!found.complete) setTimeout(() => signal.aborted || overview(signal), 700);
}
async function step(by) {
  const at = rows.indexOf(Number(here().get("row")));
  const row = here().has("row") && at >= 0 ? at + by : by > 0 ? 0 : -1;
  if (rows[row] !== undefined) return go({ row: rows[row] }, true);
  if (at < 0 || (by > 0 ? page + 1 >= pages : page === 0)) return;
  await turn(by);
}
async function turn(by) {
  if (by > 0 ? page + 1 >= pages : page === 0) return;
  const found = await list(page + by);
  if (found) go({ row: by > 0 ? found.rows[0] : found.rows.at(-1) }, true);
}
form.addEventListener("input", () => {
  clearTimeout(form.wait);
  form.wait = setTimeout(() => {
    const change = { code: "" };
    for (const name of filterNames) {
      const { value, dataset } = form.elements[name];
      change[name] = value === (dataset.initial ?? "") ? "" : value;
    }
    if (app.dataset.on === "list") change.row = "";
    go(change, true);
  }, 250);
});
form.addEventListener("submit", (event) => event.preventDefault());
$("clear").addEventListener("click", () => { history.pushState(null, "", here().has("row") ? "#row=" + here().get("row") : "#"); show(); });
$("previous").addEventListener("click", () => turn(-1));
$("next").addEventListener("click", () => turn(1));
$("back").addEventListener("click", () => go({ row: "", list: "1" }));
addEventListener("hashchange", show);
addEventListener("popstate", show);
const keys = {
  j: () => step(1), ArrowRight: () => step(1), k: () => step(-1), ArrowLeft: () => step(-1), "]": () => turn(1), "[": () => turn(-1),
  "/": () => { app.dataset.on = innerWidth > 820 ? app.dataset.on : "list"; form.elements.q.focus(); form.elements.q.select(); },
  1: () => go({ panel: "" }, true), 2: () => go({ panel: "tokens" }, true), 3: () => go({ panel: "json" }, true),
  o: () => go({ row: "", list: "" }), g: () => { $("jump").showModal(); $("jump").querySelector("input").select(); }, "?": () => $("help").showModal(),
};
addEventListener("keydown", (event) => {
  if (event.key === "Escape") return document.activeElement?.blur();
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input, select, dialog[open]")) return;
  const act = Object.hasOwn(keys, event.key) && keys[event.key];
  if (act) { event.preventDefault(); act(); }
});
$("jump").addEventListener("close", () => {
  const value = $("jump").querySelector("input").value.trim();
  if ($("jump").returnValue === "go" && /^\\d+$/.test(value)) go({ row: value, list: "" });
});
$("shortcuts").addEventListener("click", () => $("help").showModal());
show();
}`);

const kindNames: Record<(typeof kinds)[number], string> = {
  all: "all rows",
  usable: "rows that can be used",
  bad: "rows that cannot be used",
  equal: "chosen equals rejected",
  exact: "the same as another row",
  near: "prompt like another row's",
};

const orderNames: Record<(typeof orders)[number], string> = {
  file: "as in the file",
  longest: "longest first",
  shortest: "shortest first",
  "margin-high": "largest margin first",
  "margin-low": "smallest margin first",
};

const roleNames: Record<(typeof roleChoices)[number], string> = {
  any: "messages",
  system: "system turns",
  user: "user turns",
  assistant: "assistant turns",
};

/** The page without list and row. */
export function viewPage(): string {
  const options = (names: Record<string, string>) =>
    Object.entries(names).map(([value, name]) => html`<option value="${value}">${name}</option>`);
  const range = (name: string, label: string | Html) =>
    html`${label}<input type="number" step="any" name="${name}-min" placeholder="least" aria-label="least ${name}"><input type="number" step="any" name="${name}-max" placeholder="most" aria-label="most ${name}">`;
  const body = html`<style>${style}</style><p id="lost" role="alert" hidden></p>
<div class="app" id="app" data-on="row">
<aside class="side" aria-label="rows">
<form id="filter" role="search">
<input type="search" name="q" placeholder="Search the text  ( / )" aria-label="search the text of the rows" autocomplete="off" spellcheck="false">
<details><summary>Filter and order</summary><div class="fields">
<label for="kind">show</label><select name="kind" id="kind" data-initial="all">${options(kindNames)}</select>
${range("messages", html`<select class="role" name="role" data-initial="any" aria-label="whose messages are counted">${options(roleNames)}</select>`)}
${range("length", html`<span>characters</span>`)}
${range("margin", html`<span>margin</span>`)}
<label for="order">order</label><select name="order" id="order" data-initial="file">${options(orderNames)}</select>
<button type="button" id="clear">Clear</button>
</div></details>
</form>
<p id="status" aria-live="polite"></p>
<nav id="list" aria-label="list of rows"></nav>
<div class="pager"><button type="button" id="previous" aria-label="page before">‹</button><span id="pages"></span><button type="button" id="shortcuts" aria-label="keys">?</button><button type="button" id="next" aria-label="next page">›</button></div>
</aside>
<div id="main" tabindex="-1"><button type="button" class="back" id="back">‹ all rows</button><div id="content" aria-live="off"></div></div>
</div>
<dialog id="jump" aria-label="go to a row"><form method="dialog"><label>Row (from 0) <input inputmode="numeric" pattern="\\d*" autocomplete="off"></label> <button value="go">Go</button></form></dialog>
<dialog id="help" aria-label="keys"><h2>Keys</h2><dl>
<dt><kbd>j</kbd> <kbd>→</kbd></dt><dd>next row</dd><dt><kbd>k</kbd> <kbd>←</kbd></dt><dd>row before</dd>
<dt><kbd>[</kbd> <kbd>]</kbd></dt><dd>pages of the list</dd><dt><kbd>/</kbd></dt><dd>search</dd>
<dt><kbd>g</kbd></dt><dd>go to a row by its number</dd><dt><kbd>1</kbd> <kbd>2</kbd> <kbd>3</kbd></dt><dd>text, tokens, JSON</dd>
<dt><kbd>o</kbd></dt><dd>the data set as a whole</dd><dt><kbd>Esc</kbd></dt><dd>out of a field</dd></dl>
<form method="dialog"><button>Close</button></form></dialog>
<noscript>This page asks for rows with a small script of its own.</noscript>`;
  return page("zephyr-align view", body, { script, connect: true });
}
