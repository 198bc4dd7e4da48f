/** A process that waits for batches is killed at instants spread over its work: no call is paid twice, none is lost. */
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, it } from "vitest";
import { type Server, startServer } from "./server/start.mjs";
import { buildProgram } from "./shared";

let server: Server;
let folder: string;
beforeAll(async () => {
  buildProgram();
  server = await startServer({ batch: { milliseconds: 250, failed: [3], dropMaking: true } });
  folder = mkdtempSync(join(tmpdir(), "zephyr-batch-kills-"));
});
afterAll(async () => {
  await server.stop();
  rmSync(folder, { recursive: true, force: true });
});

/** What a life printed last; undefined when it was killed, so many milliseconds after it opened the journal. */
function live(calls: number, milliseconds?: number): Promise<string[] | undefined> {
  const worker = fileURLToPath(new URL("batch-worker.mjs", import.meta.url));
  const job = JSON.stringify({ url: server.url, journal: join(folder, "calls.sqlite"), calls });
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [worker, job], { stdio: ["ignore", "pipe", "inherit"] });
    let printed = "";
    let timer: NodeJS.Timeout | undefined;
    child.stdout.on("data", (text) => {
      printed += text;
      if (milliseconds !== undefined) timer ??= setTimeout(() => child.kill("SIGKILL"), milliseconds);
    });
    child.on("exit", (code, signal) => {
      clearTimeout(timer);
      if (signal === "SIGKILL") resolve(undefined);
      else if (code === 0) resolve(JSON.parse(printed.trim().split("\n").at(-1)!));
      else reject(new Error(`the worker ended with ${code}`));
    });
  });
}

it("batches are gone on with", async () => {
  const calls = 60;
  for (const milliseconds of [10, 60, 120, 180, 260, 350, 500]) await live(calls, milliseconds);
  const answers = await live(calls);
  expect(answers!.map((text) => text.replace(/^Answer \w+ to: /, ""))).toEqual(
    Array.from({ length: calls }, (_, i) => `Question ${i}?`),
  );
  const billed = server.billed();
  const times = new Map<string, number>();
  for (const { question } of billed) times.set(question, (times.get(question) ?? 0) + 1);
  expect([...times.values()].filter((count) => count !== 1)).toEqual([]);
  expect(billed.length).toBe(calls);
}, 120_000);
