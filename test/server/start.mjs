// Starts the scripted server in a process of its own; see README.md beside this.
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const program = fileURLToPath(new URL("server.mjs", import.meta.url));

export async function startServer(options = {}) {
  const folder = options.folder ?? mkdtempSync(join(tmpdir(), "zephyr-server-"));
  // Its standard input is the parent's life: when it closes, the server ends.
  const child = spawn(process.execPath, [program, JSON.stringify({ ...options, folder })], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const exited = new Promise((resolve) => child.once("exit", resolve));
  const port = await new Promise((resolve, reject) => {
    createInterface({ input: child.stdout }).once("line", (line) => resolve(JSON.parse(line).port));
    exited.then((code) => reject(new Error(`the scripted server ended with ${code}`)));
  });
  const control = async (value) => {
    // A setting that is undefined is one that is taken back.
    const body = JSON.stringify(value, (_, each) => (each === undefined ? null : each));
    const response = await fetch(`http://127.0.0.1:${port}/control`, { method: "POST", body });
    if (!response.ok) throw new Error(await response.text());
  };
  const lines = (name) => {
    const path = join(folder, name);
    if (!existsSync(path)) return [];
    return readFileSync(path, "utf8")
      .split("\n")
      .filter(Boolean)
      .map((line) => JSON.parse(line));
  };
  return {
    url: `http://127.0.0.1:${port}/v1`,
    port,
    folder,
    script: (faults) => control({ script: faults }),
    set: (settings) => control({ settings }),
    billed: () => lines("billed.jsonl"),
    requests: () => lines("requests.jsonl"),
    stop: async () => {
      child.stdin.end();
      await exited;
      if (options.folder === undefined) rmSync(folder, { recursive: true, force: true });
    },
  };
}
