// Makes ready what the tests compare with, as far as it is missing: node-llama-cpp by npm, the gguf package by pip. PyTorch and
// what stands on it are used where a Python has them (ZEPHYR_PEER_PYTHON), and fetched when they are asked for. What cannot be
// had is said, and its tests skip.
// usage: node scripts/peers.mjs [--torch] [--strict]
//   --torch    all of the Python packages: some gigabytes
//   --strict   fails where a peer is missing, for whoever must know that nothing was skipped
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";

const missing = [];
/** Says what is missing. */
function miss(text) {
  missing.push(text);
  console.log(`MISSING: ${text}`);
}

const llama = process.env.ZEPHYR_PEER_LLAMA ?? "/tmp/zephyr-peer-llama";
if (existsSync(join(llama, "node_modules", "node-llama-cpp"))) console.log(`node-llama-cpp: ${llama}`);
else {
  mkdirSync(llama, { recursive: true });
  const binary = `@node-llama-cpp/${process.platform === "darwin" ? "mac" : process.platform}-${process.arch}`;
  const packages = ["node-llama-cpp@3", `${binary}@3`];
  const flags = ["--prefix", llama, "--no-save", "--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund"];
  const installed = spawnSync("npm", ["install", ...flags, ...packages], { stdio: "inherit" }).status === 0;
  if (installed) console.log(`node-llama-cpp: put into ${llama}`);
  else miss("node-llama-cpp could not be installed");
}

const venv = "/tmp/peer";
const pythons = [process.env.ZEPHYR_PEER_PYTHON, join(venv, "bin", "python"), "python3"].filter(Boolean);
const python = (name) => pythons.find((each) => spawnSync(each, ["-c", `import ${name}`]).status === 0);
const onTorch = ["torch", "transformers", "peft", "bitsandbytes"];
const names = ["gguf", ...onTorch, "tensorboard", "datasets", "huggingface_hub", "openai"];
const found = new Map(names.map((name) => [name, python(name)]));
const wanted = (process.argv.includes("--torch") ? names : ["gguf"]).filter((name) => !found.get(name));
if (wanted.length > 0) {
  const made =
    (existsSync(venv) || spawnSync("python3", ["-m", "venv", venv], { stdio: "inherit" }).status === 0) &&
    spawnSync(join(venv, "bin", "pip"), ["install", "--quiet", ...wanted], { stdio: "inherit" }).status === 0;
  if (!made)
    console.log(`pip install ${wanted.join(" ")} failed in ${venv} (ZEPHYR_PEER_PYTHON: a Python that has them)`);
  for (const name of wanted) found.set(name, python(name));
}
for (const [name, where] of found) {
  if (where) console.log(`${name}: ${where}`);
  else miss(`no Python has ${name}; its tests skip`);
}
if (process.argv.includes("--strict") && missing.length > 0) {
  console.error(`${missing.length} of the peers are missing, and --strict wants them all`);
  process.exit(1);
}
