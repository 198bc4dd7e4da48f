import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { Mistral } from "../model/mistral";
import { packageRoot } from "../native/load";
import type { ChatModel, ChatRequest } from "./chat-model";
import { mistralChat } from "./mistral-chat";

let model: Mistral;
let chat: ChatModel;

beforeAll(async () => {
  model = (await Mistral.fromPretrained(join(packageRoot(), "recipes", "demo", "base"))).withTemplate("zephyr");
  chat = await mistralChat(model, { name: "demo-base" });
});

const request = (content: string, more: Partial<ChatRequest["sampling"]> = {}): ChatRequest => ({
  messages: [{ role: "user", content }],
  sampling: { maxTokens: 12, temperature: 0, ...more },
});

describe("our own model as a ChatModel", () => {
  it("answers one and many as generate does, each with its own seed", async () => {
    const questions = ["say two red hats.", "say nine.", "name a cat.", "say ten suns."];
    const together = await Promise.all(questions.map((question) => chat.complete(request(question))));
    for (const [i, { text, usage, finishReason }] of together.entries()) {
      const alone = await model.generate(request(questions[i]!).messages, { maxTokens: 12, temperature: 0 });
      expect(text).toBe(alone.text);
      expect(finishReason).toBe(alone.finishReason);
      const prompt = model.tokenizer.encodePrompt(request(questions[i]!).messages).length;
      expect(usage).toEqual({ promptTokens: prompt, completionTokens: alone.ids.length });
    }
  });

  it("draws differ, and a repeated draw is the same", async () => {
    const draw = (sampleIndex: number) =>
      chat.complete({ ...request("say something.", { temperature: 1.5 }), sampleIndex });
    const first = await Promise.all([0, 1, 2, 3].map(draw));
    expect(new Set(first.map(({ text }) => text)).size).toBeGreaterThan(1);
    const again = await Promise.all([3, 2, 1, 0].map(draw));
    expect(again.toReversed().map(({ text }) => text)).toEqual(first.map(({ text }) => text));
  });

  it("is honest: no log-probs, no schema, free, and known by its weights", async () => {
    expect(chat.capabilities).toEqual({ topLogprobs: 0, schema: false, system: true });
    expect(chat.facts).toMatchObject({ input: 0, output: 0 });
    const other = await mistralChat(await Mistral.random(model.config, model.tokenizer, 1), { name: "demo-base" });
    expect(other.endpoint).not.toBe(chat.endpoint);
    const without = model.withTemplate(
      "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}",
    );
    expect((await mistralChat(without)).capabilities.system).toBe(false);
  });

  it("streams, stops at a text, and leaves on a signal without holding up the others", async () => {
    const pieces: string[] = [];
    const { text } = await chat.complete({ ...request("say two."), onToken: (piece) => pieces.push(piece) });
    expect(pieces.join("")).toBe(text);
    const cut = text.slice(2, 4);
    expect((await chat.complete(request("say two.", { stop: [cut] }))).text).toBe(text.slice(0, text.indexOf(cut)));
    const leave = new AbortController();
    const gone = chat.complete({ ...request("say seven.", { maxTokens: 400 }), signal: leave.signal });
    const stays = chat.complete(request("say seven.", { maxTokens: 400 }));
    leave.abort();
    await expect(gone).rejects.toMatchObject({ code: "ZA_ABORTED" });
    expect((await stays).text.length).toBeGreaterThan(0);
  });

  it("one that cannot be answered does not spoil its batch", async () => {
    const long = request("word ".repeat(5000));
    const ended = await Promise.allSettled([chat.complete(long), chat.complete(request("say two."))]);
    expect(ended[0]).toMatchObject({ status: "rejected", reason: { code: "ZA_CONTEXT_LENGTH" } });
    expect(ended[1]!.status).toBe("fulfilled");
  });
});
