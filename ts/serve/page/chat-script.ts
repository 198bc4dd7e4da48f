/**
 * The script of the chat page. A turn is a question with one answer, or with those of two models; each model is sent its
 * own answers of the turns before.
 */
export const chatScript = `{
const $ = (id) => document.getElementById(id);
const kept = ["system", "temperature", "top_p", "max_tokens", "seed"];
const usual = { temperature: "0.7", top_p: "1" };
let turns = [], running;

const make = (tag, name, text) => { const made = document.createElement(tag); if (name) made.className = name; if (text !== undefined) made.textContent = text; return made; };
const store = (area, key, value) => { try { return value === undefined ? area.getItem(key) : area.setItem(key, value); } catch { return null; } };
const headers = () => ({ "content-type": "application/json", ...($("key").value ? { authorization: "Bearer " + $("key").value } : {}) });
const comparing = () => $("compare").getAttribute("aria-pressed") === "true";
const models = () => (comparing() ? [$("left").value, $("right").value] : [$("left").value]);
const number = (id) => ($(id).value === "" ? undefined : Number($(id).value));
const tell = (text) => { $("said").textContent = text; };

async function problemOf(response) {
  const body = await response.text();
  try { return JSON.parse(body).error.message; } catch { return response.status + " " + body.slice(0, 200); }
}
async function loadModels() {
  try {
    const response = await fetch("v1/models", { headers: headers() });
    if (!response.ok) {
      $("empty").textContent = await problemOf(response);
      if (response.status === 401) { openSettings(true); $("key").focus(); }
      return;
    }
    const names = (await response.json()).data.map(({ id }) => id);
    for (const side of ["left", "right"]) $(side).replaceChildren(...names.map((name) => new Option(name)));
    $("left").value = names.includes(store(localStorage, "left")) ? store(localStorage, "left") : names[0];
    $("right").value = names.includes(store(localStorage, "right")) ? store(localStorage, "right") : names[1] ?? names[0];
    $("compare").hidden = names.length < 2;
    compare(names.length > 1 && store(localStorage, "compare") === "true");
    $("empty").textContent = "Ask something. What is said stays on this machine.";
  } catch { $("empty").textContent = "The server behind this page does not answer."; }
}
function compare(on) {
  $("compare").setAttribute("aria-pressed", on);
  $("versus").hidden = !on;
  document.body.classList.toggle("two", on);
  store(localStorage, "compare", on);
}
function openSettings(on) {
  $("settings").hidden = !on;
  $("set").setAttribute("aria-expanded", on);
}
function busy(on) {
  $("send").hidden = on;
  $("stop").hidden = !on;
  for (const id of ["new", "left", "right", "compare"]) $(id).disabled = on;
  for (const again of document.querySelectorAll(".again")) again.disabled = on;
}

/** What a model is sent: the turns before, each with its own answer, or the one that there is. */
function messagesFor(side, until) {
  const system = $("system").value.trim();
  const said = turns.slice(0, until).flatMap(({ question, answers }) => {
    const answer = answers[side] ?? answers[0];
    return answer?.text ? [{ role: "user", content: question }, { role: "assistant", content: answer.text }] : [];
  });
  return [...(system ? [{ role: "system", content: system }] : []), ...said, { role: "user", content: turns[until].question }];
}
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    for (let end; (end = text.indexOf("\\n\\n")) >= 0; text = text.slice(end + 2)) {
      const data = text.slice(6, end);
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}
async function answer(turn, side, model, signal) {
  const card = make("section", "answer busy"), by = make("h2", "by"), facts = make("span", "facts", "waiting");
  const words = make("div", "words"), made = { text: "", model };
  by.append(make("b", "", model), facts);
  card.append(by, words);
  card.setAttribute("aria-label", "answer of " + model);
  turn.grid.append(card);
  follow();
  turn.answers[side] = made;
  const begun = performance.now();
  let first, usage, finish;
  try {
    const body = {
      model, messages: messagesFor(side, turns.indexOf(turn)), stream: true, stream_options: { include_usage: true }, cache_prompt: true,
      temperature: number("temperature"), top_p: number("top_p"), max_tokens: number("max_tokens"), seed: number("seed"),
    };
    const response = await fetch("v1/chat/completions", { method: "POST", headers: headers(), body: JSON.stringify(body), signal });
    if (!response.ok) throw new Error(await problemOf(response));
    for await (const event of events(response)) {
      if (event.error) throw new Error(event.error.message);
      usage = event.usage ?? usage;
      const [choice] = event.choices;
      finish = choice?.finish_reason ?? finish;
      const piece = choice?.delta.content;
      if (!piece) continue;
      if (first === undefined) { first = performance.now(); facts.textContent = "first text after " + seconds(first - begun); }
      made.text += piece;
      words.append(piece);
      follow();
    }
    const rate = usage && first !== undefined && usage.completion_tokens > 1 ? ", " + ((usage.completion_tokens - 1) / Math.max((performance.now() - first) / 1000, 1e-3)).toFixed(1) + "/s" : "";
    facts.textContent = (usage ? usage.completion_tokens + " tokens" : "done") + rate + (finish === "length" ? ", cut" : "");
    if (made.text === "") words.append(make("span", "facts", "(no text)"));
  } catch (error) {
    if (signal.aborted) facts.textContent = "stopped";
    else {
      facts.textContent = "failed";
      card.append(make("p", "problem", error instanceof TypeError ? "The server behind this page does not answer." : error.message));
    }
  } finally {
    card.classList.remove("busy");
    card.append(acts(turn, made));
    follow();
  }
}
const seconds = (milliseconds) => (milliseconds / 1000).toFixed(milliseconds < 10000 ? 2 : 0) + " s";
/** The end stays in sight until somebody scrolls up. */
let following = true;
const follow = () => { if (following) $("talk").scrollTop = $("talk").scrollHeight; };
$("talk").addEventListener("scroll", () => { following = $("talk").scrollHeight - $("talk").scrollTop - $("talk").clientHeight < 60; });

function acts(turn, made) {
  const row = make("div", "acts"), copy = make("button", "", "Copy"), again = make("button", "again", "Again");
  copy.type = again.type = "button";
  copy.hidden = made.text === "";
  again.disabled = running !== undefined;
  copy.addEventListener("click", () => navigator.clipboard.writeText(made.text).then(() => { copy.textContent = "Copied"; setTimeout(() => { copy.textContent = "Copy"; }, 1200); }, () => tell("The text could not be copied.")));
  again.addEventListener("click", () => {
    // What came behind was said to an answer that is given up.
    for (const later of turns.splice(turns.indexOf(turn) + 1)) later.section.remove();
    run(turn);
  });
  row.append(copy, again);
  return row;
}
async function run(turn) {
  if (running) return;
  running = new AbortController();
  turn.answers = [];
  turn.grid.replaceChildren();
  busy(true);
  tell("answering");
  await Promise.all(models().map((model, side) => answer(turn, side, model, running.signal)));
  running = undefined;
  busy(false);
  tell("the answer is there");
}
function ask() {
  const question = $("question").value.trim();
  if (question === "" || running || $("left").value === "") return;
  $("question").value = "";
  $("empty").hidden = true;
  const section = make("section", "turn"), grid = make("div", "answers");
  section.append(make("div", "question words", question), grid);
  $("turns").append(section);
  const turn = { question, section, grid, answers: [] };
  turns.push(turn);
  following = true;
  follow();
  run(turn);
}
function startAnew() {
  if (running) return;
  turns = [];
  $("turns").replaceChildren();
  $("empty").hidden = false;
  $("question").focus();
}

for (const id of kept) {
  $(id).value = store(localStorage, id) ?? usual[id] ?? "";
  $(id).addEventListener("change", () => store(localStorage, id, $(id).value));
}
$("key").value = store(sessionStorage, "key") ?? "";
$("key").addEventListener("change", () => { store(sessionStorage, "key", $("key").value); loadModels(); });
for (const side of ["left", "right"]) $(side).addEventListener("change", () => store(localStorage, side, $(side).value));
$("settings").addEventListener("submit", (event) => event.preventDefault());
$("ask").addEventListener("submit", (event) => { event.preventDefault(); ask(); });
$("question").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  ask();
});
$("stop").addEventListener("click", () => { running?.abort(); $("question").focus(); });
$("new").addEventListener("click", startAnew);
$("set").addEventListener("click", () => openSettings($("settings").hidden));
$("compare").addEventListener("click", () => compare(!comparing()));
const keys = { "/": () => $("question").focus(), n: startAnew, c: () => $("compare").hidden || running || compare(!comparing()), s: () => openSettings($("settings").hidden) };
addEventListener("keydown", (event) => {
  if (event.key === "Escape") return running ? running.abort() : document.activeElement?.blur();
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input, select, textarea")) return;
  const act = Object.hasOwn(keys, event.key) && keys[event.key];
  if (act) { event.preventDefault(); act(); }
});
loadModels();
}`;
