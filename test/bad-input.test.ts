/** Bad input through the public package: a typed error with code, place and remedy, and the process goes on. */
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, describe, expect, it } from "vitest";
import { DpoTrainer, Mistral, SftTrainer, ZephyrError } from "../ts/index";
import { eventsOf, warningsOf } from "./runs";
import { mountSmallDisk, unmount } from "./shared";

const base = fileURLToPath(new URL("../recipes/demo/base", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "zephyr-bad-"));
let copies = 0;

/** A copy of the demo's base, changed. */
function copy(change: (path: string) => void): string {
  const path = join(folder, `model-${copies++}`);
  cpSync(base, path, { recursive: true });
  change(path);
  return path;
}

function editConfig(changes: Record<string, unknown>) {
  return (path: string) => {
    const file = join(path, "config.json");
    writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, "utf8")), ...changes }));
  };
}

async function failure(work: Promise<unknown>): Promise<ZephyrError> {
  const error = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(ZephyrError);
  return error as ZephyrError;
}

const chat = (...contents: string[]) => ({
  messages: contents.map((content, index) => ({ role: index % 2 === 0 ? "user" : "assistant", content })),
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

// Whatever went wrong, the next good call works.
afterEach(async () => {
  const model = await Mistral.fromPretrained(base);
  expect((await model.score([1, 5, 9])).length).toBe(2);
});

describe("models", () => {
  it.each([
    ["no such folder", () => join(folder, "nothing"), "ZA_MODEL_NOT_FOUND", /nothing/],
    ["no weights", () => copy((path) => rmSync(join(path, "model.safetensors"))), "ZA_MODEL_NOT_FOUND", /safetensors/],
    [
      "truncated weights",
      () => copy((path) => truncateSync(join(path, "model.safetensors"), 100_000)),
      "ZA_MODEL_FORMAT",
      /model\.safetensors/,
    ],
    [
      "another shape",
      () => copy(editConfig({ intermediate_size: 512 })),
      "ZA_TENSOR_SHAPE",
      /mlp\.\w+_proj.*384.*512|mlp\.\w+_proj.*512.*384/,
    ],
    ["another architecture", () => copy(editConfig({ model_type: "gpt2" })), "ZA_MODEL_UNSUPPORTED", /gpt2/],
    [
      "rope scaling",
      () => copy(editConfig({ rope_scaling: { type: "linear", factor: 2 } })),
      "ZA_MODEL_UNSUPPORTED",
      /rope_scaling/,
    ],
  ])("%s", async (_, path, code, message) => {
    const error = await failure(Mistral.fromPretrained(path()));
    expect(error.code).toBe(code);
    expect(error.message).toMatch(message);
    expect(error.remedy).toBeTruthy();
  });

  it("a tokenizer with more entries than the model's vocabulary", async () => {
    const model = await Mistral.fromPretrained(base);
    const config = { ...model.config, vocab_size: 500 };
    const error = await failure(Mistral.random(config, model.tokenizer, 1));
    expect(error.message).toMatch(/1024.*500/);
    expect(error.remedy).toBeTruthy();
  });

  it("a token id out of range", async () => {
    const model = await Mistral.fromPretrained(base);
    const error = await failure(model.score([1, 99_999]));
    expect(error).toMatchObject({ code: "ZA_TOKEN_RANGE" });
    expect(error.message).toMatch(/99999.*1024/);
  });
});

describe("disk", () => {
  const small = join(folder, "small");
  const mounted = mountSmallDisk(small, 512 * 1024);
  afterAll(() => {
    if (mounted) unmount(small);
  });

  it.runIf(mounted)("a full disk: nothing half-written under the final name", async () => {
    const model = await Mistral.fromPretrained(base);
    const error = await failure(model.save(join(small, "model")));
    expect(error.code).toBe("ZA_DISK_FULL");
    expect(error.remedy).toMatch(/[Ff]ree/);
    const outputDir = join(small, "run");
    const trainer = new SftTrainer({ model, dataset: [chat("say ten.", "ten.")], maxSteps: 1, outputDir, samples: 0 });
    // Before the first step, with the numbers.
    const refused = await failure(trainer.fit());
    expect(refused.code).toBe("ZA_DISK_SPACE");
    expect(refused.message).toMatch(/\d{6,} bytes will be needed .* \d+ are free/);
    expect(readdirSync(outputDir)).not.toContain("model");
    // An adapter needs no room for its base, which has no place on this disk.
    rmSync(outputDir, { recursive: true });
    expect(4 * model.parameters).toBeGreaterThan(512 * 1024);
    const over = { lora: { rank: 1, targetModules: ["q_proj"] }, saveSteps: 1, maxSteps: 2, outputDir, samples: 0 };
    await new SftTrainer({ model, dataset: [chat("say ten.", "ten.")], ...over }).fit();
    expect(readdirSync(outputDir)).toEqual(expect.arrayContaining(["adapter", "checkpoints"]));
    await model.save(join(folder, "elsewhere"));
    expect((await Mistral.fromPretrained(join(folder, "elsewhere"))).parameters).toBe(model.parameters);
  });
});

describe("rows", () => {
  const rowsFile = (name: string, rows: unknown[]) => {
    const path = join(folder, name);
    writeFileSync(path, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
    return path;
  };
  const sft = async (dataset: string, maxLength = 256) => {
    const model = await Mistral.fromPretrained(base);
    return new SftTrainer({ model, dataset, maxLength, maxSteps: 1 }).fit();
  };

  it.each([
    ["a missing field", { messages: [{ role: "user" }] }, 2, "messages[0].content"],
    ["an empty answer", chat("say ten.", ""), 2, "messages[1].content"],
    ["roles out of order", { messages: [...chat("a").messages, ...chat("b", "c").messages] }, 2, "messages[1].role"],
  ])("%s", async (_, row, line, field) => {
    const error = await failure(sft(rowsFile("rows.jsonl", [chat("say two.", "two."), row])));
    expect(error.place).toMatchObject({ row: line, field });
    expect(error.place?.file).toContain("rows.jsonl");
    expect(error.remedy).toBeTruthy();
  });

  it("an answer that is longer than maxLength", async () => {
    const long = "seven ".repeat(80).trim();
    const error = await failure(sft(rowsFile("long.jsonl", [chat("say two.", "two."), chat("go on.", long)]), 32));
    expect(error).toMatchObject({ code: "ZA_DATA_TOO_LONG", place: { row: 2 } });
    expect(error.remedy).toMatch(/maxLength/);
  });
});

describe("training", () => {
  it("a loss that is NaN stops the run, and nothing is written under the model's name", async () => {
    const path = copy((path) => {
      const file = join(path, "model.safetensors");
      const bytes = readFileSync(file);
      const header = Number(bytes.readBigUInt64LE(0));
      // 0x7fc0 is a NaN in bfloat16.
      for (let at = 8 + header; at + 1 < bytes.length; at += 2) bytes.writeUInt16LE(0x7fc0, at);
      writeFileSync(file, bytes);
    });
    const model = await Mistral.fromPretrained(path);
    const outputDir = join(folder, "nan");
    const dataset = [chat("say two.", "two.")];
    const options = { model, dataset, maxSteps: 9, outputDir, samples: 0, logSteps: 1 };
    const error = await failure(new SftTrainer(options).fit());
    expect(error.code).toBe("ZA_TRAIN_NOT_FINITE");
    expect(error.remedy).toMatch(/no checkpoint was saved yet/);
    expect(readdirSync(outputDir)).not.toContain("model");
  });

  it("a reference that is not the policy's start is no fault, but options that mean nothing are", async () => {
    const policy = await Mistral.fromPretrained(base);
    expect(() => new DpoTrainer({ policy, lossType: "hinge", labelSmoothing: 0.1 })).toThrow(/labelSmoothing/);
    expect(() => new DpoTrainer({ policy, betta: 0.1 } as never)).toThrow(/Did you mean beta/);
  });

  it("samples that nobody can be asked for are told, where they were wanted", async () => {
    const model = await Mistral.fromPretrained(base);
    const warnings = async (options: object) => {
      const trainer = new SftTrainer({ model, dataset: [{ text: "ten nine" }], maxSteps: 1, samples: 1, ...options });
      return warningsOf((await eventsOf(trainer)).events);
    };
    expect(await warnings({ sampleSteps: 5 })).toEqual([
      "no row is a conversation with a prompt: nothing is asked every 5 steps",
    ]);
    expect(await warnings({})).toEqual([]);
  });

  it("an aborted run rejects with AbortedError", async () => {
    const model = await Mistral.fromPretrained(base);
    const signal = AbortSignal.abort();
    const error = await failure(new SftTrainer({ model, dataset: [chat("a", "b")], signal }).fit());
    expect(error.code).toBe("ZA_ABORTED");
  });

  it("a run folder that holds another run", async () => {
    const model = await Mistral.fromPretrained(base);
    const outputDir = join(folder, "taken");
    const run = () =>
      new SftTrainer({ model, dataset: [chat("say ten.", "ten.")], maxSteps: 1, outputDir, samples: 0 }).fit();
    await run();
    const error = await failure(run());
    expect(error.code).toBe("ZA_FOLDER_NOT_EMPTY");
    expect(error.remedy).toMatch(/overwrite/);
  });
});
