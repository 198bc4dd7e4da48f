/** A server of ours that speaks the Hub's API, in its own process, and the data sets and models that it serves. */
import { type ChildProcess, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { inspect } from "node:util";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, beforeEach, expect } from "vitest";
import { patience } from "../../ts/hub/request";
import { type DatasetOptions, dataset } from "../../ts/index";
import { buildProgram } from "../shared";

export const fixtures = fileURLToPath(new URL("../fixtures/parquet/", import.meta.url));
export const scratch = mkdtempSync(join(tmpdir(), "zephyr-hub-"));
export const served = join(scratch, "served");
export const token = "hf_secret_of_the_test";
export const chats = JSON.parse(readFileSync(join(fixtures, "expected.json"), "utf8")).files.chats as {
  prompt: string;
}[];

export const say = (index: number) => ({
  messages: [
    { role: "user", content: `question ${index}` },
    {
      role: "assistant",
      content: `answer ${index} ${createHash("sha256").update(String(index)).digest("hex").repeat(4)}`,
    },
  ],
});
export const jsonl = (from: number, to: number) =>
  Array.from({ length: to - from }, (_, at) => `${JSON.stringify(say(from + at))}\n`).join("");

export function put(path: string, content: string | Uint8Array): void {
  mkdirSync(dirname(join(served, path)), { recursive: true });
  writeFileSync(join(served, path), content);
}

/** The Hub's address, and that of its large files. */
export let hub: string;
export let large: string;
/** A cache of this test. */
export let cacheDir: string;
/** The command line's program. */
export let program: string;
let folders = 0;

export interface Logged {
  host: string;
  url: string;
  range: string | null;
  token: string | null;
  status: number;
}
export const log = async () => (await (await fetch(`${hub}/_log`)).json()) as Logged[];
export const faults = (rules: object[]) => fetch(`${hub}/_faults`, { method: "POST", body: JSON.stringify(rules) });

/** Serves the material for the tests of the calling file. */
export function serveHub(): void {
  let server: ChildProcess;
  beforeAll(async () => {
    // Now: a connection to the server would not outlive it.
    program = buildProgram();
    patience.firstPause = 5;
    patience.longestPause = 20;
    const parquetOf = (name: string) => readFileSync(join(fixtures, `${name}.parquet`));
    const card = [
      "---",
      "configs:",
      "- config_name: default",
      "  data_files:",
      "  - split: train_sft",
      "    path: data/train_sft-*",
      "  - split: test_sft",
      "    path: data/test_sft-*",
      "---",
    ].join("\n");
    const chat = "datasets/org/chats/main";
    put(`${chat}/README.md`, card);
    put(`${chat}/.gitattributes`, "*.parquet filter=lfs\n");
    for (const shard of [0, 1, 2]) {
      put(
        `${chat}/data/train_sft-0000${shard}-of-00003-0123456789abcdef.parquet`,
        parquetOf(["chats-none-v1", "chats-zstd-v1", "chats-snappy-v2"][shard]!),
      );
    }
    put(`${chat}/data/test_sft-00000-of-00001-0123456789abcdef.parquet`, parquetOf("chats-gzip-v2"));
    put("datasets/org/chats/v0/data/train-00000-of-00001.jsonl", jsonl(0, 3));
    put("datasets/org/chats/refs%2Fconvert%2Fparquet/default/train_sft/0000.parquet", parquetOf("chats-none-v2"));
    put("datasets/org/lines/main/train.jsonl", jsonl(0, 4000));
    put("datasets/org/lines/main/test.jsonl.gz", gzipSync(jsonl(4000, 4400)));
    put("datasets/org/gated-set/main/train.jsonl", jsonl(0, 3));
    put("datasets/org/private-set/main/train.jsonl", jsonl(0, 3));
    put("datasets/org/script/main/script.py", "print()");
    cpSync(fileURLToPath(new URL("../../recipes/demo/base", import.meta.url)), join(served, "models/org/base/main"), {
      recursive: true,
    });
    put("models/org/base/main/pytorch_model.bin", "not wanted");
    put("models/org/base/main/consolidated.safetensors", "not wanted");
    put("models/org/model/main/config.json", "{}");
    put("models/org/model/main/model.safetensors", Buffer.alloc(5000, 7));
    server = spawn(process.execPath, [fileURLToPath(new URL("./server.mjs", import.meta.url)), served], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    const [line] = await once(createInterface(server.stdout!), "line");
    ({ hub, large } = JSON.parse(line));
  });

  afterAll(() => {
    server.kill();
    rmSync(scratch, { recursive: true });
  });

  beforeEach(async () => {
    cacheDir = join(scratch, `cache-${folders++}`);
    await faults([]);
    await fetch(`${hub}/_log`, { method: "POST" });
  });
}

export const open = (id: string, options: DatasetOptions = {}) =>
  dataset(id, { ...options, hub: { endpoint: hub, cacheDir, token: false, ...options.hub } });

export async function all(rows: AsyncIterable<unknown>): Promise<unknown[]> {
  const found: unknown[] = [];
  for await (const row of rows) found.push(row);
  return found;
}

export async function refusal(work: Promise<unknown>): Promise<{ code: string; text: string }> {
  const error = (await work.then(
    () => undefined,
    (thrown) => thrown,
  )) as { code: string } & Error;
  expect(error).toBeDefined();
  return { code: error.code, text: `${error}\n${inspect(error, { depth: 9, showHidden: true })}` };
}
