import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { DataError } from "../errors";
import { chunkSize } from "./file-bytes";
import { jsonl } from "./jsonl";

const folder = mkdtempSync(join(tmpdir(), "zephyr-jsonl-"));
let files = 0;
function file(content: string | Buffer): string {
  const path = join(folder, `${files++}.jsonl`);
  writeFileSync(path, content);
  return path;
}

async function all(path: string): Promise<unknown[]> {
  const rows: unknown[] = [];
  for await (const row of jsonl(path)) rows.push(row);
  return rows;
}

async function failure(work: Promise<unknown>): Promise<DataError> {
  const error = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(DataError);
  return error as DataError;
}

describe("jsonl", () => {
  it("accepts CRLF, a byte order mark, blank lines and a last line without its end", async () => {
    const path = file('\uFEFF{"a":1}\r\n\n \t\r\n{"a":2}\n\n{"a":3}');
    const data = jsonl(path);
    expect(await all(path)).toEqual([{ a: 1 }, { a: 2 }, { a: 3 }]);
    expect(await data.length()).toBe(3);
    expect([await data.at(2), await data.at(0), await data.at(1)]).toEqual([{ a: 3 }, { a: 1 }, { a: 2 }]);
    expect((await data.row(1)).place.row).toBe(4);
    expect((await data.row(2)).place.row).toBe(6);
    await data.close();
    expect(await data.at(0)).toEqual({ a: 1 });
    await data.close();
  });

  it("is empty for an empty file", async () => {
    expect(await jsonl(file("")).length()).toBe(0);
    expect(await all(file("\n\n"))).toEqual([]);
  });

  it("names file, line and byte of a malformed row, streamed and by index", async () => {
    const path = file('{"a":1}\n\n{"ä":x}\n{"a":3}\n');
    for (const error of [await failure(all(path)), await failure(jsonl(path).at(1))]) {
      expect(error.code).toBe("ZA_DATA_JSON");
      // The byte of x: 8 + 1 for the lines before, 6 for {"ä": of which ä has two bytes.
      expect(error.place).toMatchObject({ file: path, row: 3, byte: 9 + 6 });
    }
    expect(await jsonl(path).at(2)).toEqual({ a: 3 });
  });

  it("goes on behind a malformed row when rows are asked for", async () => {
    const seen: unknown[] = [];
    for await (const row of jsonl(file('{"a":1}\n{"a"\n{"a":3}\n')).rows()) seen.push(row.error?.code ?? row.value);
    expect(seen).toEqual([{ a: 1 }, "ZA_DATA_JSON", { a: 3 }]);
  });

  it("refuses bytes that are not UTF-8, with the byte", async () => {
    const path = file(Buffer.concat([Buffer.from('{"a":"'), Buffer.from([0xc3, 0x28]), Buffer.from('"}\n')]));
    const error = await failure(all(path));
    expect(error.code).toBe("ZA_DATA_ENCODING");
    expect(error.place).toMatchObject({ row: 1, byte: 7 });
  });

  it("refuses a line above the cap and keeps the others, streamed and by index", async () => {
    const path = file(`"${"x".repeat(50)}"\r\n"${"y".repeat(51)}"\n"z"\n`);
    const data = jsonl(path, { maximumLineBytes: 52 });
    const seen: unknown[] = [];
    for await (const row of data.rows()) seen.push(row.error?.code ?? row.value);
    expect(seen).toEqual(["x".repeat(50), "ZA_DATA_LINE_TOO_LONG", "z"]);
    expect(await data.length()).toBe(3);
    expect(await data.at(0)).toBe("x".repeat(50));
    expect((await failure(data.at(1))).place).toMatchObject({ row: 2, byte: 54 });
    expect(await data.at(2)).toBe("z");
  });

  it("reads lines longer than a chunk", async () => {
    const rows = ["a".repeat(chunkSize - 3), "b".repeat(2 * chunkSize + 1), "c", "€".repeat(chunkSize)];
    const path = file(rows.map((row) => JSON.stringify(row)).join("\n"));
    expect(await all(path)).toEqual(rows);
    const data = jsonl(path);
    for (const i of [3, 1, 0, 2]) expect(await data.at(i)).toBe(rows[i]);
  });

  it("names a missing file and a row outside", async () => {
    const path = join(folder, "missing.jsonl");
    expect(await failure(all(path))).toMatchObject({ code: "ZA_DATA_FILE", place: { file: path } });
    expect((await failure(jsonl(folder).length())).code).toBe("ZA_DATA_FILE");
    expect((await failure(jsonl(file("1\n")).at(1))).code).toBe("ZA_DATA_INDEX");
    expect((await failure(jsonl(file("1\n")).at(-1))).code).toBe("ZA_DATA_INDEX");
  });

  it("gives back any rows, in any order, whatever stands between them", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.jsonValue(), fc.constantFrom("\n", "\r\n", "\n\n", "\n \n\t\r\n")), { maxLength: 30 }),
        fc.boolean(),
        async (rows, mark) => {
          const values = rows.map(([value]) => JSON.parse(JSON.stringify(value)));
          const path = file((mark ? "\uFEFF" : "") + rows.map(([value, end]) => JSON.stringify(value) + end).join(""));
          expect(await all(path)).toEqual(values);
          const data = jsonl(path);
          expect(await data.length()).toBe(values.length);
          for (let i = values.length - 1; i >= 0; i--) expect(await data.at(i)).toEqual(values[i]);
          await data.close();
        },
      ),
      { numRuns: 60 },
    );
  });
});

const caseFolder = join(process.env.ZEPHYR_CASES ?? "../shared/cases", "05-jsonl-unicode-line-separators");
const casePresent = existsSync(caseFolder);
if (!casePresent) console.warn(`SKIPPED: case 05, ${caseFolder} is missing`);

describe.skipIf(!casePresent)("case 05: only LF ends a line", () => {
  it("reads three rows with U+2028, U+2029 and U+0085 unchanged, streamed and by index", async () => {
    type Row = { messages: { content: string }[] };
    const path = join(caseFolder, "rows.jsonl");
    const rows = (await all(path)) as Row[];
    expect(rows).toHaveLength(3);
    const first = rows[0]?.messages[0]?.content ?? "";
    expect(createHash("sha256").update(first).digest("hex")).toBe(
      "df3b46847af58ba361ec391d79abf73d825bf1c50be9cbc02af88af07249bdf8",
    );
    expect(first).toBe("One\u2028two");
    expect(rows[0]?.messages[1]?.content).toBe("a\u2029b");
    expect(rows[1]?.messages[0]?.content).toBe("NEL\u0085here");
    const data = jsonl(path);
    expect(await data.at(2)).toEqual(rows[2]);
    expect(await data.at(0)).toEqual(rows[0]);
    expect(await data.length()).toBe(3);
    await data.close();
  });
});
