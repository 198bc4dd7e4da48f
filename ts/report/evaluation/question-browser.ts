/** Every question with both turns: what was asked, answered and judged, by all runs of a protocol beside each other. */
import type { JudgedTurn, Verdict } from "../../judge/result";
import { type Html, html, raw } from "../html";
import { type ProtocolRuns, shown } from "./evaluation";
import { colorOf } from "./results-table";

/** A question as the runs have it. */
interface Question {
  id: string;
  category: string | null;
  prompt: string;
  /** One for each run. */
  turns: (readonly JudgedTurn[] | undefined)[];
}

function questionsOf({ runs }: ProtocolRuns): Question[] {
  const found = new Map<string, Question>();
  for (const [at, { result }] of runs.entries()) {
    for (const { id, category, turns } of result.rows) {
      const question: Question = found.get(String(id)) ?? {
        id: String(id),
        category,
        prompt: turns[0]?.prompt ?? "",
        turns: runs.map(() => undefined),
      };
      question.turns[at] = turns;
      found.set(question.id, question);
    }
  }
  return [...found.values()];
}

/** The id of a question's element, for links to it. */
export function questionAnchor(protocol: string, id: number | string): string {
  return `q-${protocol}-${String(id).replace(/[^\w-]/g, "_")}`;
}

/** The mean of the turns that have a score. */
function meanScore(turns: readonly JudgedTurn[] | undefined): number | null {
  const scores = (turns ?? []).flatMap(({ score }) => (score === null ? [] : [score]));
  return scores.length > 0 ? scores.reduce((sum, each) => sum + each, 0) / scores.length : null;
}

/** The browser of one protocol; it works without its script, which filters and orders. */
export function questionBrowser(group: ProtocolRuns): Html {
  const { protocol, title, runs } = group;
  const questions = questionsOf(group);
  const categories = [...new Set(questions.flatMap(({ category }) => category ?? []))];
  const most = runs[0]?.result.scale === "win" ? 1 : 10;
  return html`<section class="browser" data-runs="${runs.length}"><h2>Questions of ${title}</h2>
<form class="filters" hidden>
<label>Category <select name="category"><option value="">all</option>${categories.map((each) => html`<option>${each}</option>`)}</select></label>
${runs.length > 1 ? html`<label>Scores of <select name="run"><option value="">any run</option>${runs.map(({ label }, i) => html`<option value="${i}">${label}</option>`)}</select></label>` : null}
<label>from <input type="number" name="least" min="0" max="${most}" step="any"></label>
<label>to <input type="number" name="most" min="0" max="${most}" step="any"></label>
<label>Order <select name="order"><option value="">as asked</option><option value="low">lowest score first</option><option value="high">highest score first</option>${runs.length > 1 ? html`<option value="apart">furthest apart first</option>` : null}</select></label>
<label>Text <input type="search" name="text" autocomplete="off" spellcheck="false"></label>
<output aria-live="polite"></output>
</form>
<div class="questions">${questions.map((question) => questionHtml(question, group, questionAnchor(protocol, question.id)))}</div></section>`;
}

function questionHtml({ id, category, prompt, turns }: Question, group: ProtocolRuns, anchor: string): Html {
  const scores = turns.map(meanScore);
  const chips = group.runs.map(
    ({ index, label }, i) =>
      html`<span class="chip" title="${label}"><i class="key b${colorOf(index)}"></i>${shown(scores[i]!, group.runs[0]?.result.scale === "win" ? 2 : 1)}</span>`,
  );
  const rows = Math.max(...turns.map((each) => each?.length ?? 0));
  return html`<details class="question" id="${anchor}" data-category="${category ?? ""}" data-scores="${JSON.stringify(scores)}"><summary><span class="where">${id}${category ? html` <span class="badge">${category}</span>` : null}</span><span class="ask" dir="auto">${prompt.slice(0, 200)}</span><span class="chips">${chips}</span></summary>
${Array.from({ length: rows }, (_, turn) => turnHtml(turn, turns, group))}</details>`;
}

function turnHtml(index: number, turns: Question["turns"], { runs }: ProtocolRuns): Html {
  const asked = turns.map((each) => each?.[index]);
  const first = asked.find((each) => each !== undefined)!;
  const reference = asked.find((each) => each?.reference)?.reference ?? null;
  return html`<section class="turn"><h3>Turn ${first.turn}</h3><pre dir="auto">${first.prompt}</pre>
${reference === null ? null : html`<details class="reference"><summary>Reference answer</summary><pre dir="auto">${reference}</pre></details>`}
<div class="answers">${asked.map((turn, i) => (turn ? answerHtml(turn, runs[i]!) : null))}</div></section>`;
}

function answerHtml(turn: JudgedTurn, { label, index, result }: ProtocolRuns["runs"][number]): Html {
  const answer = (text: string | null) =>
    text === null
      ? html`<p class="lead small">The answer is not in the judgments' file.</p>`
      : html`<pre dir="auto">${text.trim() === "" ? "(no text)" : text}</pre>`;
  return html`<div><h4><i class="key b${colorOf(index)}"></i>${label}<b>${shown(turn.score, 1)}</b></h4>${answer(turn.answer)}
${result.opponent === null ? null : html`<details><summary>${result.opponent.name}</summary>${answer(turn.opponentAnswer)}</details>`}
${turn.verdicts.length === 0 ? html`<p class="lead small">No judge was asked: the answers are the same.</p>` : turn.verdicts.map((verdict) => verdictHtml(verdict, turn.verdicts.length > 1))}</div>`;
}

function verdictHtml({ repeat, prompt, first, text, score, problem, tries }: Verdict, several: boolean): Html {
  const about = [
    ...(several ? [`call ${repeat + 1}`] : []),
    ...(first === null ? [] : [`${first} first`]),
    prompt,
    ...(tries > 1 ? [`asked ${tries} times`] : []),
  ];
  return html`<details class="verdict"><summary>Judge: <b>${score === null ? "no score" : shown(score, 1)}</b> <small>${about.join(", ")}</small></summary>${problem === null ? null : html`<p class="fault">${problem}</p>`}<pre dir="auto">${text === "" ? "(no text)" : text}</pre></details>`;
}

/** Filters and orders the questions, and opens the one that a link names. */
export const browserScript: Html = raw(`{
for (const browser of document.querySelectorAll(".browser")) {
  const form = browser.querySelector("form"), list = browser.querySelector(".questions"), output = form.querySelector("output");
  const questions = [...list.children].map((element, at) => ({ element, at, category: element.dataset.category, scores: JSON.parse(element.dataset.scores), text: null }));
  const apply = () => {
    const { category, run, least, most, order, text } = form.elements;
    const scoresOf = (question) => (run?.value ? [question.scores[run.value]] : question.scores).filter((score) => score !== null);
    const low = least.value === "" ? -Infinity : +least.value, high = most.value === "" ? Infinity : +most.value;
    const wanted = text.value.toLowerCase(), limited = low > -Infinity || high < Infinity;
    const shown = questions.filter((question) => {
      if (category.value && question.category !== category.value) return false;
      if (limited && !scoresOf(question).some((score) => score >= low && score <= high)) return false;
      if (!wanted) return true;
      return (question.text ??= question.element.textContent.toLowerCase()).includes(wanted);
    });
    const keys = {
      low: (question) => Math.min(...scoresOf(question)), high: (question) => -Math.max(...scoresOf(question)),
      apart: (question) => Math.min(...question.scores.filter((s) => s !== null)) - Math.max(...question.scores.filter((s) => s !== null)),
    };
    const key = keys[order.value];
    // A question without a score gives an infinite key, and comes last.
    const last = (value) => (Number.isFinite(value) ? value : Infinity);
    if (key) shown.sort((a, b) => last(key(a)) - last(key(b)) || a.at - b.at);
    list.replaceChildren(...shown.map(({ element }) => element));
    output.textContent = shown.length + " of " + questions.length;
  };
  form.hidden = false;
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  browser.show = () => { form.reset(); apply(); };
  apply();
}
const open = () => {
  const name = decodeURIComponent(location.hash.slice(1));
  if (!name.startsWith("q-")) return;
  let target = document.getElementById(name);
  // A filter may have taken it out.
  if (!target) { for (const browser of document.querySelectorAll(".browser")) browser.show(); target = document.getElementById(name); }
  if (target) { target.open = true; target.scrollIntoView(); }
};
addEventListener("hashchange", open);
open();
}`);
