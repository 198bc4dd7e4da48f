/** Where the reference material lies that is not part of the repository, and a loud skip when it does not. */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));

function folder(variable: string, fallback: string): string {
  return process.env[variable] ?? join(root, "..", "shared", fallback);
}

/** Reference numbers; any folder of the same layout. */
export const golden = folder("ZEPHYR_GOLDEN", "golden");

/** Real data: MT-Bench, pairs, the Mistral tokenizer. */
export const data = folder("ZEPHYR_DATA", "data");

/** Faults that users of comparable packages met. */
export const cases = folder("ZEPHYR_CASES", "cases");

/** The real model, as `shared/env/models.sh` lays it. */
export const smollm2 = join(
  process.env.ZEPHYR_TEST_DATA ?? join(homedir(), ".cache", "zephyr-align-test"),
  "smollm2-135m-instruct.q4_1.gguf",
);

/** Whether a path is there; says so loudly when it is not. */
export function present(path: string): boolean {
  if (existsSync(path)) return true;
  console.warn(`SKIPPED: ${path} is missing, the tests that need it do not run`);
  return false;
}

export function readJson<T>(...path: string[]): T {
  return JSON.parse(readFileSync(join(...path), "utf8"));
}

export function readJsonl<T>(...path: string[]): T[] {
  return readFileSync(join(...path), "utf8")
    .split("\n")
    .filter((line) => line.trim() !== "")
    .map((line) => JSON.parse(line));
}

/** A tensor of a safetensors file as numbers (F32 or I64). */
export function tensor(file: string, name: string): { shape: number[]; values: Float64Array } {
  const bytes = readFileSync(file);
  const length = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.subarray(8, 8 + length).toString("utf8"));
  const { dtype, shape, data_offsets } = header[name];
  const content = bytes.subarray(8 + length + data_offsets[0], 8 + length + data_offsets[1]);
  const size = dtype === "I64" ? 8 : 4;
  const read = (at: number) => (dtype === "I64" ? Number(content.readBigInt64LE(at)) : content.readFloatLE(at));
  return { shape, values: Float64Array.from({ length: content.length / size }, (_, i) => read(i * size)) };
}

/** What the program is made of. */
const inputs = ["ts", "recipes", "package.json", "tsconfig.json", "tsup.config.ts"];

/** The latest change of a file, or of anything in a folder; what was removed changed its folder. */
function changed(path: string): number {
  const own = statSync(path);
  if (!own.isDirectory()) return own.mtimeMs;
  return Math.max(own.mtimeMs, ...readdirSync(path).map((name) => changed(join(path, name))));
}

/** Builds the program where it is older than its sources, for tests that run it in a process of its own. Returns its path. */
export function buildProgram(): string {
  const program = join(root, "dist", "cli.js");
  const sources = Math.max(...inputs.map((path) => changed(join(root, path))));
  if (existsSync(program) && statSync(program).mtimeMs > sources) return program;
  const built = spawnSync("npx", ["tsup", "--silent"], { cwd: root, encoding: "utf8" });
  if (built.status !== 0 || /error/i.test(built.stderr)) throw new Error(built.stderr);
  return program;
}

/** Runs the program, built, in a process of its own to its end; it prints without colours. */
export function runProgram(
  args: readonly string[],
  { input = "", env = {} }: { input?: string; env?: NodeJS.ProcessEnv } = {},
) {
  return spawnSync(process.execPath, [buildProgram(), ...args], {
    encoding: "utf8",
    input,
    env: { ...process.env, NO_COLOR: "1", ...env },
  });
}

/** Conversations and pairs of short texts, all different. */
export function smallRows(count: number) {
  const words = ["two", "seven", "nine", "ten", "hat", "red", "cat", "sun"];
  const say = (index: number) => `${words[index % 8]} ${words[(index >> 3) % 8]} ${words[(5 * index + 3) % 8]}`;
  const chats = Array.from({ length: count }, (_, index) => ({
    messages: [
      { role: "user", content: `say ${say(index)}.` },
      { role: "assistant", content: `${say(index + 1)}.` },
    ],
  }));
  const pairs = chats.map(({ messages: [user, answer] }, index) => ({
    prompt: [user!],
    chosen: [answer!],
    rejected: [{ role: "assistant", content: `the ${say(index + 4)} is red.` }],
  }));
  return { chats, pairs };
}

/** A file system of that many bytes at a new folder; says so loudly when it cannot be mounted (it needs root). */
export function mountSmallDisk(folder: string, bytes: number): boolean {
  mkdirSync(folder);
  const mounted = spawnSync("mount", ["-t", "tmpfs", "-o", `size=${bytes}`, "tmpfs", folder]).status === 0;
  if (!mounted) console.warn("SKIPPED: no small file system can be mounted here, the full disk is not tested");
  return mounted;
}

export function unmount(folder: string): void {
  spawnSync("umount", [folder]);
}

/** `‖found − expected‖ / ‖expected‖`. */
export function relative(found: ArrayLike<number>, expected: ArrayLike<number>): number {
  let difference = 0;
  let scale = 0;
  for (let i = 0; i < expected.length; i++) {
    difference += (found[i]! - expected[i]!) ** 2;
    scale += expected[i]! ** 2;
  }
  return Math.sqrt(difference / Math.max(scale, 1e-30));
}

/**
 * A Python that has a package (`$ZEPHYR_PEER_PYTHON`, the benches' one, or `python3`); says so loudly when none has.
 *
 * @param env what it needs in its environment to have it
 */
export function pythonWith(name: string, env: NodeJS.ProcessEnv = {}): string | undefined {
  const candidates = [process.env.ZEPHYR_PEER_PYTHON, "/tmp/peer/bin/python", "python3"];
  const has = (each: string) =>
    spawnSync(each, ["-c", `import ${name}`], { env: { ...process.env, ...env } }).status === 0;
  const found = candidates.find((each) => each && has(each));
  if (!found) console.warn(`SKIPPED: no Python has ${name} (ZEPHYR_PEER_PYTHON), the tests beside it do not run`);
  return found;
}

/** A folder with node-llama-cpp (`$ZEPHYR_PEER_LLAMA`, or the benches' one); says so loudly when there is none. */
export function llamaPeer(): string | undefined {
  const candidates = [process.env.ZEPHYR_PEER_LLAMA, "/tmp/zephyr-peer-llama"];
  const found = candidates.find((each) => each && existsSync(join(each, "node_modules", "node-llama-cpp")));
  if (!found) {
    console.warn(
      "SKIPPED: node-llama-cpp is missing (ZEPHYR_PEER_LLAMA, npm run test:formats sets it up), no llama.cpp",
    );
  }
  return found;
}

/** Runs a program in a process of its own; the last line that it prints is JSON. */
export function lastJson<T>(program: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): T {
  const { status, stdout, stderr } = spawnSync(program, args, {
    encoding: "utf8",
    env: { ...process.env, ...env },
    maxBuffer: 1 << 30,
  });
  if (status !== 0) throw new Error(`${program} ${args[0]} ended with ${status}: ${stderr}`);
  return JSON.parse(stdout.trim().split("\n").at(-1) ?? "");
}

/**
 * How far a metric of a step is from the reference's, as a share of it, or of a hundredth where it is smaller; a learning
 * rate is exact, or infinitely far.
 */
export function metricError(name: string, found: number, expected: number): number {
  const apart = Math.abs(found - expected);
  if (name === "learning_rate") return apart <= 1e-12 ? 0 : Number.POSITIVE_INFINITY;
  return apart / Math.max(0.01, Math.abs(expected));
}
