/** What generating is given, as plain JavaScript may give it: taken, or refused by a typed error with field and remedy. */
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, it } from "vitest";
import { Mistral } from "../ts/index";

const base = fileURLToPath(new URL("../recipes/demo/base", import.meta.url));
const say = (content: string) => [{ role: "user" as const, content }];

let model: Mistral;
beforeAll(async () => {
  model = await Mistral.fromPretrained(base);
});

describe("texts", () => {
  const half = "a\ud83d b";
  it.each([
    ["a conversation", () => model.generate(say(half)), "messages[0].content"],
    ["a batch", () => model.generateBatch([say("a"), say(half)]), "messages[0].content"],
    ["a text to continue", () => model.generate(half), "prompt"],
    ["a score", () => model.score([...say("a"), { role: "assistant", content: half }]), "messages[1].content"],
    ["a pair", async () => model.tokenizer.encodePairText({ prompt: "a", chosen: half, rejected: "b" }), "chosen"],
  ])("with half a character are refused in %s", async (_, work, field) => {
    const remedy = expect.stringContaining("whole characters");
    await expect(work()).rejects.toMatchObject({ code: "ZA_MESSAGE_CONTENT", place: { field }, remedy });
  });
});
