// Runs a command with a CUDA 13 toolkit in CUDA_HOME. It is looked for in CUDA_HOME, on the PATH and in /opt; where there is
// none, ../shared/env/cuda.sh makes one. usage: node scripts/cuda.mjs <command> [arguments]
import { spawnSync } from "node:child_process";
import { existsSync, realpathSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const maker = join(root, "..", "shared", "env", "cuda.sh");
const made = "/opt/cuda-13.0";

const hasCompiler = (home) => home !== undefined && existsSync(join(home, "bin", "nvcc"));

/** The folder of the nvcc on the PATH. */
function onPath() {
  const found = (process.env.PATH ?? "").split(delimiter).find((folder) => existsSync(join(folder, "nvcc")));
  return found && dirname(dirname(realpathSync(join(found, "nvcc"))));
}

let home = [process.env.CUDA_HOME, onPath(), made].find(hasCompiler);
if (home === undefined && existsSync(maker)) {
  const { status } = spawnSync("bash", [maker], { stdio: ["ignore", "ignore", "inherit"] });
  if (status === 0 && hasCompiler(made)) home = made;
}
if (home === undefined) {
  console.error(`No CUDA toolkit: looked in CUDA_HOME, on the PATH and in ${made}; ${maker} is not there or failed.`);
  console.error("Install CUDA 13 and set CUDA_HOME to its folder.");
  process.exit(1);
}

const [command, ...rest] = process.argv.slice(2);
if (command === undefined) {
  console.log(home);
} else {
  const { status, error } = spawnSync(command, rest, {
    stdio: "inherit",
    env: { ...process.env, CUDA_HOME: home },
  });
  if (error) console.error(`${command} could not be started: ${error.message}`);
  process.exit(status ?? 1);
}
