import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { sftDataset } from "../converted";
import type { Dataset, Row } from "../dataset-type";
import { parquet } from "./index";

// Written by pyarrow (make.py beside them), with what pyarrow reads from them.
const fixtures = fileURLToPath(new URL("../../../test/fixtures/parquet/", import.meta.url));
const { files: expected } = JSON.parse(readFileSync(join(fixtures, "expected.json"), "utf8")) as {
  files: Record<string, unknown[]>;
};
const fixture = (name: string) => join(fixtures, `${name}.parquet`);
const scratch = mkdtempSync(join(tmpdir(), "zephyr-parquet-"));
afterAll(() => rmSync(scratch, { recursive: true }));

async function all(data: Dataset<unknown>): Promise<Row<unknown>[]> {
  const rows: Row<unknown>[] = [];
  for await (const row of data.rows()) rows.push(row);
  return rows;
}

/** Bytes as the expected file spells them. */
function spelled(value: unknown): unknown {
  return JSON.parse(
    JSON.stringify(value, (_, item) =>
      item?.type === "Buffer" || item instanceof Uint8Array
        ? { base64: Buffer.from(item.data ?? item).toString("base64") }
        : item,
    ),
  );
}

/** A copy of a fixture with some bytes changed. */
function altered(name: string, change: (bytes: Buffer) => Buffer): string {
  const path = join(scratch, `${basename(name)}-${Math.random().toString(36).slice(2)}.parquet`);
  writeFileSync(path, change(readFileSync(fixture(name))));
  return path;
}

describe("files of pyarrow", () => {
  const names = readdirSync(fixtures)
    .filter((name) => name.endsWith(".parquet") && name !== "not-utf8.parquet")
    .map((name) => name.replace(".parquet", ""));

  it.each(names)("%s: rows, in order and by index", async (name) => {
    const rows = expected[name.split("-")[0]!]!;
    const data = parquet(fixture(name));
    expect(await data.length()).toBe(rows.length);
    const read = await all(data);
    expect(read.map((row) => spelled(row.value))).toEqual(rows);
    expect(read.map(({ index, place }) => [index, place])).toEqual(
      rows.map((_, index) => [index, { file: fixture(name), row: index + 1 }]),
    );
    for (const index of [...rows.keys()].reverse()) {
      expect(spelled(await data.at(index))).toEqual(rows[index]);
      expect((await data.row(index)).index).toBe(index);
    }
    await expect(data.at(rows.length)).rejects.toMatchObject({ code: "ZA_DATA_INDEX" });
    await data.close();
    if (rows.length > 0) expect(spelled(await data.at(0))).toEqual(rows[0]);
    await data.close();
  });

  it("rows can be asked for all at once", async () => {
    const data = parquet(fixture("crossing-v1"));
    const rows = await Promise.all(expected.crossing!.map((_, index) => data.at((index * 7) % 12)));
    expect(rows).toEqual(expected.crossing!.map((_, index) => expected.crossing![(index * 7) % 12]));
    await data.close();
  });

  it("a field called __proto__ is a field", async () => {
    const row = (await parquet(fixture("deep-v1")).at(0)) as object;
    expect(Object.getOwnPropertyDescriptor(row, "__proto__")?.value).toBe("own");
    expect(Object.getPrototypeOf(row)).toBe(Object.prototype);
  });

  it("text that is not UTF-8 is a bad row with its field, not a replaced character", async () => {
    const [first, second, third] = await all(parquet(fixture("not-utf8")));
    expect(first!.value).toEqual({ id: 1, messages: [{ content: "fine", role: "user" }] });
    expect(second!.error).toMatchObject({
      code: "ZA_DATA_ENCODING",
      place: { file: fixture("not-utf8"), row: 2, field: "messages[1].content" },
    });
    expect(third!.value).toEqual({ id: 3, messages: [] });
    await expect(parquet(fixture("not-utf8")).at(1)).rejects.toMatchObject({ code: "ZA_DATA_ENCODING" });
  });
});

describe("damaged and foreign files", () => {
  const codeOf = (path: string) =>
    parquet(path)
      .length()
      .then(
        () => "read",
        (error) => error.code,
      );

  it("says what is no Parquet file, cut off, or encrypted", async () => {
    const file = (content: string | Buffer) => {
      const path = join(scratch, `foreign-${Math.random()}.parquet`);
      writeFileSync(path, content);
      return path;
    };
    expect(await codeOf(file(""))).toBe("ZA_DATA_PARQUET");
    expect(await codeOf(file('{"a":1}\n'))).toBe("ZA_DATA_PARQUET");
    const pointer = file("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n");
    await expect(parquet(pointer).length()).rejects.toMatchObject({
      code: "ZA_DATA_PARQUET",
      place: { file: pointer },
      remedy: expect.stringContaining("LFS"),
    });
    expect(await codeOf(file("PAR1"))).toBe("ZA_DATA_TRUNCATED");
    expect(await codeOf(file("PARE....PARE"))).toBe("ZA_DATA_PARQUET_FEATURE");
    expect(await codeOf(join(scratch, "missing.parquet"))).toBe("ZA_DATA_FILE");
    expect(await codeOf(scratch)).toBe("ZA_DATA_FILE");
    const whole = readFileSync(fixture("chats-zstd-v1"));
    for (const length of [5, 12, 100, whole.length - 5, whole.length - 1]) {
      expect(await codeOf(file(whole.subarray(0, length))), `${length} bytes`).toBe("ZA_DATA_TRUNCATED");
    }
    // The end of another file: the footer is whole, the data are not.
    expect(await codeOf(file(Buffer.concat([whole.subarray(0, 4), whole.subarray(700)])))).toBe("ZA_DATA_PARQUET");
  });

  it("a damaged page costs its rows; they are named with row group and column, the others are read", async () => {
    // The second row group's pages; pyarrow writes their checksums.
    const text = Buffer.from("question 4");
    const path = altered("chats-none-v1", (bytes) => {
      const at = bytes.indexOf(text);
      expect(at).toBeGreaterThan(0);
      // The length of the first prompt of the page.
      bytes.writeUInt32LE(1_000_000, bytes.indexOf("question 3") - 4);
      return bytes;
    });
    const rows = await all(parquet(path));
    const good = expected.chats as { prompt: string }[];
    expect(rows.map((row) => row.error?.code)).toEqual([
      undefined,
      undefined,
      undefined,
      "ZA_DATA_PARQUET",
      "ZA_DATA_PARQUET",
      "ZA_DATA_PARQUET",
      undefined,
    ]);
    expect(rows[4]!.error).toMatchObject({ place: { file: path, row: 5, rowGroup: 1, field: "prompt" } });
    expect(rows[4]!.error!.message).toMatch(/parquet:5, row group 1, prompt: the page at byte \d+ cannot be read/);
    expect(rows[6]!.value).toEqual(good[6]);
    const data = parquet(path);
    expect(await data.at(6)).toEqual(good[6]);
    expect((await data.row(3)).error).toMatchObject({ code: "ZA_DATA_PARQUET", place: { row: 4, rowGroup: 1 } });
    await expect(sftDataset(parquet(path)).report()).rejects.toMatchObject({ code: "ZA_DATA_PARQUET" });
    const report = await sftDataset(parquet(path), { onBadRow: "skip" }).report();
    expect([report.kept, report.skipped]).toEqual([4, 3]);
    expect(report.skippedRows.map(({ place }) => place.row)).toEqual([4, 5, 6]);
  });

  it("a flipped bit under a checksum is found", async () => {
    const clean = readFileSync(fixture("chats-checksums"));
    let found = 0;
    for (let at = 200; at < 700; at += 50) {
      const path = altered("chats-checksums", (bytes) => {
        bytes[at]! ^= 4;
        return bytes;
      });
      const rows = await all(parquet(path));
      if (rows.some((row) => row.error)) found++;
      else
        expect(
          rows.map((row) => row.value),
          `byte ${at}`,
        ).toEqual(expected.chats);
    }
    expect(clean.length).toBeGreaterThan(700);
    expect(found).toBeGreaterThan(7);
  });

  it("never hangs, crashes or invents an untyped error on altered bytes", async () => {
    const names = [
      "chats-snappy-v1",
      "chats-zstd-v2",
      "chats-gzip-v1",
      "chats-lz4-v2",
      "deep-v1",
      "encodings",
      "crossing-v1",
    ];
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...names),
        fc.array(
          fc.tuple(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), fc.integer({ min: 0, max: 255 })),
          {
            minLength: 1,
            maxLength: 6,
          },
        ),
        async (name, changes) => {
          const path = altered(name, (bytes) => {
            for (const [where, byte] of changes) bytes[Math.floor(where * bytes.length)] = byte;
            return bytes;
          });
          const data = parquet(path);
          let count = 0;
          let thrown: { code?: string } | undefined;
          try {
            for await (const row of data.rows()) {
              count++;
              if (row.error) expect(row.error.code).toMatch(/^ZA_DATA_(PARQUET|ENCODING)/);
            }
            expect(count).toBe(await data.length());
          } catch (error) {
            thrown = error as { code?: string };
          }
          if (thrown) expect(thrown.code, String(thrown)).toMatch(/^ZA_DATA_(PARQUET|TRUNCATED)/);
          await data.close();
          rmSync(path);
        },
      ),
      { numRuns: 400 },
    );
  });
});
