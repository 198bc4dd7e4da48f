/**
 * One measurement of our WebAssembly in Node, in a process of its own. Prints one JSON line. Started by bench/wasm.mjs.
 *
 * usage: node bench/wasm/node.mjs MODEL.gguf ANSWERS THREADS
 */
import { pathToFileURL } from "node:url";
import { Mistral } from "../../dist/web/browser.js";

const [file, answers, threads] = process.argv.slice(2);
const started = performance.now();
const model = await Mistral.fromPretrained(pathToFileURL(file), { threads: Number(threads) });
const load_ms = performance.now() - started;
const ids = await model.tokenizer.encode("The quick brown fox jumps over the lazy dog. ".repeat(51));
const runs = [];
for (let answer = 0; answer < Number(answers); answer++) {
  const { ids: made, timing } = await model.generate(ids, { maxTokens: 64 });
  runs.push({
    prompt_tokens: ids.length,
    prefill_tok_s: (ids.length * 1000) / timing.promptMs,
    decode_tok_s: ((made.length - 1) * 1000) / timing.answerMs,
  });
}
const peak_rss_mib = process.resourceUsage().maxRSS / 1024;
console.log(JSON.stringify({ load_ms, peak_rss_mib, wasm_mib: (await model.memoryBytes()) / 2 ** 20, runs }));
model.dispose();
