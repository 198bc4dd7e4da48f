// Fuzzes every reader of foreign files, each for a minute: with cargo-fuzz where it and nightly Rust are installed, else with
// the driver on stable Rust (fuzz/mutate.rs), which is not led by coverage. What fails lies in fuzz/artifacts.
// usage: node scripts/fuzz.mjs [--seconds 60] [--seed N] [--stable] [target…]
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    seconds: { type: "string", default: "60" },
    seed: { type: "string", default: String(Date.now() % 1_000_000) },
    stable: { type: "boolean", default: false },
  },
});
const all = readdirSync(join(root, "fuzz", "fuzz_targets")).map((name) => name.replace(/\.rs$/, ""));
const targets = positionals.length > 0 ? positionals : all;
const unknown = targets.filter((target) => !all.includes(target));
if (unknown.length > 0) {
  console.error(`no target ${unknown.join(", ")}; there are ${all.join(", ")}`);
  process.exit(2);
}

const works = (...command) => spawnSync(command[0], command.slice(1), { stdio: "ignore" }).status === 0;
const run = (command, args) => spawnSync(command, args, { cwd: root, stdio: "inherit" }).status === 0;
const led = !values.stable && works("cargo", "+nightly", "--version") && works("cargo", "fuzz", "--version");
console.log(led ? "with cargo-fuzz" : `on stable Rust, seed ${values.seed} (cargo-fuzz or nightly Rust is missing)`);
const built = join(process.env.CARGO_TARGET_DIR ?? join(root, "target"), "release", "examples", "mutate");
// Of the whole workspace, so that dependencies are those of its other builds.
if (!led && !run("cargo", ["build", "--release", "--locked", "--quiet", "--workspace", "--example", "mutate"])) {
  process.exit(1);
}
const limits = [`-max_total_time=${values.seconds}`, "-rss_limit_mb=2048", "-timeout=10", `-seed=${values.seed}`];
const failed = targets.filter((target) =>
  led
    ? !run("cargo", ["+nightly", "fuzz", "run", target, "--", ...limits])
    : !run(built, [target, "--seconds", values.seconds, "--seed", values.seed]),
);
if (failed.length > 0) {
  console.error(`failed: ${failed.join(", ")}`);
  process.exit(1);
}
