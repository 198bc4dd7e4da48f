import { existsSync, mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { pairDataset, sftDataset } from "./converted";
import { dataset } from "./dataset";
import { isDataset } from "./dataset-type";
import { fromArray } from "./in-memory";

const folder = mkdtempSync(join(tmpdir(), "zephyr-dataset-"));
let files = 0;
function file(name: string, content: string): string {
  const path = join(folder, `${files++}-${name}`);
  writeFileSync(path, content);
  return path;
}
const lines = (rows: unknown[]) => rows.map((row) => `${JSON.stringify(row)}\n`).join("");
const text = (value: string) => ({ text: value });
async function all<T>(rows: AsyncIterable<T>): Promise<T[]> {
  const values: T[] = [];
  for await (const row of rows) values.push(row);
  return values;
}

describe("dataset", () => {
  const rows = [text("a"), text("b"), text("c")];

  it("opens JSONL, JSON arrays and rows in memory alike", async () => {
    const inputs = [
      file("rows.jsonl", lines(rows)),
      file("rows.json", JSON.stringify(rows)),
      // Hugging Face writes JSONL under the name .json.
      file("lines.json", lines(rows)),
      file("array", `\uFEFF\n ${JSON.stringify(rows)}`),
      rows,
    ];
    for (const input of inputs) {
      const data = dataset(input);
      expect(isDataset(data)).toBe(true);
      expect(await all(data)).toEqual(rows);
      expect(await data.length()).toBe(3);
      expect(await data.at(2)).toEqual(text("c"));
      await data.close();
    }
  });

  it("opens a split of a folder", async () => {
    const splits = join(folder, "splits");
    mkdirSync(splits);
    writeFileSync(join(splits, "train_sft.jsonl"), lines(rows));
    expect(await dataset(splits, { split: "train_sft" }).length()).toBe(3);
    expect(() => dataset(splits, { split: "test_sft" })).toThrow(/no split "test_sft"/);
  });

  it("takes the first rows only, and never reads the rest", async () => {
    const path = file("broken.json", '[{"text":"a"},{"text":"b"},{"text":"c');
    const data = dataset(path, { limit: 2 });
    expect(await all(data)).toEqual([text("a"), text("b")]);
    expect(await data.length()).toBe(2);
    await expect(data.at(2)).rejects.toMatchObject({ code: "ZA_DATA_INDEX" });
    expect(await dataset(rows, { limit: 10 }).length()).toBe(3);
    expect(() => dataset(rows, { limit: 0 })).toThrow(/limit/);
  });

  it("holds rows out: two parts without overlap, the same for the same seed", async () => {
    const many = Array.from({ length: 50 }, (_, i) => text(String(i)));
    const part = (which: "train" | "test", seed = 1) =>
      all(dataset(many, { holdOut: { rows: 10, part: which, seed } }));
    const test = await part("test");
    const train = await part("train");
    expect(test).toHaveLength(10);
    expect(new Set([...test, ...train].map((row) => JSON.stringify(row))).size).toBe(50);
    expect(await part("test")).toEqual(test);
    expect(await part("test", 2)).not.toEqual(test);
    const data = dataset(many, { holdOut: { rows: 10, part: "train", seed: 1 } });
    expect(await data.at(39)).toEqual(train[39]);
  });

  it("names a missing file", async () => {
    await expect(dataset(join(folder, "none.json")).length()).rejects.toMatchObject({
      code: "ZA_DATA_FILE",
      place: { file: join(folder, "none.json") },
    });
  });
});

describe("sftDataset", () => {
  const good = [text("a"), text("b"), text("a")];

  it("reports the format and duplicates", async () => {
    const data = sftDataset(file("rows.jsonl", lines(good)));
    expect(await data.report()).toMatchObject({ format: "text", rows: 3, kept: 3, skipped: 0, duplicates: 1 });
    expect((await data.report()).description).toContain("plain text");
    expect(await all(data)).toEqual(good.map((row) => ({ kind: "text", ...row })));
  });

  it("throws at the first bad row, with file, line and field, before anything is trained", async () => {
    const path = file("rows.jsonl", `${lines([text("a")])}\n${lines([{ text: null }, { text: "" }])}`);
    await expect(sftDataset(path).length()).rejects.toMatchObject({
      code: "ZA_DATA_ROW",
      place: { file: path, row: 3, field: "text" },
    });
    await expect(all(sftDataset(path))).rejects.toMatchObject({ place: { row: 3 } });
  });

  it("skips bad rows, counts and lists them", async () => {
    const path = file("rows.jsonl", `${lines([text("a")])}{"text":\n${lines([{ text: null }, text("b")])}`);
    const data = sftDataset(path, { onBadRow: "skip" });
    expect(await data.length()).toBe(2);
    expect(await data.at(1)).toEqual({ kind: "text", text: "b" });
    expect(await all(data)).toEqual([await data.at(0), await data.at(1)]);
    const report = await data.report();
    expect(report).toMatchObject({ rows: 4, kept: 2, skipped: 2 });
    expect(report.skippedRows.map(({ code, place }) => [code, place.row])).toEqual([
      ["ZA_DATA_JSON", 2],
      ["ZA_DATA_ROW", 3],
    ]);
    expect((await data.row(1)).place.row).toBe(4);
  });

  it("refuses half a character with its field, and skips it as any bad row", async () => {
    const half = {
      messages: [
        { role: "user", content: "a\ud83d b" },
        { role: "assistant", content: "c" },
      ],
    };
    const path = file(
      "rows.jsonl",
      lines([half, { messages: [{ ...half.messages[1], role: "user" }, half.messages[1]] }]),
    );
    const place = { file: path, row: 1, field: "messages[0].content" };
    await expect(all(sftDataset(path))).rejects.toMatchObject({ code: "ZA_DATA_ROW", place, problem: /d83d.*place 1/ });
    expect(await sftDataset(path, { onBadRow: "skip" }).report()).toMatchObject({ kept: 1, skipped: 1 });
    const pair = { prompt: "p", chosen: "a", rejected: "b\udc00" };
    await expect(all(pairDataset([pair]))).rejects.toMatchObject({ code: "ZA_DATA_ROW", place: { field: "rejected" } });
  });

  it("with skip, uses the whole elements of a file that breaks off", async () => {
    const data = sftDataset(file("rows.json", '[{"text":"a"},{"text":"b"},{"te'), { onBadRow: "skip" });
    expect(await data.length()).toBe(2);
    expect(await data.at(1)).toEqual({ kind: "text", text: "b" });
    expect((await data.report()).skippedRows[0]?.code).toBe("ZA_DATA_TRUNCATED");
  });

  it("refuses files of another kind as a whole, even with skip", async () => {
    const path = file("rows.jsonl", lines([{ question: "a" }, { question: "b" }]));
    await expect(sftDataset(path, { onBadRow: "skip" }).length()).rejects.toMatchObject({ code: "ZA_DATA_FORMAT" });
  });

  it("refuses data without a usable row", async () => {
    await expect(sftDataset(file("rows.jsonl", "")).length()).rejects.toMatchObject({ code: "ZA_DATA_EMPTY" });
    await expect(sftDataset([]).length()).rejects.toMatchObject({ code: "ZA_DATA_EMPTY" });
    await expect(sftDataset([{ text: "" }], { onBadRow: "skip" }).length()).rejects.toThrow(/none of the 1 rows/);
  });

  it("names the element of rows in memory", async () => {
    await expect(sftDataset([text("a"), { text: 1 }]).length()).rejects.toMatchObject({
      place: { file: "rows", element: 2, field: "text" },
    });
  });
});

describe("pairDataset", () => {
  it("counts equal pairs", async () => {
    const data = pairDataset(
      fromArray([
        { prompt: "q", chosen: "a", rejected: "b" },
        { prompt: "q", chosen: "a", rejected: "a" },
      ]),
    );
    expect(await data.report()).toMatchObject({ kept: 2, equalPairs: 1, format: "preference" });
    expect(await data.at(0)).toEqual({ kind: "text", prompt: "q", chosen: "a", rejected: "b" });
  });
});

const pairs = join(process.env.ZEPHYR_DATA ?? "../shared/data", "pairs");
const present = existsSync(pairs);
if (!present) console.warn(`SKIPPED: reading ${pairs}, the folder is missing`);

describe.skipIf(!present)("real rows", () => {
  it("reads every row of sft.jsonl, dpo.jsonl and dpo_long.jsonl", async () => {
    for (const data of [
      sftDataset(join(pairs, "sft.jsonl")),
      pairDataset(join(pairs, "dpo.jsonl")),
      pairDataset(join(pairs, "dpo_long.jsonl")),
    ]) {
      const report = await data.report();
      expect(report.rows).toBeGreaterThan(10);
      expect(report.kept).toBe(report.rows);
      expect(await all<unknown>(data)).toHaveLength(report.kept);
    }
  });
});

const emptyAnswer = join(process.env.ZEPHYR_CASES ?? "../shared/cases", "15-nothing-left-to-learn/empty-answer.jsonl");
if (!existsSync(emptyAnswer)) console.warn(`SKIPPED: case 15, ${emptyAnswer} is missing`);

describe.skipIf(!existsSync(emptyAnswer))("case 15", () => {
  it("names file, line and field of an empty answer", async () => {
    await expect(sftDataset(emptyAnswer).length()).rejects.toMatchObject({
      code: "ZA_EMPTY_ANSWER",
      place: { file: emptyAnswer, row: 2, field: "messages[1].content" },
    });
  });
});
