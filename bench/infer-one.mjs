/**
 * One measurement of our inference, in a process of its own so that the peak memory is that of this model alone.
 * Prints one JSON line. Started by infer.mjs.
 *
 * usage: node bench/infer-one.mjs '{"file":"model.gguf","threads":2,"prompt":512,"decode":64,"repeat":3}'
 */
import { Mistral, setThreads } from "../dist/index.js";

const job = JSON.parse(process.argv[2]);
setThreads(job.threads);
const started = performance.now();
const model = await Mistral.fromPretrained(job.file, { quantization: "gguf" });
const load_ms = performance.now() - started;
// The text of the peer's script.
const text = "The quick brown fox jumps over the lazy dog. ".repeat(60);
const ids = model.tokenizer.encode(text).subarray(0, job.prompt);
if (ids.length < job.prompt) throw new Error(`the text has ${ids.length} tokens, fewer than ${job.prompt}`);
const runs = [];
for (let repetition = 0; repetition < job.repeat; repetition++) {
  const { ids: answer, timing } = await model.generate(ids, { maxTokens: job.decode + 1 });
  const scored = async (exact) => {
    const started = performance.now();
    await model.score(ids, { exact });
    return (ids.length * 1000) / (performance.now() - started);
  };
  runs.push({
    prefill_tok_s: (ids.length * 1000) / timing.promptMs,
    decode_tok_s: ((answer.length - 1) * 1000) / timing.answerMs,
    score_tok_s: await scored(true),
    score_rounded_tok_s: await scored(false),
    decoded: answer.length - 1,
  });
}
const peak_rss_mib = process.resourceUsage().maxRSS / 1024;
// A prompt needs the head for its last token only, a scored text for each: what that leaves of a prompt's speed at best.
const { vocab_size, hidden_size, tie_word_embeddings } = model.config;
const head = vocab_size * hidden_size;
const layers = model.parameters - head * (tie_word_embeddings ? 1 : 2);
const score_bound = layers / (layers + head);
console.log(JSON.stringify({ load_ms, score_bound, weight_mib: model.weightBytes / 2 ** 20, peak_rss_mib, runs }));
