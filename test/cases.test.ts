/** Faults that users of comparable packages met (`../shared/cases`, areas text, data and wasm), through the public package. */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { dataset, type Message, Mistral, sftDataset, Tokenizer } from "../ts/index";
import { cases, present, readJson, readJsonl } from "./shared";

const at = (...path: string[]) => join(cases, ...path);
const when = (folder: string) => describe.runIf(present(at(folder)));

function tokenizerFrom(folder: string, template?: string): Tokenizer {
  return Tokenizer.fromFiles({
    tokenizer: readFileSync(join(folder, "tokenizer.json")),
    config: readFileSync(join(folder, "tokenizer_config.json"), "utf8"),
    ...(template === undefined ? {} : { template }),
  });
}

when("01-tojson-in-chat-template")("case 01", () => {
  it("tojson writes what Python's json.dumps writes", () => {
    const folder = at("01-tojson-in-chat-template");
    const template = readFileSync(join(folder, "template.jinja"), "utf8");
    const tokenizer = tokenizerFrom(at("02-answer-repeats-the-question", "tokenizer"), template);
    const rendered = tokenizer.render(readJson<Message[]>(folder, "messages.json"));
    expect(rendered).toBe(readFileSync(join(folder, "expected.txt"), "utf8"));
  });
});

when("02-answer-repeats-the-question")("case 02", () => {
  it("an answer that repeats the question is masked by place", () => {
    const folder = at("02-answer-repeats-the-question");
    const tokenizer = tokenizerFrom(join(folder, "tokenizer"));
    const rows = readJsonl<{ messages: Message[] }>(folder, "rows.jsonl");
    const expected = readJson<{ ids: number[]; supervised_positions: number[] }[]>(folder, "expected.json");
    for (const [index, { ids, supervised_positions }] of expected.entries()) {
      const encoded = tokenizer.encodeChat(rows[index]!.messages);
      expect(Array.from(encoded.ids)).toEqual(ids);
      const supervised = Array.from(encoded.supervised).flatMap((flag, position) => (flag ? [position] : []));
      expect(supervised).toEqual(supervised_positions);
    }
  });
});

when("03-byte-fallback-streaming")("case 03", () => {
  it("byte-fallback tokens become characters", () => {
    const folder = at("03-byte-fallback-streaming");
    const tokenizer = Tokenizer.fromFiles({ tokenizer: readFileSync(join(folder, "tokenizer.json")) });
    const expected = readJson<{
      encode: { text: string; ids: number[]; decoded: string }[];
      decode: { ids: number[]; text: string }[];
    }>(folder, "expected.json");
    for (const { text, ids, decoded } of expected.encode) {
      expect(Array.from(tokenizer.encode(text))).toEqual(ids);
      expect(tokenizer.decode(ids)).toBe(decoded);
    }
    for (const { ids, text } of expected.decode) expect(tokenizer.decode(ids)).toBe(text);
  });
});

when("04-parquet-null-struct-members")("case 04", () => {
  const folder = at("04-parquet-null-struct-members");

  it.each(["snappy-v1", "zstd-v2"])("%s: nulls stay null, 64-bit integers stay what they are", async (name) => {
    const file = join(folder, `rows-${name}.parquet`);
    const { rows } = JSON.parse(
      // JSON.parse would round the integer that must not be rounded.
      readFileSync(join(folder, "expected.json"), "utf8").replace(/\b9007199254740993\b/, '"9007199254740993"'),
    ) as { rows: unknown[] };
    const data = dataset(file);
    expect(await data.length()).toBe(5);
    const read: unknown[] = [];
    for await (const row of data) read.push(row);
    expect(JSON.parse(JSON.stringify(read))).toEqual(rows);
    expect(Object.keys(read[1] as object)).toEqual(Object.keys(rows[1] as object));
    for (const index of [4, 0, 3, 1, 2]) expect(await data.at(index)).toEqual(rows[index]);
    await data.close();

    const refused: [number, string][] = [
      [2, "messages[1].content"],
      [3, "messages"],
      [4, "messages"],
      [5, "messages[0]"],
    ];
    const report = await sftDataset(file, { onBadRow: "skip" }).report();
    expect([report.rows, report.kept, report.skipped]).toEqual([5, 1, 4]);
    expect(report.skippedRows.map(({ place }) => [place.file, place.row, place.field])).toEqual(
      refused.map(([row, field]) => [file, row, field]),
    );
    await expect(sftDataset(file).report()).rejects.toMatchObject({
      place: { file, row: 2, field: "messages[1].content" },
    });
  });
});

when("05-jsonl-unicode-line-separators")("case 05", () => {
  it("only LF ends a line", async () => {
    type Row = { messages: Message[] };
    const rows = dataset(at("05-jsonl-unicode-line-separators", "rows.jsonl"));
    expect(await rows.length()).toBe(3);
    expect(((await rows.at(2)) as Row).messages.length).toBeGreaterThan(0);
    const { messages } = (await rows.at(0)) as Row;
    expect(messages[0]!.content).toBe("One\u2028two");
    expect(messages[1]!.content).toBe("a\u2029b");
    const hash = createHash("sha256").update(messages[0]!.content).digest("hex");
    expect(hash).toBe("df3b46847af58ba361ec391d79abf73d825bf1c50be9cbc02af88af07249bdf8");
    expect(((await rows.at(1)) as Row).messages[0]!.content).toBe("NEL\u0085here");
    const inOrder: unknown[] = [];
    for await (const row of rows) inOrder.push(row);
    expect(inOrder).toEqual([await rows.at(0), await rows.at(1), await rows.at(2)]);
    expect(await sftDataset(rows).length()).toBe(3);
    await rows.close();
  });
});

when("09-null-and-array-content")("case 09", () => {
  const folder = at("09-null-and-array-content");

  // What a server makes of null and of arrays belongs to the server; here: the prompts and the answer.
  it("string contents give the listed prompts and the answer", async () => {
    const model = await Mistral.fromPretrained(join(folder, "model"));
    const expected = readJson<{
      answer_of_every_accepted_request: string;
      finish_reason: string;
      prompts: Record<string, { prompt: string; prompt_tokens: number }>;
    }>(folder, "expected.json");
    for (const name of ["string", "assistant-string"]) {
      const request = readJson<{ messages: Message[]; max_tokens: number }>(folder, `request-${name}.json`);
      const { prompt, prompt_tokens } = expected.prompts[name]!;
      expect(model.tokenizer.render(request.messages, { addGenerationPrompt: true })).toBe(prompt);
      expect(model.tokenizer.encodePrompt(request.messages).length).toBe(prompt_tokens);
      const answer = await model.generate(request.messages, { maxTokens: request.max_tokens });
      expect(answer.text).toBe(expected.answer_of_every_accepted_request);
      expect(answer.finishReason).toBe(expected.finish_reason);
      expect(answer.ids.length).toBe(request.max_tokens);
    }
  });

  it("as rows to train on, null and parts are refused by file, row and field, never dropped or emptied", async () => {
    const refusals: [string, string | undefined][] = [
      ["string", undefined],
      ["assistant-string", undefined],
      ["parts", "messages[0].content"],
      ["assistant-parts", "messages[1].content"],
      ["two-parts", "messages[0].content"],
      ["image-part", "messages[0].content"],
      ["user-null", "messages[0].content"],
      ["tool-round", "messages[1].content"],
    ];
    const rows = refusals.map(([name]) => {
      const { messages } = readJson<{ messages: object[] }>(folder, `request-${name}.json`);
      return { messages: [...messages, { role: "assistant", content: "ABC" }] };
    });
    const report = await sftDataset(rows, { onBadRow: "skip" }).report();
    expect([report.kept, report.skipped]).toEqual([2, 6]);
    const found = new Map(report.skippedRows.map(({ place, code }) => [place.element, [code, place.field]]));
    for (const [index, [name, field]] of refusals.entries()) {
      expect(found.get(index + 1), name).toEqual(field && ["ZA_DATA_ROW", field]);
    }
  });
});

when("10-stop-string-across-tokens")("case 10", () => {
  const folder = at("10-stop-string-across-tokens");
  interface Request {
    request: { messages: Message[]; stop?: string | string[]; max_tokens?: number };
    content: string;
    finish_reason: string;
  }

  it("a stop text that spans tokens never leaks, and near misses lose nothing", async () => {
    const model = await Mistral.fromPretrained(join(folder, "model"));
    for (const { request, content, finish_reason } of readJson<Request[]>(folder, "requests.json")) {
      const pieces: string[] = [];
      const stop = request.stop === undefined ? [] : [request.stop].flat();
      const { text, finishReason } = await model.generate(request.messages, {
        stop,
        maxTokens: request.max_tokens ?? 256,
        onToken: (piece) => pieces.push(piece),
      });
      // A half-finished character at the very end may show as one replacement character.
      expect(text.replace(/\ufffd+$/, ""), JSON.stringify(request)).toBe(content);
      expect(finishReason, JSON.stringify(request)).toBe(finish_reason);
      await new Promise((resolve) => setImmediate(resolve));
      expect(pieces.join("")).toBe(text);
    }
  });
});

when("17-merges-as-pairs")("case 17", () => {
  const folder = at("17-merges-as-pairs");
  const load = (name: string) =>
    Tokenizer.fromFiles({ tokenizer: readFileSync(join(folder, `tokenizer-${name}.json`)) });

  it("merges of every spelling give the same ids; bad ones are refused by name", () => {
    const { texts, ids } = readJson<{ texts: string[]; ids: Record<string, number[][]> }>(folder, "expected.json");
    for (const [name, lists] of Object.entries(ids)) {
      const tokenizer = load(name);
      expect(
        texts.map((text) => Array.from(tokenizer.encode(text))),
        name,
      ).toEqual(lists);
    }
    expect(() => load("bad-merge-out-of-vocabulary")).toThrow(/dw/);
    expect(() => load("bad-merge-of-three")).toThrow(/merge/);
    expect(load("pairs").encode("hello world").length).toBe(2);
  });
});
