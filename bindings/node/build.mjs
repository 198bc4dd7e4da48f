// Builds the addon into bindings/node/ and compares the generated declarations with the committed index.d.ts.
// usage: node bindings/node/build.mjs [--update] [--features LIST] [--out FOLDER]
//   --update writes index.d.ts instead of failing on a difference; FOLDER: where the addon goes [bindings/node]
import { spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const folder = dirname(fileURLToPath(import.meta.url));
const root = join(folder, "..", "..");
const option = (name) => (process.argv.includes(name) ? process.argv[process.argv.indexOf(name) + 1] : undefined);
const features = option("--features");
const destination = option("--out") ?? folder;
const out = mkdtempSync(join(tmpdir(), "zephyr-native-"));
try {
  const args = ["napi", "build", "--platform", "--release", "--no-js", "--dts", "index.d.ts", "--package-json-path"];
  args.push(join(root, "package.json"), "--manifest-path", join(folder, "Cargo.toml"), "--output-dir", out);
  args.push("--target-dir", process.env.CARGO_TARGET_DIR ?? join(root, "target"), "--", "--locked");
  if (features) args.push("--features", features);
  const built = spawnSync("npx", args, { cwd: root, stdio: "inherit" });
  if (built.status !== 0) process.exit(built.status ?? 1);

  const generated = readFileSync(join(out, "index.d.ts"), "utf8");
  const committed = join(folder, "index.d.ts");
  if (process.argv.includes("--update")) copyFileSync(join(out, "index.d.ts"), committed);
  else if (!existsSync(committed) || readFileSync(committed, "utf8") !== generated) {
    console.error("bindings/node/index.d.ts is not what the addon declares. Run `npm run build:native -- --update`.");
    process.exit(1);
  }
  mkdirSync(destination, { recursive: true });
  for (const name of readdirSync(out).filter((name) => name.endsWith(".node"))) {
    // Unlink first: overwriting a library that a running process has mapped would crash it.
    rmSync(join(destination, name), { force: true });
    copyFileSync(join(out, name), join(destination, name));
    console.log(`built ${join(destination, name)}`);
  }
} finally {
  rmSync(out, { recursive: true, force: true });
}
