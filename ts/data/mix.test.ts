import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { concatenated } from "./concatenated";
import { sftDataset, unpairedDataset } from "./converted";
import { dataset } from "./dataset";
import type { Dataset, Row } from "./dataset-type";
import { fromArray } from "./in-memory";
import { type MixOptions, mix } from "./mix";
import { shuffle } from "./shuffled-rows";

const scratch = mkdtempSync(join(tmpdir(), "zephyr-mix-"));
const before = process.env.ZEPHYR_CACHE;
beforeAll(() => {
  process.env.ZEPHYR_CACHE = join(scratch, "cache");
});
afterAll(() => {
  if (before === undefined) delete process.env.ZEPHYR_CACHE;
  else process.env.ZEPHYR_CACHE = before;
  rmSync(scratch, { recursive: true });
});

const part = (name: string, length: number) =>
  fromArray(
    Array.from({ length }, (_, index) => `${name}${index}`),
    name,
  );
async function all<T>(rows: AsyncIterable<T>): Promise<T[]> {
  const values: T[] = [];
  for await (const row of rows) values.push(row);
  return values;
}
const values = (data: Dataset<unknown>) => all(data) as Promise<string[]>;

describe("mix", () => {
  it("shares are exact and even; rows keep their order and their places", async () => {
    const data = mix([
      { data: part("a", 60), weight: 3 },
      { data: part("b", 60), weight: 1 },
    ]);
    const rows = await all(data.rows());
    expect(rows.length).toBe(80);
    const names = rows.map(({ place }) => place.file);
    expect(names.filter((name) => name === "a").length).toBe(60);
    for (let end = 4; end <= 80; end += 4)
      expect(names.slice(0, end).filter((name) => name === "b").length).toBe(end / 4);
    expect(rows.filter(({ place }) => place.file === "a").map(({ value }) => value)).toEqual(
      await values(part("a", 60)),
    );
    const chosen = rows.filter(({ place }) => place.file === "b").map(({ place }) => place.element!);
    // One of each third of b.
    expect(chosen.map((element) => Math.floor((element - 1) / 3))).toEqual(Array.from({ length: 20 }, (_, at) => at));
    expect(new Set(chosen.map((element) => (element - 1) % 3)).size).toBe(3);
    expect(data.source).toBe("mix of a (3), b (1)");
  });

  it("the seed decides which rows; nothing else does", async () => {
    const make = (options: MixOptions) =>
      values(mix([{ data: part("a", 500), weight: 1 }, { data: part("b", 50) }], options));
    expect(await make({ seed: 1 })).toEqual(await make({ seed: 1 }));
    expect(await make({ seed: 1 })).not.toEqual(await make({ seed: 2 }));
  });

  it("any row can be asked for alone; prefixes have the shares, rows of a part do not repeat", async () => {
    const sizes = fc.array(fc.tuple(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 9 })), {
      minLength: 1,
      maxLength: 4,
    });
    await fc.assert(
      fc.asyncProperty(
        sizes,
        fc.option(fc.integer({ min: 1, max: 90 }), { nil: undefined }),
        fc.integer(),
        async (parts, wanted, seed) => {
          const sources = parts.map(([length, weight], at) => ({
            data: part(String.fromCharCode(97 + at), length),
            weight,
          }));
          const data = mix(sources, { seed, ...(wanted === undefined ? {} : { rows: wanted }) });
          let length: number;
          try {
            length = await data.length();
          } catch (error) {
            expect(error).toMatchObject({ code: "ZA_DATA_EMPTY" });
            return;
          }
          const rows = await all(data.rows());
          expect(rows.length).toBe(length);
          expect(rows.map(({ index }) => index)).toEqual(rows.map((_, index) => index));
          for (const index of rows.keys()) expect(await data.row(index)).toEqual(rows[index]);
          const weights = parts.reduce((sum, [, weight]) => sum + weight, 0);
          for (const [at, [partLength, weight]] of parts.entries()) {
            const own = rows
              .filter(({ place }) => place.file === String.fromCharCode(97 + at))
              .map(({ place }) => place.element!);
            expect(Math.abs(own.length - (length * weight) / weights)).toBeLessThan(1 + 1e-9);
            expect(own).toEqual([...own].sort((a, b) => a - b));
            if (wanted === undefined) expect(new Set(own).size).toBe(own.length);
            // Repeated evenly.
            const times = Array.from({ length: partLength }, (_, row) => own.filter((each) => each === row + 1).length);
            if (own.length >= partLength) expect(Math.max(...times) - Math.min(...times)).toBeLessThanOrEqual(1);
            else expect(Math.max(...times)).toBeLessThanOrEqual(1);
          }
        },
      ),
      { numRuns: 60 },
    );
  });

  it("the handbook's rule: the first of each, one behind the other", async () => {
    const data = mix(
      [
        { data: part("a", 10), weight: 0.35 },
        { data: part("b", 3), weight: 1 },
        { data: part("c", 3), weight: 0.1 },
      ],
      { rule: "first-fraction" },
    );
    expect(await values(data)).toEqual(["a0", "a1", "a2", "b0", "b1", "b2"]);
    expect(await data.at(4)).toBe("b1");
  });

  it("refuses what cannot be mixed", async () => {
    expect(() => mix([])).toThrow(/at least one/);
    expect(() => mix([{ data: [], weight: 0 }])).toThrow(/parts\[0\].weight: the weight is 0/);
    expect(() => mix([{ data: [1], weight: 2 }], { rule: "first-fraction" })).toThrow(/at most 1|weight is 2/);
    expect(() => mix([{ data: [1] }], { rows: 0.5 })).toThrow(/rows is 0.5/);
    await expect(mix([{ data: [] }, { data: [1] }]).length()).rejects.toMatchObject({ code: "ZA_DATA_EMPTY" });
    await expect(mix([{ data: "missing.jsonl" }]).length()).rejects.toMatchObject({ code: "ZA_DATA_FILE" });
  });

  it("parts of different files and formats are each read as they are", async () => {
    const say = (name: string, index: number) => [
      { role: "user", content: `${name} ${index}` },
      { role: "assistant", content: "yes" },
    ];
    const lines = Array.from({ length: 30 }, (_, index) =>
      JSON.stringify({
        conversations: say("l", index).map(({ role, content }) => ({
          from: role === "user" ? "human" : "gpt",
          value: content,
        })),
      }),
    );
    const path = join(scratch, "lines.jsonl.gz");
    writeFileSync(path, gzipSync(lines.join("\n")));
    const chats = fileURLToPath(new URL("../../test/fixtures/parquet/chats-zstd-v1.parquet", import.meta.url));
    const memory = Array.from({ length: 9 }, (_, index) => ({ messages: say("m", index) }));
    const data = mix([{ data: path, weight: 2 }, { data: chats }, { data: memory }, { data: memory }]);
    const converted = sftDataset(data);
    const report = await converted.report();
    expect(report).toMatchObject({ rows: 35, kept: 35, skipped: 0 });
    expect(report.description).toMatch(/ShareGPT.*Of another part:.*TRL conversational/);
    const rows = await all(converted.rows());
    expect(new Set(rows.map(({ place }) => place.file))).toEqual(
      new Set([path, chats, "rows of part 3", "rows of part 4"]),
    );
    expect(rows.every(({ value }) => value?.kind === "chat")).toBe(true);
    expect(await converted.at(20)).toEqual(rows[20]!.value);
    await data.close();
    const pairs = mix([
      { data: [{ prompt: "a", chosen: "b", rejected: "c" }] },
      { data: [{ prompt: "a", completion: "b", label: true }] },
    ]);
    await expect(unpairedDataset(pairs).report()).rejects.toMatchObject({
      code: "ZA_DATA_FORMAT",
      place: { file: "rows of part 2" },
    });
    const wrong = mix([{ data: [{ text: "a" }] }, { data: [{ nothing: "a" }] }]);
    await expect(sftDataset(wrong, { onBadRow: "skip" }).report()).rejects.toMatchObject({ code: "ZA_DATA_FORMAT" });
  });
});

describe("shuffle", () => {
  const shards = () => concatenated([part("a", 40), part("b", 1), part("c", 25)], "shards");
  const mixed = () =>
    mix([
      { data: shards(), weight: 2 },
      { data: part("d", 33), weight: 1 },
    ]);

  it("goes over shards and mixes, every row once, another order each epoch", async () => {
    for (const make of [shards, mixed]) {
      const plain = await values(make());
      const first = await values(shuffle(make(), { seed: 3 }));
      const second = await values(shuffle(make(), { seed: 3, epoch: 1 }));
      expect([...first].sort()).toEqual([...plain].sort());
      expect([...second].sort()).toEqual([...plain].sort());
      expect(first).not.toEqual(plain);
      expect(second).not.toEqual(first);
      expect(await values(shuffle(make(), { seed: 3 }))).toEqual(first);
    }
  });

  it("goes on at any position without what was before", async () => {
    const whole = await all(shuffle(mixed(), { seed: 9, epoch: 4 }).rows());
    const reads: number[] = [];
    const watched = mixed();
    const row = watched.row.bind(watched);
    const counted: Dataset<unknown> = {
      ...watched,
      row: (index) => {
        reads.push(index);
        return row(index);
      },
    };
    const again = shuffle(counted, { seed: 9, epoch: 4 });
    const rest: Row<unknown>[] = [];
    for (let index = 71; index < whole.length; index++) rest.push(await again.row(index));
    expect(rest).toEqual(whole.slice(71));
    expect(reads.length).toBe(whole.length - 71);
    await expect(again.at(whole.length)).rejects.toMatchObject({ code: "ZA_DATA_INDEX" });
    await expect(again.at(-1)).rejects.toMatchObject({ code: "ZA_DATA_INDEX" });
  });

  it("with a folder of Parquet shards", async () => {
    const folder = fileURLToPath(new URL("../../test/fixtures/parquet/", import.meta.url));
    const one = dataset(join(folder, "crossing-v1.parquet"));
    const both = concatenated([one, dataset(join(folder, "crossing-v2.parquet"))], "both");
    const ids = (await all(shuffle(both))).map((row) => (row as { id: number }).id);
    expect([...ids].sort((a, b) => a - b)).toEqual(Array.from({ length: 24 }, (_, at) => at >> 1));
  });
});
