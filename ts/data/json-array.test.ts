import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import ts from "typescript";
import { describe, expect, it } from "vitest";
import { DataError } from "../errors";
import { chunkSize } from "./file-bytes";
import { jsonArray } from "./json-array";

const folder = mkdtempSync(join(tmpdir(), "zephyr-json-"));
let files = 0;
function file(content: string): string {
  const path = join(folder, `${files++}.json`);
  writeFileSync(path, content);
  return path;
}

/** The values until the end or the error. */
async function read(path: string, maximumElementBytes?: number): Promise<{ values: unknown[]; error?: DataError }> {
  const values: unknown[] = [];
  try {
    for await (const value of jsonArray(path, maximumElementBytes ? { maximumElementBytes } : {})) values.push(value);
  } catch (error) {
    expect(error).toBeInstanceOf(DataError);
    return { values, error: error as DataError };
  }
  return { values };
}

describe("jsonArray", () => {
  it("reads objects, arrays, strings, numbers and words", async () => {
    const path = file('\uFEFF [ {"a": [1, {"b": "]}"}]}, [], "x\\"]", -1.5e3 , true,null\n]\n ');
    const expected = [{ a: [1, { b: "]}" }] }, [], 'x"]', -1500, true, null];
    expect(await read(path)).toEqual({ values: expected });
    const data = jsonArray(path);
    expect(await data.length()).toBe(6);
    for (const i of [5, 0, 3, 2, 4, 1]) expect(await data.at(i)).toEqual(expected[i]);
    expect((await data.row(2)).place).toEqual({ file: path, element: 3 });
    await data.close();
    expect(await read(file("[]"))).toEqual({ values: [] });
  });

  it("gives back any values, compact or indented", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.jsonValue()), fc.constantFrom(0, 2), async (generated, indent) => {
        const values = JSON.parse(JSON.stringify(generated));
        const path = file(JSON.stringify(values, null, indent));
        expect(await read(path)).toEqual({ values });
        const data = jsonArray(path);
        expect(await data.length()).toBe(values.length);
        for (let i = values.length - 1; i >= 0; i--) expect(await data.at(i)).toEqual(values[i]);
        await data.close();
      }),
      { numRuns: 60 },
    );
  });

  it("carries strings, escapes and depth over the edges of chunks", async () => {
    const values = [];
    for (let i = -6; i < 6; i++) values.push({ k: "\\".repeat(chunkSize / 4 + i), q: '"}]'.repeat(1000), n: [[i]] });
    const path = file(JSON.stringify(values));
    expect(statSync(path).size).toBeGreaterThan(4 * chunkSize);
    expect(await read(path)).toEqual({ values });
  });

  it("cut anywhere, yields the whole elements and then a typed error with the byte", async () => {
    const values = [{ a: 'x\\y"z' }, [1, [2]], "text", { b: { c: null } }];
    const text = JSON.stringify(values, null, 1);
    const ends = values.map((_, i) => JSON.stringify(values.slice(0, i + 1), null, 1).length - 2);
    for (let cut = 0; cut < text.length; cut++) {
      const path = file(text.slice(0, cut));
      const { values: whole, error } = await read(path);
      expect(whole).toEqual(values.slice(0, ends.filter((end) => end <= cut).length));
      expect(error).toMatchObject({ code: "ZA_DATA_TRUNCATED", place: { file: path, byte: cut } });
    }
  });

  it("keeps the whole elements of a broken file reachable by index", async () => {
    const path = file('[{"a":1},{"a":2},{"a":"brok');
    const data = jsonArray(path);
    await expect(data.length()).rejects.toMatchObject({ code: "ZA_DATA_TRUNCATED", place: { byte: 27 } });
    expect(await data.at(1)).toEqual({ a: 2 });
    await expect(data.at(2)).rejects.toMatchObject({ code: "ZA_DATA_TRUNCATED" });
    await expect(data.at(3)).rejects.toMatchObject({ code: "ZA_DATA_INDEX" });
  });

  it.each([
    ["", 0, "ZA_DATA_TRUNCATED", 0],
    ['{"a":1}', 0, "ZA_DATA_JSON", 0],
    ["[1 2]", 1, "ZA_DATA_JSON", 3],
    ["[1,]", 1, "ZA_DATA_JSON", 3],
    ["[,1]", 0, "ZA_DATA_JSON", 1],
    ["[1] x", 1, "ZA_DATA_JSON", 4],
    ["[1,}", 1, "ZA_DATA_JSON", 3],
    ['[1,{"a":tru},3]', 1, "ZA_DATA_JSON", 8],
    ['[{"a":[1}]]', 0, "ZA_DATA_JSON", 8],
  ])("refuses %s", async (text, whole, code, byte) => {
    const { values, error } = await read(file(text));
    expect(values).toHaveLength(whole);
    expect(error).toMatchObject({ code, place: { byte, element: whole + 1 } });
  });

  it("goes on behind an element that is malformed inside its brackets", async () => {
    const seen: unknown[] = [];
    for await (const row of jsonArray(file('[1,{"a":x},3]')).rows()) seen.push(row.error?.code ?? row.value);
    expect(seen).toEqual([1, "ZA_DATA_JSON", 3]);
  });

  it("refuses an element above the cap", async () => {
    const { values, error } = await read(file(`["ok","${"x".repeat(100)}"]`), 50);
    expect(values).toEqual(["ok"]);
    expect(error).toMatchObject({ code: "ZA_DATA_LINE_TOO_LONG", place: { element: 2, byte: 6 } });
  });
});

/** Compiles the readers and a script to CommonJS, for a process that holds nothing else. */
function compile(name: string, source: string): string {
  const out = mkdtempSync(join(tmpdir(), "zephyr-read-"));
  mkdirSync(join(out, "data"));
  const emit = (path: string, code: string) => {
    const options = { module: ts.ModuleKind.CommonJS, target: ts.ScriptTarget.ES2022 };
    writeFileSync(
      join(out, path.replace(/ts$/, "js")),
      ts.transpileModule(code, { compilerOptions: options }).outputText,
    );
  };
  for (const path of ["errors.ts", "error-codes.ts"]) emit(path, readFileSync(join("ts", path), "utf8"));
  for (const path of readdirSync("ts/data").filter((each) => /(?<!\.test)\.ts$/.test(each))) {
    emit(join("data", path), readFileSync(join("ts/data", path), "utf8"));
  }
  emit(name, source);
  return join(out, name.replace(/ts$/, "js"));
}

const sharegpt = join(homedir(), ".cache/zephyr-align-test/sharegpt-truncated.json");
const present = existsSync(sharegpt);
if (!present) console.warn(`SKIPPED: reading ${sharegpt}, the file is missing`);

describe.skipIf(!present)("a real ShareGPT file that breaks off in a string", () => {
  it("yields every whole row in order, then a typed error with byte, under 200 MB", { timeout: 120_000 }, async () => {
    const source = `
      import { createHash } from "node:crypto";
      import { jsonArray } from "./data/json-array";
      void main();
      async function main() {
      const data = jsonArray(process.argv[2]);
      const hash = createHash("sha256");
      let rows = 0, error, first, last;
      try {
        for await (const row of data) {
          hash.update(JSON.stringify(row));
          first ??= row;
          last = row;
          rows++;
        }
      } catch (thrown) { error = thrown; }
      const peak = process.resourceUsage().maxRSS * 1024;
      const again = await data.at(rows - 1);
      console.log(JSON.stringify({
        rows, peak, hash: hash.digest("hex"), code: error?.code, place: error?.place, problem: error?.problem,
        first: first.id, ordered: JSON.stringify(again) === JSON.stringify(last),
      }));
      }`;
    const script = compile("read.ts", source);
    const out = JSON.parse(execFileSync(process.execPath, [script, sharegpt], { encoding: "utf8" }));
    const size = statSync(sharegpt).size;
    expect(out.code).toBe("ZA_DATA_TRUNCATED");
    expect(out.place.byte).toBe(size);
    expect(out.place.element).toBe(out.rows + 1);
    expect(out.problem).toContain("inside a string");
    expect(out.ordered).toBe(true);
    expect(out.peak).toBeLessThan(200e6);

    // The same rows by another way: closing the array behind the last whole element and parsing it in one piece.
    const text = readFileSync(sharegpt, "utf8");
    const start = Number(/begins at byte (\d+)/.exec(out.problem)?.[1]);
    const before = Buffer.from(text, "utf8").subarray(0, start).toString("utf8");
    const expected = JSON.parse(`${before.slice(0, before.lastIndexOf(","))}]`) as unknown[];
    expect(out.rows).toBe(expected.length);
    const hash = createHash("sha256");
    for (const row of expected) hash.update(JSON.stringify(row));
    expect(out.hash).toBe(hash.digest("hex"));
  });
});
