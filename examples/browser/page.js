// The judge harness as a page: loads one or two models, lets them answer the embedded bench, judges, shows.
// From a clone: npm run build:wasm, then npx vite examples/browser. Elsewhere: copy this folder, npm i zephyr-align vite, npx vite.
// Parameters of the address fill in the form: ?model=ADDRESS&model=ADDRESS&tasks=2, and &run begins at once.
import { benchHtml, benchStyle, makeTasks, runBench } from "zephyr-align/bench";
import { Mistral, modelCache } from "zephyr-align/browser";

document.head.append(Object.assign(document.createElement("style"), { textContent: benchStyle }));
document.head.append(document.querySelector("link[rel=stylesheet]"));

const form = document.querySelector("#bench");
const places = [...document.querySelectorAll("[data-model]")];
const [stop, forget] = [document.querySelector("#stop"), document.querySelector("#forget")];
const [submit, failure] = [form.querySelector("[type=submit]"), form.querySelector(".error")];
const results = document.querySelector("#results");
let running;

/** What a model is loaded from: an address, a GGUF file, or the files of a folder. */
function sourceOf(place) {
  const address = place.querySelector("[name=address]").value.trim();
  const files = [...place.querySelector("[name=files]").files];
  if (files.length === 0) return address === "" ? undefined : address;
  if (files.length === 1 && files[0].name.endsWith(".gguf")) return files[0];
  const named = (name) => files.find((file) => file.name === name);
  const optional = Object.entries({
    tokenizerConfig: named("tokenizer_config.json"),
    generationConfig: named("generation_config.json"),
    chatTemplate: named("chat_template.jinja"),
  }).filter(([, file]) => file);
  const weights = files.filter((file) => file.name.endsWith(".safetensors"));
  if (!named("config.json") || !named("tokenizer.json") || weights.length === 0) {
    throw new Error("Choose one .gguf file, or config.json, tokenizer.json and the .safetensors of a folder together.");
  }
  const whole = { config: named("config.json"), tokenizer: named("tokenizer.json"), weights };
  return { ...whole, ...Object.fromEntries(optional) };
}

function nameOf(source) {
  if (typeof source !== "string") return source.name ?? "chosen files";
  return new URL(source, location.href).pathname.split("/").filter(Boolean).at(-1) ?? source;
}

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;

/** Loads a model, lets it answer, and gives its memory back. */
async function judged(place, source, name, tasks, signal) {
  const [state, bar] = [place.querySelector(".state"), place.querySelector("progress")];
  bar.hidden = false;
  const show = (text, share) => {
    state.textContent = text;
    bar.value = share;
  };
  const started = performance.now();
  const model = await Mistral.fromPretrained(source, {
    signal,
    threads: "auto",
    onProgress: ({ file, loaded, total, cached }) =>
      show(
        `${cached ? "From the cache" : "Loading"}: ${file}, ${megabytes(loaded)} of ${megabytes(total)}`,
        loaded / total,
      ),
  });
  try {
    const loaded = performance.now();
    const answers = await runBench(model, tasks, {
      seed: 1,
      signal,
      onProgress: (answered, all) => show(`${answered} of ${all} answers`, answered / all),
    });
    const seconds = (from, to) => `${((to - from) / 1000).toFixed(1)} s`;
    const size = `${(model.parameters / 1e6).toFixed(model.parameters < 1e7 ? 2 : 0)} M parameters`;
    const figures = [
      size,
      `loaded in ${seconds(started, loaded)}`,
      `answered in ${seconds(loaded, performance.now())}`,
      `${megabytes(await model.memoryBytes())} of memory`,
    ];
    show(`Done: ${figures.join(", ")}`, 1);
    return { name, note: size, judged: answers };
  } finally {
    model.dispose();
    bar.hidden = true;
  }
}

async function run() {
  const control = new AbortController();
  running = control;
  submit.disabled = true;
  stop.disabled = false;
  failure.hidden = true;
  results.replaceChildren();
  for (const place of places) place.querySelector(".state").textContent = "";
  try {
    const chosen = places.flatMap((place) => {
      const source = sourceOf(place);
      return source === undefined ? [] : [{ place, source }];
    });
    if (chosen.length === 0) throw new Error("Give the address or the file of a model.");
    const tasks = makeTasks({ seed: 1, split: "heldout", perCategory: form.elements.tasks.valueAsNumber });
    const names = chosen.map(({ source }) => nameOf(source));
    const runs = [];
    for (const [index, { place, source }] of chosen.entries()) {
      // Two of one name are told apart by their place.
      const name =
        names.indexOf(names[index]) === names.lastIndexOf(names[index])
          ? names[index]
          : `${names[index]} (${index + 1})`;
      runs.push(await judged(place, source, name, tasks, control.signal));
      results.innerHTML = benchHtml(runs);
    }
  } catch (error) {
    failure.textContent =
      error.code === "ZA_ABORTED" ? "Stopped." : [error.message, error.remedy].filter(Boolean).join("\n");
    failure.hidden = false;
  } finally {
    running = undefined;
    submit.disabled = false;
    stop.disabled = true;
    document.body.dataset.state = "idle";
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  run();
});
stop.addEventListener("click", () => running?.abort());
forget.addEventListener("click", async () => {
  const kept = await modelCache.list();
  await modelCache.clear();
  places[0].querySelector(".state").textContent = `${kept.length} file${kept.length === 1 ? "" : "s"} forgotten.`;
});

const asked = new URLSearchParams(location.search);
for (const [index, address] of asked.getAll("model").slice(0, places.length).entries()) {
  places[index].querySelector("[name=address]").value = new URL(address, location.href).href;
}
if (asked.has("tasks")) form.elements.tasks.value = asked.get("tasks");
if (asked.has("run")) run();
