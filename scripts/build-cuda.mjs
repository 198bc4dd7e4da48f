// `npm run build:cuda`: the addon with CUDA, in one command from a clean clone. Then it is looked at: no CUDA library is
// linked (all are opened at run time), and every kernel source has code for each card and PTX for those to come.
// usage: node scripts/build-cuda.mjs [--out FOLDER] [--json FILE]     FOLDER: where the addon goes [bindings/node]
import { execFileSync, spawnSync } from "node:child_process";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { fatbinsIn } from "./fatbins.mjs";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const option = (name) => (process.argv.includes(name) ? process.argv[process.argv.indexOf(name) + 1] : undefined);
const out = resolve(option("--out") ?? join(root, "bindings", "node"));
const targets = ["sm_80", "sm_86", "sm_89", "sm_90a", "compute_80"];

function run(command, args) {
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: "inherit" });
  if (error) console.error(`${command} could not be started: ${error.message}`);
  if (status !== 0) process.exit(status ?? 1);
}

function refuse(text) {
  console.error(`build:cuda: ${text}`);
  process.exit(1);
}

if (!existsSync(join(root, "node_modules", ".bin", "napi"))) run("npm", ["ci", "--no-audit", "--no-fund"]);
mkdirSync(out, { recursive: true });
const build = ["bindings/node/build.mjs", "--features", "cuda", "--out", out];
run("node", ["scripts/cuda.mjs", "node", ...build]);
const name = readdirSync(out).find((file) => file.endsWith(".node"));
const addon = join(out, name);
const bytes = readFileSync(addon);

// Libraries that the loader wants before the addon runs.
const needed = [...execFileSync("readelf", ["-d", addon], { encoding: "utf8" }).matchAll(/\(NEEDED\).*\[(.*)\]/g)].map(
  ([, library]) => library,
);
const linked = needed.filter((library) => /^lib(cu|nv|nccl)/.test(library));
if (linked.length > 0) refuse(`${name} is linked to ${linked.join(", ")}, so it loads only where they are`);

const sources = readdirSync(join(root, "crates", "kernels"), { recursive: true }).filter(
  (file) => file.endsWith(".cu") && !file.startsWith("cuda"),
);
const fatbins = fatbinsIn(bytes);
if (fatbins.length !== sources.length) refuse(`${name} has ${fatbins.length} fatbins for ${sources.length} sources`);
const has = (parts, target) => parts.some((part) => part.target === target);
for (const target of targets) {
  const without = fatbins.filter((parts) => !has(parts, target)).length;
  if (without > 0) refuse(`${without} of ${fatbins.length} fatbins have no ${target}`);
}

const packed = packages();
const report = {
  addon: bytes.length,
  fatbins: fatbins.flat().reduce((sum, part) => sum + part.bytes, 0),
  byTarget: Object.fromEntries(
    targets.map((target) => [
      target,
      fatbins
        .flat()
        .filter((part) => part.target === target)
        .reduce((sum, part) => sum + part.bytes, 0),
    ]),
  ),
  sources: sources.length,
  needed,
  packed,
};
const mib = (size) => `${(size / 2 ** 20).toFixed(1)} MiB`;
console.log(`${addon}: ${mib(report.addon)}, needs ${needed.join(", ")}`);
const shares = Object.entries(report.byTarget).map(([target, size]) => `${target} ${mib(size)}`);
console.log(`CUDA code of ${report.sources} sources: ${shares.join(", ")}`);
for (const { package: of, packed: size, unpacked } of packed) {
  console.log(`packed ${of}: ${mib(size)} (${mib(unpacked)} unpacked)`);
}
const file = option("--json");
if (file) writeFileSync(file, `${JSON.stringify(report, null, 2)}\n`);

/** What a user downloads: the package, and the addon in the package of this platform. */
function packages() {
  const pack = (folder) => {
    const [packed] = JSON.parse(
      execFileSync("npm", ["pack", "--dry-run", "--json", "--ignore-scripts"], { cwd: folder, encoding: "utf8" }),
    );
    return { package: packed.name, packed: packed.size, unpacked: packed.unpackedSize };
  };
  const platform = name.split(".")[1];
  const { version, license } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  const folder = mkdtempSync(join(tmpdir(), "zephyr-package-"));
  try {
    copyFileSync(addon, join(folder, name));
    const manifest = { name: `@zephyr-align/${platform}`, version, license, main: name, files: [name] };
    writeFileSync(join(folder, "package.json"), JSON.stringify(manifest));
    if (!existsSync(join(root, "dist"))) run("npx", ["tsup", "--silent"]);
    return [pack(root), pack(folder)];
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
