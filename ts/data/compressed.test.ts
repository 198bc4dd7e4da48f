import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { sftDataset } from "./converted";
import { dataset } from "./dataset";
import type { Dataset, Row } from "./dataset-type";

const scratch = mkdtempSync(join(tmpdir(), "zephyr-compressed-"));
const cache = join(scratch, "cache");
const before = process.env.ZEPHYR_CACHE;
beforeAll(() => {
  process.env.ZEPHYR_CACHE = cache;
});
afterAll(() => {
  if (before === undefined) delete process.env.ZEPHYR_CACHE;
  else process.env.ZEPHYR_CACHE = before;
  rmSync(scratch, { recursive: true });
});

const copies = () => {
  try {
    return readdirSync(join(cache, "unpacked"));
  } catch {
    return [];
  }
};
let files = 0;
function file(name: string, content: Uint8Array): string {
  const path = join(scratch, `${files++}-${name}`);
  writeFileSync(path, content);
  return path;
}
async function all(data: Dataset<unknown>): Promise<Row<unknown>[]> {
  const rows: Row<unknown>[] = [];
  for await (const row of data.rows()) rows.push(row);
  return rows;
}

const row = (index: number) => ({ text: `row ${index} ${"and more of it ".repeat(index % 23)}` });
const rows = Array.from({ length: 3000 }, (_, index) => row(index));
const lines = Buffer.from(rows.map((each) => `${JSON.stringify(each)}\n`).join(""));
// Written by `make.py` beside it: Node 20 cannot write zstd. Two frames.
const zst = readFileSync(fileURLToPath(new URL("../../test/fixtures/zstd/rows.jsonl.zst", import.meta.url)));

describe("compressed files", () => {
  const inputs: [string, Uint8Array][] = [
    ["rows.jsonl.gz", gzipSync(lines)],
    ["members.jsonl.gz", Buffer.concat([gzipSync(lines.subarray(0, 100_001)), gzipSync(lines.subarray(100_001))])],
    ["rows.json.gz", gzipSync(JSON.stringify(rows))],
    ["lines.json.gz", gzipSync(lines)],
    ["unnamed", gzipSync(lines)],
    ["rows.jsonl.zst", zst],
    ["rows.zst", zst],
    ["unnamed", zst],
  ];

  it.each(inputs)("%s: in order without a copy, by index with one", async (name, content) => {
    const path = file(name, content);
    const data = dataset(path);
    const there = copies().length;
    const read = await all(data);
    expect(read.map(({ value }) => value)).toEqual(rows);
    expect(read[2999]!.place).toMatchObject({ file: path });
    expect(copies().length).toBe(there);
    expect(await data.at(2017)).toEqual(rows[2017]);
    expect(await data.length()).toBe(3000);
    expect(copies().length).toBe(there + 1);
    await data.close();
    expect(await data.at(1)).toEqual(rows[1]);
    await data.close();
    expect((await all(dataset(path))).length).toBe(3000);
    expect(copies().length).toBe(there + 1);
  });

  it("a changed file and a damaged copy are unpacked anew", async () => {
    const path = file("changing.jsonl.gz", gzipSync(lines));
    expect(await dataset(path).length()).toBe(3000);
    const there = copies().length;
    writeFileSync(path, gzipSync(lines.subarray(0, lines.indexOf(10) + 1)));
    utimesSync(path, 1, 1);
    expect(await dataset(path).length()).toBe(1);
    expect(copies().length).toBe(there + 1);
    for (const copy of copies()) truncateSync(join(cache, "unpacked", copy, "text"), 5);
    expect(await dataset(path).at(0)).toEqual(rows[0]);
    rmSync(cache, { recursive: true });
    expect(await dataset(path).at(0)).toEqual(rows[0]);
    expect(copies().filter((name) => name.startsWith("."))).toEqual([]);
  });

  const cut: [string, Buffer][] = [
    ["cut.jsonl.gz", gzipSync(lines).subarray(0, 6000)],
    ["cut.jsonl.zst", zst.subarray(0, Math.floor(zst.length / 2))],
  ];

  it.each(cut)(
    "%s: what stands before the break is read, then comes the fault, every time alike",
    async (name, content) => {
      const path = file(name, content);
      const first = await all(dataset(path));
      const fault = first.at(-1)!;
      const code = "ZA_DATA_TRUNCATED";
      expect(fault.error).toMatchObject({ code, place: { file: path, byte: expect.any(Number) } });
      for (const { value, index } of first.slice(0, -1)) expect(value).toEqual(rows[index]);
      expect(first.length).toBeGreaterThan(100);
      expect((await all(dataset(path))).length).toBe(first.length);
      const data = dataset(path);
      await expect(data.length()).rejects.toMatchObject({ code, place: { file: path } });
      expect(await data.at(first.length - 2)).toEqual(rows[first.length - 2]);
      expect((await data.row(first.length - 1)).error).toMatchObject({ code });
      // From the copy, which is there now, and from the manifest of another reader's.
      for (const each of [data, dataset(path)]) {
        expect((await all(each)).map(({ error }) => error?.code)).toEqual(first.map(({ error }) => error?.code));
        await each.close();
      }
      await expect(sftDataset(path).report()).rejects.toMatchObject({ code });
      const report = await sftDataset(path, { onBadRow: "skip" }).report();
      expect([report.kept, report.skipped]).toEqual([first.length - 1, 1]);
    },
  );

  const damaged: [string, Buffer, string][] = [
    ["flipped.jsonl.gz", flipped(gzipSync(lines, { level: 1 }), 9000), "ZA_DATA_COMPRESSED"],
    ["flipped.jsonl.zst", flipped(Buffer.from(zst), 6), "ZA_DATA_COMPRESSED"],
    ["foreign.jsonl.gz", Buffer.from("{}\n"), "ZA_DATA_COMPRESSED"],
    ["foreign.jsonl.zst", Buffer.from('{"text":"a longer line of text"}\n'), "ZA_DATA_COMPRESSED"],
  ];

  it.each(damaged)("%s is refused, with onBadRow skip as well", async (name, content, code) => {
    const path = file(name, content);
    await expect(all(dataset(path))).rejects.toMatchObject({ code, place: { file: path } });
    await expect(dataset(path).at(0)).rejects.toMatchObject({ code, place: { file: path } });
    await expect(sftDataset(path, { onBadRow: "skip" }).report()).rejects.toMatchObject({ code });
    expect(copies().filter((each) => each.startsWith("."))).toEqual([]);
  });

  it("an empty file is cut off", async () => {
    await expect(dataset(file("empty.jsonl.gz", Buffer.alloc(0))).length()).rejects.toMatchObject({
      code: "ZA_DATA_TRUNCATED",
    });
  });

  it("a small file that unpacks to much is read in constant memory", async () => {
    const line = Buffer.from(`${JSON.stringify({ text: "0".repeat(1000) })}\n`);
    const path = file("bomb.jsonl.gz", gzipSync(Buffer.concat(Array.from({ length: 50_000 }, () => line))));
    expect(statSync(path).size).toBeLessThan(1 << 20);
    let count = 0;
    for await (const _ of dataset(path)) count++;
    expect(count).toBe(50_000);
  });
});

function flipped(bytes: Buffer, at: number): Buffer {
  bytes[at]! ^= 0xff;
  return bytes;
}
