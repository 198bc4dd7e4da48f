// Builds the WebAssembly module into bindings/wasm/ and compares the generated declarations with the committed zephyr.d.ts.
// usage: node scripts/wasm.mjs [--update] [--no-opt]
//   --update   writes zephyr.d.ts instead of failing on a difference
//   --no-opt   leaves wasm-opt out: the same code, a third larger, a minute sooner
// It takes an installed rustup target wasm32-unknown-unknown with wasm-pack; where there is none, ../shared/env/wasm.sh lays a
// toolchain named `web` (a bare Debian: some minutes, once).
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { basename, delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const folder = join(root, "bindings", "wasm");
const maker = join(root, "..", "shared", "env", "wasm.sh");
const target = "wasm32-unknown-unknown";

// rustup's programs before those of the system, which know no toolchains.
const path = [join(process.env.CARGO_HOME ?? join(homedir(), ".cargo"), "bin"), process.env.PATH].join(delimiter);
const env = { ...process.env, PATH: path, RUSTFLAGS: "-C target-feature=+simd128" };

function answers(command, args, extra = {}) {
  const { status, stdout } = spawnSync(command, args, { encoding: "utf8", env: { ...env, RUSTFLAGS: "", ...extra } });
  return status === 0 ? stdout : undefined;
}

const hasTools = () => answers("wasm-pack", ["--version"]) !== undefined;
const hasTarget = (toolchain = {}) => {
  const library = answers("rustc", ["--print", "target-libdir", "--target", target], toolchain);
  return library !== undefined && existsSync(library.trim());
};

/** The toolchain's name, as rustup takes it from the environment; none for the usual one. */
function toolchain() {
  if (hasTarget() && hasTools()) return {};
  const web = { RUSTUP_TOOLCHAIN: "web" };
  if (!(hasTarget(web) && hasTools()) && existsSync(maker)) {
    console.log(`laying a toolchain for ${target} …`);
    const made = spawnSync("bash", [maker], {
      stdio: ["ignore", "inherit", "inherit"],
      env: { ...env, RUSTFLAGS: "" },
    });
    if (made.status !== 0) process.exit(made.status ?? 1);
  }
  if (hasTarget(web) && hasTools()) return web;
  console.error(`There is no Rust for ${target}, or no wasm-pack. Install both:`);
  console.error(`  rustup target add ${target}\n  cargo install wasm-pack`);
  process.exit(1);
}

const building = { cwd: root, stdio: "inherit", env: { ...env, ...toolchain() } };

function run(command, args) {
  const { status, error } = spawnSync(command, args, building);
  if (error) console.error(`${command} could not be started: ${error.message}`);
  if (status !== 0) process.exit(status ?? 1);
}

// The linked module first: what wasm-pack makes of it takes a minute, and nothing when it has not changed.
const cargo = ["build", "--lib", "--release", "--target", target, "--locked", "-p", "zephyr-wasm"];
run("cargo", cargo);
const linked = join(process.env.CARGO_TARGET_DIR ?? join(root, "target"), target, "release", "zephyr_wasm.wasm");
const optimise = !process.argv.includes("--no-opt");
const stamp = `${createHash("sha256").update(readFileSync(linked)).digest("hex")} ${optimise ? "optimised" : "as linked"}\n`;
const stampFile = join(folder, "zephyr.stamp");
const made = ["zephyr.js", "zephyr_bg.wasm"].map((name) => join(folder, name));
const current = made.every(existsSync) && existsSync(stampFile) && readFileSync(stampFile, "utf8") === stamp;
if (current && !process.argv.includes("--update")) process.exit(0);

const out = mkdtempSync(join(tmpdir(), "zephyr-wasm-"));
try {
  const args = ["build", "--mode", "no-install", "--release", "--target", "web", "--out-name", "zephyr", "--no-pack"];
  if (!optimise) args.push("--no-opt");
  run("wasm-pack", [...args, "--out-dir", out, folder, "--", "--locked"]);
  const [generated, committed] = [join(out, "zephyr.d.ts"), join(folder, "zephyr.d.ts")];
  if (process.argv.includes("--update")) copyFileSync(generated, committed);
  else if (!existsSync(committed) || readFileSync(committed, "utf8") !== readFileSync(generated, "utf8")) {
    console.error("bindings/wasm/zephyr.d.ts is not what the module declares. Run `node scripts/wasm.mjs --update`.");
    process.exit(1);
  }
  for (const file of made) {
    copyFileSync(join(out, basename(file)), file);
    console.log(`built bindings/wasm/${basename(file)} (${(statSync(file).size / 1e6).toFixed(2)} MB)`);
  }
  writeFileSync(stampFile, stamp);
} finally {
  rmSync(out, { recursive: true, force: true });
}
