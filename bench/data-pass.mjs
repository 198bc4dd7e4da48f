/**
 * One pass over a data set as a trainer makes it, in a process of its own: prints speed, memory and a hash of the rows as
 * one JSON line. Started by data.mjs.
 *
 * usage: node bench/data-pass.mjs FILE
 */
import { createHash } from "node:crypto";
import { sftDataset } from "../dist/index.js";

const data = sftDataset(process.argv[2]);
const mib = () => process.memoryUsage.rss() / 2 ** 20;
const started = performance.now();
const hash = createHash("sha256");
/** Resident memory every thousand rows: 10 % is known only when the number of rows is. */
const memory = [];
let rows = 0;
for await (const row of data) {
  // Every hundredth row is enough to see that all forms hold the same rows in the same order.
  if (rows % 100 === 0) hash.update(JSON.stringify(row));
  if (++rows % 1000 === 0) memory.push(mib());
}
const seconds = (performance.now() - started) / 1000;
await data.close();
console.log(
  JSON.stringify({
    rows,
    rows_per_s: rows / seconds,
    rss_at_10_percent_mib: memory[Math.floor(memory.length / 10)] ?? mib(),
    rss_at_100_percent_mib: mib(),
    rss_peak_mib: process.resourceUsage().maxRSS / 1024,
    hash: hash.digest("hex"),
  }),
);
