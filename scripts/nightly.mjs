// What takes too long for every commit: the readers of foreign files fuzzed, each for a minute; training killed and resumed;
// paid calls in a storm; and the formats beside all their peers, none of which may be missing. All of it runs, whatever fails.
// usage: node scripts/nightly.mjs [--seconds 60] [--only fuzz,resume,chaos,formats]
import { spawnSync } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const { values } = parseArgs({
  options: { seconds: { type: "string", default: "60" }, only: { type: "string" } },
});
const node = (script, ...args) => [process.execPath, join("scripts", script), ...args];
const parts = {
  fuzz: [node("fuzz.mjs", "--seconds", values.seconds)],
  resume: [node("resume-kills.mjs")],
  chaos: [node("chaos.mjs")],
  formats: [node("peers.mjs", "--torch", "--strict"), ["npx", "vitest", "run", "formats"]],
};
const chosen = values.only?.split(",") ?? Object.keys(parts);
const unknown = chosen.filter((name) => !(name in parts));
if (unknown.length > 0) {
  console.error(`no part ${unknown.join(", ")}; there are ${Object.keys(parts).join(", ")}`);
  process.exit(2);
}

const run = ([command, ...args]) => spawnSync(command, args, { cwd: root, stdio: "inherit" }).status === 0;
if (!run(node("ready.mjs"))) process.exit(1);
const results = chosen.map((name) => {
  console.log(`\n==> ${name}`);
  const started = performance.now();
  // The tests of the formats say more than that a peer is missing.
  const passed = parts[name].map(run).every(Boolean);
  return { name, passed, seconds: (performance.now() - started) / 1000 };
});
console.log("");
for (const { name, passed, seconds } of results) {
  console.log(`${passed ? "passed" : "FAILED"}  ${name} (${seconds.toFixed(0)} s)`);
}
process.exit(results.every(({ passed }) => passed) ? 0 : 1);
