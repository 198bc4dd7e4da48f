import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { Tokenizer } from "../model/tokenizer";
import { spelledInBytes } from "./token-logprobs";

const file = fileURLToPath(new URL("../../recipes/demo/base/tokenizer.json", import.meta.url));

it("bytes of tokens joined are the text's, in the middle of characters too", () => {
  const tokenizer = Tokenizer.fromFiles({ tokenizer: readFileSync(file) });
  for (const text of ["a 🦊 b", "🦊🦙é中", "\uFFFDx", "plain"]) {
    const ids = tokenizer.encode(text);
    const tokens = Array.from(ids, (id, at) => spelledInBytes(tokenizer, ids[at - 1], id));
    expect(tokens.flatMap(({ bytes }) => bytes)).toEqual([...Buffer.from(text)]);
    for (const { token, bytes } of tokens) expect(token).toBe(Buffer.from(bytes!).toString());
  }
  // The fox is more than two tokens here, so that one lies in its middle.
  expect(tokenizer.encode("🦊").length).toBeGreaterThan(2);
});
