// Brings a clone to the state that the npm scripts need, doing only what is missing: dependencies, the native addon,
// the TypeScript bundle. usage: node scripts/ready.mjs [--native-only | --with-wasm]
// --with-wasm also builds the WebAssembly module.
import { spawnSync } from "node:child_process";
import { existsSync, lstatSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");

function run(command, args) {
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: "inherit" });
  if (error) {
    console.error(`${command} could not be started: ${error.message}`);
    if (command === "cargo") console.error("Install Rust (rustup), then run this again.");
    process.exit(1);
  }
  if (status !== 0) process.exit(status ?? 1);
}

const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
if (major < 20 || (major === 20 && minor < 19)) {
  console.error(`zephyr-align needs Node 20.19 or newer; this is ${process.version}.`);
  process.exit(1);
}
if (spawnSync("cargo", ["--version"], { stdio: "ignore" }).error) {
  console.error("cargo was not found. Install Rust 1.95 or newer (rustup), then run this again.");
  process.exit(1);
}

const modules = join(root, "node_modules");
const installed = join(modules, ".package-lock.json");
const lock = join(root, "package-lock.json");
// A link leads to the dependencies of another clone, which npm would empty through it.
if (lstatSync(modules, { throwIfNoEntry: false })?.isSymbolicLink()) {
  console.log("node_modules is a link: its dependencies are taken as they are");
} else if (!existsSync(installed) || statSync(installed).mtimeMs < statSync(lock).mtimeMs) {
  console.log("installing dependencies …");
  run("npm", ["ci", "--no-audit", "--no-fund"]);
}
console.log("building the native core (a few minutes the first time) …");
run("node", ["bindings/node/build.mjs"]);
if (process.argv.includes("--with-wasm")) {
  console.log("building the WebAssembly module (a few minutes the first time) …");
  run("node", ["scripts/wasm.mjs"]);
}
if (!process.argv.includes("--native-only")) run("npx", ["tsup", "--silent"]);
