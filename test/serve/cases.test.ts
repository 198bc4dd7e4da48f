/** Faults that users of comparable servers met (`../shared/cases`, area serve), through the built program. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { buildProgram, cases, present, readJson } from "../shared";
import { eventsIn, type Serving, startServing } from "./serving";

const contents = join(cases, "09-null-and-array-content");
const stops = join(cases, "10-stop-string-across-tokens");
const path = "/v1/chat/completions";

interface Completion {
  choices: { message: { content: string }; finish_reason: string }[];
  usage: { prompt_tokens: number; completion_tokens: number };
  error: { message: string; param: string };
}

function serving(folder: string): () => Serving {
  let server: Serving;
  beforeAll(async () => {
    buildProgram();
    server = await startServing(["--model", join(folder, "model")]);
  });
  afterAll(async () => {
    expect(await server.stop()).toBe(0);
  });
  return () => server;
}

describe.runIf(present(contents))("case 09", () => {
  const server = serving(contents);
  const posted = async (name: string) => {
    const response = await server().post(path, readJson(contents, `request-${name}.json`));
    return { status: response.status, body: (await response.json()) as Completion };
  };

  it("texts and lists of text parts are one and the same prompt, and nothing of them is lost", async () => {
    const {
      prompts,
      answer_of_every_accepted_request: answer,
      finish_reason,
    } = readJson<{
      prompts: Record<string, { prompt_tokens: number }>;
      answer_of_every_accepted_request: string;
      finish_reason: string;
    }>(contents, "expected.json");
    for (const [name, { prompt_tokens }] of [
      ...Object.entries(prompts),
      ["two-parts", { prompt_tokens: 0 }] as const,
    ]) {
      const { status, body } = await posted(name);
      expect(status, name).toBe(200);
      expect(body.choices, name).toMatchObject([{ message: { content: answer }, finish_reason }]);
      expect(body.usage.completion_tokens).toBe(3);
      if (prompt_tokens) expect(body.usage.prompt_tokens, name).toBe(prompt_tokens);
      // Both texts with a line end between them: one token a byte.
      else expect(body.usage.prompt_tokens).toBe("<|user|>\nHello\nthere\n<|assistant|>\n".length + 1);
    }
  });

  it("what cannot be read is refused by name, never with a 500", async () => {
    const image = await posted("image-part");
    expect([image.status, image.body.error.message]).toEqual([400, expect.stringContaining("image_url")]);
    const none = await posted("user-null");
    expect([none.status, none.body.error.param]).toEqual([400, "messages[0].content"]);
    expect(none.body.error.message).toContain("messages[0].content");
    const tool = await posted("tool-round");
    expect([tool.status, tool.body.error.message]).toEqual([400, expect.stringMatching(/role tool/)]);
    expect(readdirSync(contents).filter((name) => name.startsWith("request-"))).toHaveLength(8);
  });
});

describe.runIf(present(stops))("case 10", () => {
  const server = serving(stops);

  it("a stop text that spans tokens never leaks, and near misses lose nothing", async () => {
    const list = readJson<{ request: { stop?: string | string[] }; content: string; finish_reason: string }[]>(
      stops,
      "requests.json",
    );
    expect(list).toHaveLength(10);
    for (const { request, content, finish_reason } of list) {
      const whole = (await (await server().post(path, request)).json()) as Completion;
      expect(whole.choices, JSON.stringify(request)).toMatchObject([{ message: { content }, finish_reason }]);

      const streamed = await server().post(path, { ...request, stream: true, stream_options: { include_usage: true } });
      const events = eventsIn(await streamed.text());
      expect(events.pop()).toBe("[DONE]");
      const chunks = events.map((event) => JSON.parse(event));
      const pieces = chunks.map(({ choices: [choice] }) => choice?.delta.content ?? "");
      expect(pieces.join("")).toBe(content);
      expect(pieces.join("")).not.toContain("\ufffd");
      expect(chunks.map(({ choices: [choice] }) => choice?.finish_reason).filter(Boolean)).toEqual([finish_reason]);
      const cut = finish_reason === "stop" && content !== "ABC defghi€jk." ? [request.stop].flat().join("") : "";
      for (const character of cut.replace(/[def]/g, (each) => (content.includes(each) ? "" : each))) {
        expect(pieces.join("")).not.toContain(character);
      }
      expect(chunks.at(-1).usage).toEqual(whole.usage);
    }
  });

  it("counts the tokens that were generated, those of the stop text too", async () => {
    const tokens = async (request: object) => {
      const body = { model: "echo", messages: [{ role: "user", content: "go" }], temperature: 0, ...request };
      return ((await (await server().post(path, body)).json()) as Completion).usage.completion_tokens;
    };
    expect(await tokens({ max_tokens: 12 })).toBe(12);
    expect(await tokens({ stop: "fg" })).toBe("ABC defg".length);
  });
});
