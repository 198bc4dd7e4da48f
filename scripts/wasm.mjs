// Builds the WebAssembly modules into bindings/wasm/ and compares their generated declarations with the committed ones:
// zephyr for one thread, zephyr-threads for several on one shared memory.
// usage: node scripts/wasm.mjs [--update] [--no-opt]
//   --update   writes the declarations instead of failing on a difference
//   --no-opt   leaves wasm-opt out: the same code, a third larger, a minute sooner
// It takes an installed rustup target wasm32-unknown-unknown with wasm-pack; where there is none, ../shared/env/wasm.sh lays a
// toolchain named `web` (a bare Debian: some minutes, once). Threads need a standard library with atomics, which no rustup
// target is: the same script lays one in /opt/wasm-mt. Where it cannot be had, the second module is left out.
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
const sysroot = "/opt/wasm-mt";

// rustup's programs before those of the system, which know no toolchains.
const path = [join(process.env.CARGO_HOME ?? join(homedir(), ".cargo"), "bin"), process.env.PATH].join(delimiter);
const env = { ...process.env, PATH: path, RUSTFLAGS: "" };
const web = { RUSTUP_TOOLCHAIN: "web" };

function answers(command, args, extra = {}) {
  const { status, stdout } = spawnSync(command, args, { encoding: "utf8", env: { ...env, ...extra } });
  return status === 0 ? stdout : undefined;
}

const hasTools = () => answers("wasm-pack", ["--version"]) !== undefined;
const hasTarget = (toolchain = {}) => {
  const library = answers("rustc", ["--print", "target-libdir", "--target", target], toolchain);
  return library !== undefined && existsSync(library.trim());
};

/** Lays what is missing; whether that went well. */
const lay = (...flags) =>
  existsSync(maker) &&
  spawnSync("bash", [maker, ...flags], { stdio: ["ignore", "inherit", "inherit"], env }).status === 0;

/** The toolchain's name, as rustup takes it from the environment; none for the usual one. */
function toolchain() {
  if (hasTarget() && hasTools()) return {};
  if (!(hasTarget(web) && hasTools())) {
    console.log(`laying a toolchain for ${target} …`);
    lay();
  }
  if (hasTarget(web) && hasTools()) return web;
  console.error(`There is no Rust for ${target}, or no wasm-pack. Install both:`);
  console.error(`  rustup target add ${target}\n  cargo install wasm-pack`);
  process.exit(1);
}

/** The environment of a build with threads, if there can be one. */
function withThreads() {
  const stamp = join(sysroot, "lib", "rustlib", target, "lib", ".stamp");
  // The library must be that of the compiler.
  const release = () => /^release: (\S+)/m.exec(answers("rustc", ["-vV"], web) ?? "")?.[1];
  const current = () => existsSync(stamp) && readFileSync(stamp, "utf8").startsWith(`${release()} `);
  if (!current() && !(lay("--threads") && current())) return undefined;
  const features = "target-feature=+atomics,+bulk-memory,+simd128";
  const exported = ["__wasm_init_tls", "__tls_size", "__tls_align", "__tls_base", "__heap_base"];
  const link = [
    "--shared-memory",
    "--import-memory",
    `--max-memory=${2 ** 32}`,
    ...exported.map((each) => `--export=${each}`),
  ];
  const flags = [features, ...link.map((each) => `link-arg=${each}`)].map((each) => `-C ${each}`);
  return { ...env, ...web, RUSTFLAGS: ["--sysroot", sysroot, ...flags].join(" ") };
}

build("zephyr", [], { ...env, ...toolchain(), RUSTFLAGS: "-C target-feature=+simd128" });
const threads = withThreads();
if (threads) build("zephyr-threads", ["--features", "threads"], threads);
else {
  console.log(
    `zephyr-threads is left out: ${sysroot} has no standard library with atomics (../shared/env/wasm.sh --threads)`,
  );
  for (const file of ["zephyr-threads_bg.wasm", "zephyr-threads.stamp"]) rmSync(join(folder, file), { force: true });
  writeFileSync(join(folder, "zephyr-threads.js"), "export default undefined;\n");
}

/** Makes one module: NAME.js, NAME_bg.wasm and NAME.d.ts. */
function build(name, features, env) {
  const run = (command, args) => {
    const { status, error } = spawnSync(command, args, { cwd: root, stdio: "inherit", env });
    if (error) console.error(`${command} could not be started: ${error.message}`);
    if (status !== 0) process.exit(status ?? 1);
  };
  // The linked module first: what wasm-pack makes of it takes a minute, and nothing when it has not changed.
  run("cargo", ["build", "--lib", "--release", "--target", target, "--locked", "-p", "zephyr-wasm", ...features]);
  const linked = join(process.env.CARGO_TARGET_DIR ?? join(root, "target"), target, "release", "zephyr_wasm.wasm");
  const optimise = !process.argv.includes("--no-opt");
  const update = process.argv.includes("--update");
  const digest = createHash("sha256").update(readFileSync(linked)).digest("hex");
  const stamp = `${digest} ${optimise ? "optimised" : "as linked"}\n`;
  const stampFile = join(folder, `${name}.stamp`);
  const made = [`${name}.js`, `${name}_bg.wasm`].map((file) => join(folder, file));
  const current = made.every(existsSync) && existsSync(stampFile) && readFileSync(stampFile, "utf8") === stamp;
  if (current && !update) return;

  const out = mkdtempSync(join(tmpdir(), "zephyr-wasm-"));
  try {
    const args = ["build", "--mode", "no-install", "--release", "--target", "web", "--out-name", name, "--no-pack"];
    if (!optimise) args.push("--no-opt");
    run("wasm-pack", [...args, "--out-dir", out, folder, "--", "--locked", ...features]);
    const [generated, committed] = [join(out, `${name}.d.ts`), join(folder, `${name}.d.ts`)];
    if (update) copyFileSync(generated, committed);
    else if (!existsSync(committed) || readFileSync(committed, "utf8") !== readFileSync(generated, "utf8")) {
      console.error(
        `bindings/wasm/${name}.d.ts is not what the module declares. Run \`node scripts/wasm.mjs --update\`.`,
      );
      process.exit(1);
    }
    if (features.length > 0) fillOutside(join(out, `${name}.js`));
    for (const file of made) {
      copyFileSync(join(out, basename(file)), file);
      console.log(`built bindings/wasm/${basename(file)} (${(statSync(file).size / 1e6).toFixed(2)} MB)`);
    }
    writeFileSync(stampFile, stamp);
  } finally {
    rmSync(out, { recursive: true, force: true });
  }
}

/**
 * Random bytes, which browsers write into no shared memory, come by way of a copy. The crate that asks for them does so itself
 * where it sees that memory is shared, which only unstable compilers show it.
 */
function fillOutside(script) {
  const asked = "globalThis.crypto.getRandomValues(getArrayU8FromWasm0(arg0, arg1));";
  const copied = "getArrayU8FromWasm0(arg0, arg1).set(globalThis.crypto.getRandomValues(new Uint8Array(arg1)));";
  const parts = readFileSync(script, "utf8").split(asked);
  if (parts.length !== 2) {
    console.error(`${script} asks for random bytes in another way than scripts/wasm.mjs knows.`);
    process.exit(1);
  }
  writeFileSync(script, parts.join(copied));
}
