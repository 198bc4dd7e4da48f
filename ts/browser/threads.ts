/** How many threads compute, and whether there can be several. */
import { ConfigError } from "../errors";
import { nodeBuiltin, platform } from "./platform";
import { builtWithThreads } from "./runtime";

/** Threads that `"auto"` takes at the most: decoding waits for memory, which few threads keep busy. */
const autoMost = 4;

/** Threads that can be asked for. Each is a worker. */
const most = 64;

/**
 * The number of threads for what was asked.
 *
 * @param workers - whether a worker can be started for each.
 * @throws ConfigError `ZA_THREADS`
 */
export function threadsOf(asked: number | "auto", workers: boolean): number {
  if (asked !== "auto" && !(Number.isInteger(asked) && asked >= 1 && asked <= most)) {
    throw refusal(`threads is ${JSON.stringify(asked)}`, `Take 1 to ${most}, or "auto".`);
  }
  if (asked === 1) return 1;
  const found = obstacle(workers);
  if (asked === "auto") return found ? 1 : Math.min(autoMost, processors());
  if (found) throw found;
  return asked;
}

function obstacle(workers: boolean): ConfigError | undefined {
  if (!builtWithThreads) {
    const remedy =
      "Take threads: 1, or build it where ../shared/env/wasm.sh --threads can lay a standard library with atomics.";
    return refusal("this package was built without the module that has threads", remedy);
  }
  if (!workers) {
    const remedy = "Leave `worker` out, or give it as a function that starts a worker.";
    return refusal("each thread is a worker of its own, and `worker` leaves no way to start some", remedy);
  }
  // Undefined in Node, which shares memory without.
  if (!platform.SharedArrayBuffer || platform.crossOriginIsolated === false) {
    const remedy =
      "Serve the page and the package's scripts with `Cross-Origin-Opener-Policy: same-origin` and `Cross-Origin-Embedder-Policy: require-corp`, or take threads: 1.";
    return refusal("threads share memory, which this page may not: it is not cross-origin isolated", remedy);
  }
  return undefined;
}

function refusal(problem: string, remedy: string): ConfigError {
  return new ConfigError("ZA_THREADS", problem, { place: { field: "threads" }, remedy });
}

function processors(): number {
  return platform.navigator?.hardwareConcurrency ?? nodeBuiltin("node:os")?.availableParallelism() ?? 1;
}
