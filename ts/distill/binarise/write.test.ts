import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { rated } from "../../../test/rated";
import { readJsonl } from "../../../test/shared";
import { dataset, fromArray, toPair, toSft } from "../../data";
import { binarise } from "./binarise";
import { pairFiles, writePairs } from "./write";

describe("files of pairs", () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "zephyr-pairs-"));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  it("writes ultrafeedback_binarized's splits, which our readers take", async () => {
    const rows = Array.from({ length: 60 }, (_, n) =>
      rated(`question ${n}`, [
        [9, 5],
        [5, 3],
      ]),
    );
    writeFileSync(join(folder, "raw.jsonl"), rows.map((each) => `${JSON.stringify(each)}\n`).join(""));
    for (let time = 0; time < 2; time++) {
      await writePairs(binarise(dataset(join(folder, "raw.jsonl")), { testShare: 0.5 }), folder);
    }
    expect(readdirSync(folder).sort()).toEqual([...pairFiles.map((name) => `${name}.jsonl`), "raw.jsonl"].sort());
    const read = Object.fromEntries(
      pairFiles.map((name) => [name, readJsonl<{ messages: unknown[] }>(folder, `${name}.jsonl`)]),
    );
    expect(read.train_prefs!.length + read.test_prefs!.length).toBe(60);
    expect(read.train_sft).toEqual(read.train_prefs);
    expect(read.test_sft!.length).toBeGreaterThan(0);
    expect(read.test_sft!.length).toBeLessThan(read.test_prefs!.length);
    expect(read.test_gen!.length).toBe(read.test_sft!.length);
    for (const { messages } of read.train_gen!) expect(messages).toHaveLength(1);
    for (const each of read.train_prefs!) expect(toPair(each, {}).kind).toBe("chat");
    for (const each of read.train_sft!) expect(toSft(each, {}).kind).toBe("chat");
  });

  it("leaves the earlier files when a row is bad", async () => {
    await writePairs(
      binarise(
        fromArray([
          rated("a", [
            [9, 5],
            [5, 3],
          ]),
        ]),
      ),
      folder,
    );
    const before = readFileSync(join(folder, "train_prefs.jsonl"), "utf8");
    await expect(
      writePairs(
        binarise(
          fromArray([
            rated("b", [
              [9, 5],
              [5, 3],
            ]),
            { x: 1 },
          ]),
        ),
        folder,
      ),
    ).rejects.toThrow();
    expect(readFileSync(join(folder, "train_prefs.jsonl"), "utf8")).toBe(before);
    expect(readdirSync(folder)).toHaveLength(6);
  });
});
