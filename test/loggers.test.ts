/** Where numbers go: TensorBoard's own package reads the event files, and a logger's fault does not end a run. */
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it } from "vitest";
import { DpoTrainer, type Logger, Mistral, SftTrainer } from "../ts/index";
import { eventsOf, stopAt, warningsOf } from "./runs";
import { pythonWith, readJsonl } from "./shared";

const base = fileURLToPath(new URL("../recipes/demo/base", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "zephyr-loggers-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const chats = ["seven", "nine", "ten", "two"].map((word) => ({
  messages: [
    { role: "user", content: `say ${word}.` },
    { role: "assistant", content: `${word}.` },
  ],
}));
const pairs = chats.map(({ messages: [user, answer] }) => ({
  prompt: [user],
  chosen: [answer],
  rejected: [{ role: "assistant", content: "the hat is red." }],
}));
const common = { logSteps: 1, batchSize: 2, samples: 0, learningRate: 1e-4 } as const;

const python = pythonWith("tensorboard");

/** All scalars and texts of a folder, as TensorBoard's own reader has them. */
const reader = `
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
acc = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0, "tensors": 0})
acc.Reload()
tags = acc.Tags()
text = {t: [[e.step, e.tensor_proto.string_val[0].decode()] for e in acc.Tensors(t)] for t in tags["tensors"]}
scalars = {t: [[e.step, e.value] for e in acc.Scalars(t)] for t in tags["scalars"]}
print(json.dumps({"scalars": scalars, "text": text}))
`;

interface Board {
  scalars: Record<string, [step: number, value: number][]>;
  text: Record<string, [step: number, text: string][]>;
}

function board(run: string): Board {
  const { stdout, stderr, status } = spawnSync(python!, ["-c", reader, join(run, "tensorboard")], { encoding: "utf8" });
  expect(status, stderr).toBe(0);
  return JSON.parse(stdout);
}

/** metrics.jsonl in the form of a board: what it must be, number for number (f32, as TensorBoard keeps them). */
function expected(run: string): Board["scalars"] {
  const scalars: Board["scalars"] = {};
  for (const { step, ...metrics } of readJsonl<{ step: number; [name: string]: number }>(run, "metrics.jsonl")) {
    for (const [name, value] of Object.entries(metrics)) {
      scalars[name] ??= [];
      scalars[name].push([step, Math.fround(value)]);
    }
  }
  return scalars;
}

describe.runIf(python)("TensorBoard", () => {
  it.each([
    [
      "SFT",
      (model: Mistral, options: object) =>
        new SftTrainer({ model, dataset: chats, evalDataset: chats, evalSteps: 1, ...options }),
    ],
    ["DPO", (policy: Mistral, options: object) => new DpoTrainer({ policy, dataset: pairs, ...options })],
  ])("%s: its own reader finds metrics.jsonl, and the configuration", async (name, trainer) => {
    const outputDir = join(folder, name);
    const model = await Mistral.fromPretrained(base);
    await trainer(model, { ...common, epochs: 2, outputDir, logTo: ["tensorboard"] }).fit();
    const { scalars, text } = board(outputDir);
    const wanted = expected(outputDir);
    expect(Object.keys(wanted).length).toBeGreaterThan(6);
    for (const [metric, points] of Object.entries(wanted)) expect(scalars[metric], metric).toEqual(points);
    expect(text["config/text_summary"]![0]![1]).toContain("| learningRate | `0.0001` |");
  });

  it("a run stopped and resumed shows every step once", async () => {
    const outputDir = join(folder, "stopped");
    const options = { ...common, epochs: 4, saveSteps: 3, outputDir, logTo: ["tensorboard" as const] };
    const stop = new AbortController();
    const first = new SftTrainer({
      ...options,
      model: await Mistral.fromPretrained(base),
      dataset: chats,
      signal: stop.signal,
    });
    await stopAt(first, stop, "step", 5);
    const before = board(outputDir).scalars.loss!.at(-1)![0];
    expect(before).toBeGreaterThanOrEqual(5);
    const model = await Mistral.fromPretrained(base);
    await new SftTrainer({ ...options, model, dataset: chats, resume: true }).fit();
    const steps = board(outputDir).scalars.loss!.map(([step]) => step);
    expect(steps).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
    expect(board(outputDir).scalars.loss).toEqual(expected(outputDir).loss);
  });

  it("a run that replaces another leaves nothing of it", async () => {
    const outputDir = join(folder, "replaced");
    const run = async (maxSteps: number) => {
      const model = await Mistral.fromPretrained(base);
      const options = { ...common, maxSteps, outputDir, overwrite: true, logTo: ["tensorboard" as const] };
      await new SftTrainer({ ...options, model, dataset: chats }).fit();
    };
    await run(4);
    await run(2);
    expect(board(outputDir).scalars.loss!.map(([step]) => step)).toEqual([1, 2]);
  });
});

describe("loggers", () => {
  const sft = async (loggers: readonly Logger[]) =>
    new SftTrainer({ ...common, model: await Mistral.fromPretrained(base), dataset: chats, maxSteps: 3, loggers });

  it("are told the start, each line in order, and the end", async () => {
    const told: unknown[] = [];
    const logger: Logger = {
      name: "list",
      start: ({ method, totalSteps, doneSteps }) => told.push([method, totalSteps, doneSteps]),
      async log(step, { loss }) {
        await new Promise((resolve) => setTimeout(resolve, 10));
        told.push([step, typeof loss]);
      },
      end: () => told.push("end"),
    };
    const warnings = warningsOf((await eventsOf(await sft([logger]))).events);
    expect(told).toEqual([["sft", 3, 0], [1, "number"], [2, "number"], [3, "number"], "end"]);
    expect(warnings.filter((text) => text.includes("logger"))).toEqual([]);
  });

  it("a logger that throws is named once and gets no further call; the run and the others go on", async () => {
    const told: number[] = [];
    let calls = 0;
    const broken: Logger = {
      name: "broken",
      start() {},
      log() {
        calls++;
        throw new Error("no route to host");
      },
      end: () => calls++,
    };
    const other: Logger = { name: "other", start() {}, log: (step) => told.push(step), end() {} };
    const { events } = await eventsOf(await sft([broken, other]));
    expect(told).toEqual([1, 2, 3]);
    expect(calls).toBe(1);
    expect(warningsOf(events).filter((text) => text.includes("logger"))).toEqual([
      "the logger broken is switched off: no route to host",
    ]);
    expect(events.at(-1)).toMatchObject({ type: "end", steps: 3 });
  });

  it("TensorBoard without a folder is refused before any work", () => {
    expect(() => new SftTrainer({ model: undefined as never, dataset: chats, logTo: ["tensorboard"] })).toThrow(
      /logTo/,
    );
  });
});

it("examples/wandb-logger.mjs posts every line to a real server", async () => {
  const posted: { path: string; body: Record<string, unknown>; key: string | undefined }[] = [];
  const server = createServer((request, response) => {
    let text = "";
    request.on("data", (part) => {
      text += part;
    });
    request.on("end", () => {
      posted.push({ path: request.url!, body: JSON.parse(text), key: request.headers.authorization });
      response.end("{}");
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const example = fileURLToPath(new URL("../examples/wandb-logger.mjs", import.meta.url));
  const child = spawn(process.execPath, [example, url], { stdio: ["ignore", "pipe", "pipe"] });
  let stderr = "";
  child.stderr.on("data", (part) => {
    stderr += part;
  });
  const status = await new Promise((resolve) => child.on("exit", resolve));
  server.close();
  expect(status, stderr).toBe(0);
  expect(posted.map(({ path }) => path)).toEqual(["/start", ...Array(6).fill("/log"), "/end"]);
  expect(posted[0]!.body).toMatchObject({ method: "sft", totalSteps: 10 });
  expect(posted.slice(1, -1).map(({ body }) => body.step)).toEqual([1, 2, 4, 6, 8, 10]);
  expect(readFileSync(example, "utf8").split("\n").length).toBeLessThan(50);
});
