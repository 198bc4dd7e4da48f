/**
 * llama.cpp (node-llama-cpp) on a GGUF file, on the CPU with keys and values in F32.
 *
 * usage: node llama.mjs FOLDER FILE REQUEST
 *
 * FOLDER holds node_modules with node-llama-cpp. REQUEST is JSON: { ids, from, texts }. Prints one line of JSON: `logits`
 * after each of the ids from place `from` on, `tokens` of each text, `texts` of those tokens, and what the file says of itself.
 */
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [folder, file, request] = process.argv.slice(2);
const { ids = [], from = 0, texts = [] } = JSON.parse(request);
const { getLlama } = await import(pathToFileURL(createRequire(join(folder, "x.js")).resolve("node-llama-cpp")).href);
const llama = await getLlama({ gpu: false, build: "never", logLevel: "error" });
const model = await llama.loadModel({ modelPath: file });

const logits = [];
if (ids.length > 0) {
  const context = await model.createContext({
    contextSize: Math.max(64, ids.length + 8),
    batchSize: Math.max(64, ids.length + 8),
    threads: 1,
    flashAttention: false,
    experimentalKvCacheKeyType: "F32",
    experimentalKvCacheValueType: "F32",
  });
  const input = ids.map((id, place) => (place < from ? id : [id, { generateNext: { logits: true } }]));
  for (const result of await context.getSequence().controlledEvaluate(input)) {
    if (!result?.next.logits) continue;
    const row = [];
    for (const [token, logit] of result.next.logits) row[token] = logit;
    logits.push(row);
  }
}
const { metadata } = model.fileInfo;
const tokens = texts.map((text) => Array.from(model.tokenize(text)));
const answer = {
  logits,
  tokens,
  texts: tokens.map((list) => model.detokenize(list)),
  name: metadata.general.name,
  architecture: metadata.general.architecture,
  template: metadata.tokenizer.chat_template,
  bos: model.tokens.bos,
  eos: model.tokens.eos,
  addsBos: model.tokens.shouldPrependBosToken,
  contextSize: model.trainContextSize,
};
// A pipe takes it in pieces: the end waits for the last one.
process.stdout.write(`${JSON.stringify(answer)}\n`, () => process.exit(0));
