import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { overlapTexts } from "./overlap";

describe("texts to keep out", () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "zephyr-pairs-"));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  it("reads texts to keep out: CSV, JSONL, text, a named column", async () => {
    const at = (name: string, content: string) => {
      writeFileSync(join(folder, name), content);
      return join(folder, name);
    };
    const csv = at("qa.csv", 'Type,Question,Best Answer\r\nA,"Is it ""so"", then?",yes\r\nB,Why,"because,\nof it"\r\n');
    expect(await overlapTexts(csv)).toEqual({ name: "qa.csv", texts: ['Is it "so", then?', "Why"] });
    expect((await overlapTexts(`${csv}#Best Answer`)).texts).toEqual(["yes", "because,\nof it"]);
    const jsonl = at(
      "code.jsonl",
      `${JSON.stringify({ task_id: 1, prompt: "def f():" })}\n${JSON.stringify({ task_id: 2, prompt: "def g():" })}\n`,
    );
    expect((await overlapTexts(jsonl)).texts).toEqual(["def f():", "def g():"]);
    const turns = at(
      "bench.jsonl",
      `${JSON.stringify({ turns: ["a", "b"] })}\n${JSON.stringify({
        messages: [
          { role: "user", content: "c" },
          { role: "assistant", content: "d" },
        ],
      })}\n`,
    );
    expect((await overlapTexts(turns)).texts).toEqual(["a", "b", "c"]);
    expect((await overlapTexts(at("plain.txt", "one\n\ntwo\n"))).texts).toEqual(["one", "two"]);
    await expect(overlapTexts(at("odd.jsonl", '{"x": 1}\n'))).rejects.toMatchObject({
      code: "ZA_DATA_FORMAT",
      remedy: expect.stringContaining("#column"),
    });
    await expect(overlapTexts(join(folder, "none.csv"))).rejects.toMatchObject({
      place: { file: join(folder, "none.csv") },
    });
  });
});
