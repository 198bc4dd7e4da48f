/** Faults that users of comparable packages met (`../shared/cases`, area client), through the public package. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { eventData } from "../ts/client/server-sent-events";
import { OpenAiChat } from "../ts/index";
import { type Server, startServer } from "./server/start.mjs";
import { cases, present, readJson } from "./shared";

const folder = join(cases, "08-sse-line-endings-and-split-bytes");

describe.runIf(present(folder))("case 08", () => {
  let server: Server;
  const bodies = () => readdirSync(folder).filter((name) => name.endsWith(".bin"));
  const expected = () =>
    readJson<{ content: string; finish_reason: string; model: string; usage: Record<string, number> }>(
      folder,
      "expected.json",
    );
  beforeAll(async () => {
    server = await startServer();
  });
  afterAll(() => server.stop());

  /** The answer through HTTP, the body written in pieces that end at `cuts`. */
  async function answer(bytes: Buffer, cuts: readonly number[]) {
    await server.script([{ fault: "raw", base64: bytes.toString("base64"), cuts }]);
    const pieces: string[] = [];
    const model = new OpenAiChat({ model: "judge", baseUrl: server.url, stream: true });
    const response = await model.complete({
      messages: [{ role: "user", content: "?" }],
      sampling: { maxTokens: 64 },
      onToken: (piece) => pieces.push(piece),
    });
    expect(pieces.join("")).toBe(response.text);
    return response;
  }

  it("each body, whole, byte by byte and in two pieces, gives the answer", async () => {
    const { content, finish_reason, model, usage } = expected();
    for (const name of bodies()) {
      const bytes = readFileSync(join(folder, name));
      const everywhere = Array.from({ length: bytes.length - 1 }, (_, i) => i + 1);
      // Over HTTP every 40th place; all of them below.
      const ways = [[], everywhere, ...everywhere.filter((at) => at % 40 === 0).map((at) => [at])];
      for (const cuts of ways) {
        const found = await answer(bytes, cuts);
        expect(found.text, name).toBe(content);
        expect(found.text).not.toContain("\ufffd");
        expect(found.finishReason).toBe(finish_reason);
        expect(found.model).toBe(model);
        expect(found.usage).toEqual({ promptTokens: usage.prompt_tokens, completionTokens: usage.completion_tokens });
      }
    }
  });

  it("wherever a body is cut in two, the events are the same, and none comes twice", async () => {
    let whole: string[] | undefined;
    for (const name of bodies()) {
      const bytes = readFileSync(join(folder, name));
      whole ??= (await arrivals([bytes])).map(({ data }) => data);
      for (let cut = 0; cut <= bytes.length; cut++) {
        const found = await arrivals([bytes.subarray(0, cut), bytes.subarray(cut)]);
        expect(
          found.map(({ data }) => data),
          `${name} cut at ${cut}`,
        ).toEqual(whole);
      }
    }
  });

  it("byte by byte, an event comes with the byte that completes its blank line, for a CR at most with the next", async () => {
    for (const name of bodies()) {
      const bytes = readFileSync(join(folder, name));
      const found = await arrivals(Array.from(bytes, (_, i) => bytes.subarray(i, i + 1)));
      expect(
        found.map(({ at }) => at),
        name,
      ).toEqual(blankLines(bytes));
    }
  });
});

/** The events of a body in pieces, and the piece that each came with. */
async function arrivals(pieces: readonly Uint8Array[]): Promise<{ data: string; at: number }[]> {
  const found: { data: string; at: number }[] = [];
  let at = -1;
  async function* body() {
    for (const piece of pieces) {
      at++;
      yield piece;
    }
  }
  for await (const data of eventData(body())) found.push({ data, at });
  return found;
}

/** Places of the bytes that complete the blank line after each event. */
function blankLines(bytes: Uint8Array): number[] {
  const places: number[] = [];
  let empty = true;
  let pending = false;
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at];
    // The LF of a CRLF ends nothing.
    if (byte === 0x0a && at > 0 && bytes[at - 1] === 0x0d) continue;
    if (byte === 0x0a || byte === 0x0d) {
      if (empty && pending) {
        places.push(at);
        pending = false;
      }
      empty = true;
    } else {
      empty = false;
      pending = true;
    }
  }
  return places;
}
