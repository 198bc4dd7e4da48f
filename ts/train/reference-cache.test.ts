import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { hashRows, ReferenceCache, type ReferenceKey } from "./reference-cache";

const key: ReferenceKey = { reference: "abc", rows: "def", sequences: 5, ldAlpha: null };
// Numbers whose decimal text is long: they must come back to the last bit.
const sums = Float64Array.of(-130.60617065429688, -1 / 3, -Number.MIN_VALUE, -1e300, -0.1 - 0.2);

let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "reference-cache-"));
  path = join(folder, "run", "reference.jsonl");
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

async function fill(blocks: Float64Array[]): Promise<void> {
  const cache = await ReferenceCache.open(path, key);
  for (const block of blocks) await cache.append(block);
  await cache.close();
}

function values(text: string): string {
  return JSON.stringify(
    text
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line)),
  );
}

async function read(): Promise<ReferenceCache> {
  const cache = await ReferenceCache.open(path, key);
  await cache.close();
  return cache;
}

test("sums come back to the last bit, and a stopped computation goes on where it was", async () => {
  await fill([sums.slice(0, 2)]);
  const cache = await ReferenceCache.open(path, key);
  expect(cache.done).toBe(2);
  await cache.append(sums.slice(2));
  await cache.close();
  const again = await read();
  expect(again.done).toBe(5);
  expect(new BigUint64Array(again.sums.buffer)).toEqual(new BigUint64Array(sums.buffer));
});

test("a last line that broke off at any byte is cut away; what is before it stays", async () => {
  await fill([sums.slice(0, 2), sums.slice(2)]);
  const whole = readFileSync(path);
  const ends = [...whole.keys()].filter((at) => whole[at] === 10).map((at) => at + 1);
  for (let bytes = 0; bytes <= whole.length; bytes++) {
    writeFileSync(path, whole.subarray(0, bytes));
    const cache = await read();
    const lines = ends.filter((end) => end <= bytes).length;
    expect(cache.done).toBe([0, 0, 2, 5][lines]);
    expect(readFileSync(path).length).toBe(lines === 0 ? ends[0] : ends[lines - 1]);
  }
});

describe("another run's file is refused by name", () => {
  test.each([
    ["reference", "other", "reference model"],
    ["rows", "other", "rows, template"],
    ["sequences", 6, "number of sequences"],
    ["ldAlpha", 0.5, "ldAlpha"],
  ])("%s", async (name, value, said) => {
    await fill([sums]);
    const before = readFileSync(path);
    await expect(ReferenceCache.open(path, { ...key, [name]: value })).rejects.toMatchObject({
      code: "ZA_REFERENCE_CACHE",
      message: expect.stringContaining(said),
    });
    expect(readFileSync(path)).toEqual(before);
  });

  test("a file that is no cache at all", async () => {
    await fill([]);
    writeFileSync(path, '{"prompt":"a"}\n');
    await expect(ReferenceCache.open(path, key)).rejects.toMatchObject({ code: "ZA_REFERENCE_CACHE" });
  });
});

test("every changed digit of a block is found, and the line named", async () => {
  await fill([sums.slice(0, 2), sums.slice(2)]);
  const text = readFileSync(path, "utf8");
  const start = text.indexOf("\n") + 1;
  for (const match of text.slice(start).matchAll(/\d/g)) {
    const at = start + match.index;
    const changed = text.slice(0, at) + ((Number(text[at]) + 1) % 10) + text.slice(at + 1);
    // A digit behind a number's precision changes nothing.
    if (values(changed) === values(text)) continue;
    writeFileSync(path, changed);
    const line = at < text.indexOf("\n", start) ? 2 : 3;
    await expect(ReferenceCache.open(path, key)).rejects.toMatchObject({ place: { file: path, row: line } });
  }
  writeFileSync(path, text);
  appendFileSync(path, '{"start":5,"sums":[1],"check":"x"}\n');
  await expect(ReferenceCache.open(path, key)).rejects.toMatchObject({ place: { row: 4 } });
});

test("the hash of rows sees ids, masks, borders and order", () => {
  const row = (ids: number[], supervised: number[]) => ({
    ids: Uint32Array.from(ids),
    supervised: Uint8Array.from(supervised),
  });
  const rows = [row([1, 2, 3], [0, 1, 1]), row([4, 5], [0, 1])];
  const others = [
    [row([1, 2, 4], [0, 1, 1]), rows[1]!],
    [row([1, 2, 3], [0, 0, 1]), rows[1]!],
    [rows[1]!, rows[0]!],
    [rows[0]!],
    [row([1, 2], [0, 1]), row([3, 4, 5], [1, 0, 1])],
  ];
  expect(new Set([rows, ...others].map((each) => hashRows(each))).size).toBe(6);
});
