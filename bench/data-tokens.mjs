/**
 * Our tokenizer over the contents of the first conversations of a file; prints one JSON line. Started by data.mjs.
 *
 * usage: node bench/data-tokens.mjs TOKENIZER FILE TEXTS THREADS
 */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { dataset, Tokenizer } from "../dist/index.js";

const [file, rows, count, threads] = process.argv.slice(2);
const tokenizer = Tokenizer.fromFiles({ tokenizer: readFileSync(file) });
const texts = [];
for await (const row of dataset(rows)) {
  texts.push(...row.messages.map(({ content }) => content));
  if (texts.length >= Number(count)) break;
}
texts.length = Math.min(texts.length, Number(count));
const options = { specials: "parse" };
const encode = async (batch) =>
  Number(threads) > 1
    ? await tokenizer.encodeBatch(batch, options)
    : batch.map((text) => tokenizer.encode(text, options));

// The first texts once: what is built at the first use is built.
await encode(texts.slice(0, 100));
const started = performance.now();
const ids = await encode(texts);
const seconds = (performance.now() - started) / 1000;
const hash = createHash("sha256");
for (const each of ids) hash.update(new Uint8Array(each.buffer, each.byteOffset, each.byteLength));
const tokens = ids.reduce((sum, each) => sum + each.length, 0);
console.log(JSON.stringify({ tokens, tokens_per_s: tokens / seconds, hash: hash.digest("hex") }));
