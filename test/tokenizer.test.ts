/** The Mistral tokenizer through the public API: one by one and many at once, as SentencePiece encodes. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { Tokenizer } from "../ts/index";
import { data, present, readJson } from "./shared";

const folder = join(data, "tokenizer");

describe.runIf(present(folder))("Mistral's tokenizer", () => {
  const tokenizer = Tokenizer.fromFiles({ tokenizer: readFileSync(join(folder, "tokenizer.json")) });
  const golden = readJson<unknown>(folder, "golden_ids.json");
  const texts = JSON.stringify(golden)
    .match(/"(?:[^"\\]|\\.)*"/g)!
    .map((text) => JSON.parse(text) as string);

  it("gives the same ids for many texts at once, however often they come", async () => {
    const many = [...texts, ...texts, "", "▁ ▁▁x▁", "a\u00a0b  c\n\n d", "🦙".repeat(50), "</s> is text"];
    const together = await tokenizer.encodeBatch(many);
    const alone = many.map((text) => tokenizer.encode(text));
    expect(together.map((ids) => Array.from(ids))).toEqual(alone.map((ids) => Array.from(ids)));
    const [parsed] = await tokenizer.encodeBatch(["a</s>"], { specials: "parse", addSpecialTokens: true });
    expect(Array.from(parsed!)).toEqual(
      Array.from(tokenizer.encode("a</s>", { specials: "parse", addSpecialTokens: true })),
    );
    expect(parsed!.at(-1)).toBe(2);
    expect(await tokenizer.encodeBatch([])).toEqual([]);
  });

  it("takes a text word by word as it would take it whole", () => {
    // A fresh tokenizer has seen no word yet.
    const fresh = () => Tokenizer.fromFiles({ tokenizer: readFileSync(join(folder, "tokenizer.json")) });
    const text = texts.join(" ");
    const first = fresh().encode(text);
    expect(Array.from(tokenizer.encode(text))).toEqual(Array.from(first));
    expect(tokenizer.decode(first)).toBe(text);
  });
});
