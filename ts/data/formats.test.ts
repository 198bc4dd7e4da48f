import { describe, expect, it } from "vitest";
import { DataError } from "../errors";
import { type ConvertCounts, describeFormat, recogniseFormat, toPair, toSft, toUnpaired } from "./formats";

const place = { file: "rows.jsonl", row: 7 };
const user = (content: string) => ({ role: "user", content });
const assistant = (content: string) => ({ role: "assistant", content });
const system = (content: string) => ({ role: "system", content });

function refusal(work: () => unknown): DataError {
  try {
    work();
  } catch (error) {
    expect(error).toBeInstanceOf(DataError);
    return error as DataError;
  }
  throw new Error("the row was accepted");
}

describe("supervised rows", () => {
  it("reads messages, with and without a system message", () => {
    const messages = [system("be brief"), user("hi"), assistant("hey"), user("and?")];
    expect(toSft({ messages }, place)).toEqual({ kind: "chat", messages, supervisedFrom: 0 });
  });

  it("reads ultrachat_200k rows", () => {
    const row = { prompt: "hi", prompt_id: "0f", messages: [user("hi"), assistant("hey")] };
    expect(toSft(row, place)).toEqual({ kind: "chat", messages: row.messages, supervisedFrom: 0 });
  });

  it("reads UltraChat's own rows", () => {
    const read = toSft({ id: "0", data: ["hi", "hey", "and?", "so."] }, place);
    const messages = [user("hi"), assistant("hey"), user("and?"), assistant("so.")];
    expect(read).toEqual({ kind: "chat", messages, supervisedFrom: 0 });
    const { code, place: where } = refusal(() => toSft({ id: "0", data: ["hi", null] }, place));
    expect([code, where?.field]).toEqual(["ZA_DATA_ROW", "data[1]"]);
    expect(refusal(() => toSft({ id: "0", data: ["hi", ""] }, place)).code).toBe("ZA_EMPTY_ANSWER");
    expect(refusal(() => toSft({ id: "0", data: "hi" }, place)).place?.field).toBe("data");
  });

  it("reads ShareGPT's from/value with its speakers", () => {
    const conversations = [
      { from: "system", value: "s" },
      { from: "human", value: "a" },
      { from: "gpt", value: "b" },
      { from: "user", value: "c" },
      { from: "chatgpt", value: "d" },
    ];
    expect(toSft({ id: "x", conversations }, place)).toEqual({
      kind: "chat",
      messages: [system("s"), user("a"), assistant("b"), user("c"), assistant("d")],
      supervisedFrom: 0,
    });
  });

  it("reads text and both kinds of prompt-completion", () => {
    expect(toSft({ text: "abc" }, place)).toEqual({ kind: "text", text: "abc" });
    expect(toSft({ prompt: "a", completion: "b" }, place)).toEqual({
      kind: "prompt-completion",
      prompt: "a",
      completion: "b",
    });
    expect(toSft({ prompt: [user("a"), assistant("x"), user("b")], completion: [assistant("c")] }, place)).toEqual({
      kind: "chat",
      messages: [user("a"), assistant("x"), user("b"), assistant("c")],
      supervisedFrom: 3,
    });
  });

  it.each([
    [
      "content null",
      { messages: [user("a"), { role: "assistant", content: null }] },
      "ZA_DATA_ROW",
      "messages[1].content",
    ],
    ["content missing", { messages: [{ role: "user" }] }, "ZA_DATA_ROW", "messages[0].content"],
    ["content parts", { messages: [{ role: "user", content: [] }] }, "ZA_DATA_ROW", "messages[0].content"],
    ["role missing", { messages: [{ content: "a" }] }, "ZA_DATA_ROW", "messages[0].role"],
    ["role unknown", { messages: [{ role: "tool", content: "a" }] }, "ZA_ROLE_ORDER", "messages[0].role"],
    ["two users", { messages: [user("a"), user("b"), assistant("c")] }, "ZA_ROLE_ORDER", "messages[1].role"],
    ["two assistants", { messages: [user("a"), assistant("b"), assistant("c")] }, "ZA_ROLE_ORDER", "messages[2].role"],
    ["late system", { messages: [user("a"), system("b"), assistant("c")] }, "ZA_ROLE_ORDER", "messages[1].role"],
    [
      "leading assistant",
      { messages: [assistant("a"), user("b"), assistant("c")] },
      "ZA_ROLE_ORDER",
      "messages[0].role",
    ],
    ["empty answer", { messages: [user("a"), assistant("")] }, "ZA_EMPTY_ANSWER", "messages[1].content"],
    ["blank answer", { messages: [user("a"), assistant(" \n")] }, "ZA_EMPTY_ANSWER", "messages[1].content"],
    ["no answer", { messages: [user("a")] }, "ZA_DATA_NO_ANSWER", "messages"],
    ["no messages", { messages: [] }, "ZA_DATA_ROW", "messages"],
    ["messages not a list", { messages: "a" }, "ZA_DATA_ROW", "messages"],
    ["message not an object", { messages: ["a"] }, "ZA_DATA_ROW", "messages[0]"],
    [
      "unknown speaker",
      { conversations: [{ from: "toString", value: "a" }] },
      "ZA_ROLE_ORDER",
      "conversations[0].from",
    ],
    ["value missing", { conversations: [{ from: "human" }] }, "ZA_DATA_ROW", "conversations[0].value"],
    [
      "leading gpt",
      {
        conversations: [
          { from: "gpt", value: "a" },
          { from: "human", value: "b" },
        ],
      },
      "ZA_ROLE_ORDER",
      "conversations[0].from",
    ],
    ["completion empty", { prompt: "a", completion: "" }, "ZA_EMPTY_ANSWER", "completion"],
    ["completion null", { prompt: "a", completion: null }, "ZA_DATA_ROW", "completion"],
    [
      "prompt ends with the assistant",
      { prompt: [user("a"), assistant("b")], completion: [assistant("c")] },
      "ZA_ROLE_ORDER",
      "prompt[1].role",
    ],
    ["text empty", { text: "" }, "ZA_DATA_ROW", "text"],
    ["text a number", { text: 3 }, "ZA_DATA_ROW", "text"],
  ])("names the field: %s", (_, row, code, field) => {
    const error = refusal(() => toSft(row, place));
    expect(error.code).toBe(code);
    expect(error.place).toEqual({ ...place, field });
    expect(error.remedy).toBeTruthy();
  });

  it("cuts and counts leading assistant turns when asked to", () => {
    const counts: ConvertCounts = { droppedLeadingAssistant: 0, equalPairs: 0 };
    const options = { dropLeadingAssistant: true, counts };
    const conversations = [
      { from: "gpt", value: "left over" },
      { from: "human", value: "a" },
      { from: "gpt", value: "b" },
    ];
    expect(toSft({ conversations }, place, options)).toMatchObject({ messages: [user("a"), assistant("b")] });
    expect(counts.droppedLeadingAssistant).toBe(1);
    const error = refusal(() =>
      toSft({ messages: [assistant("x"), user("a"), user("b"), assistant("c")] }, place, options),
    );
    expect(error.place?.field).toBe("messages[2].role");
    expect(refusal(() => toSft({ messages: [assistant("x")] }, place, options)).code).toBe("ZA_DATA_NO_ANSWER");
  });
});

describe("preference rows", () => {
  const expected = { kind: "chat", prompt: [user("q")], chosen: [assistant("good")], rejected: [assistant("bad")] };

  it.each([
    ["explicit prompt", { prompt: [user("q")], chosen: [assistant("good")], rejected: [assistant("bad")] }],
    ["implicit prompt", { chosen: [user("q"), assistant("good")], rejected: [user("q"), assistant("bad")] }],
    [
      "ultrafeedback_binarized",
      {
        prompt: "q",
        prompt_id: "0f",
        messages: [user("q"), assistant("good")],
        chosen: [user("q"), assistant("good")],
        rejected: [user("q"), assistant("bad")],
        score_chosen: 8,
        score_rejected: 3,
      },
    ],
    ["a string prompt with answers", { prompt: "q", chosen: [assistant("good")], rejected: [assistant("bad")] }],
    [
      "prompt repeated in whole conversations",
      { prompt: [user("q")], chosen: [user("q"), assistant("good")], rejected: [user("q"), assistant("bad")] },
    ],
    [
      "from/value in all columns",
      {
        prompt: [{ from: "human", value: "q" }],
        chosen: [{ from: "gpt", value: "good" }],
        rejected: [{ from: "gpt", value: "bad" }],
      },
    ],
    [
      "from/value conversation with single answers",
      {
        conversations: [{ from: "human", value: "q" }],
        chosen: { from: "gpt", value: "good" },
        rejected: { from: "gpt", value: "bad" },
      },
    ],
  ])("reads %s", (_, row) => {
    expect(toPair(row, place)).toEqual(expected);
  });

  it("splits whole conversations at the first answer that differs", () => {
    const start = [system("s"), user("a"), assistant("b"), user("c")];
    expect(
      toPair(
        { chosen: [...start, assistant("x")], rejected: [...start, assistant("y"), user("z"), assistant("w")] },
        place,
      ),
    ).toEqual({
      kind: "chat",
      prompt: start,
      chosen: [assistant("x")],
      rejected: [assistant("y"), user("z"), assistant("w")],
    });
  });

  it("reads strings, with the prompt given or common (as TRL: the space belongs to the answer)", () => {
    expect(toPair({ prompt: "q", chosen: "a", rejected: "b" }, place)).toEqual({
      kind: "text",
      prompt: "q",
      chosen: "a",
      rejected: "b",
    });
    expect(toPair({ chosen: "The sky is blue.", rejected: "The sky is green." }, place)).toEqual({
      kind: "text",
      prompt: "The sky is",
      chosen: " blue.",
      rejected: " green.",
    });
    const pair = toPair({ chosen: "x\u{1F600}", rejected: "x\u{1F601}" }, place);
    expect(pair).toMatchObject({ prompt: "x", chosen: "\u{1F600}" });
  });

  it.each([
    ["rejected missing in a later row", { prompt: [user("q")], chosen: [assistant("a")] }, "ZA_DATA_ROW", "rejected"],
    [
      "content null",
      { prompt: "q", chosen: [assistant("a")], rejected: [{ role: "assistant", content: null }] },
      "ZA_DATA_ROW",
      "rejected[0].content",
    ],
    [
      "empty answer",
      { prompt: "q", chosen: [assistant("")], rejected: [assistant("a")] },
      "ZA_EMPTY_ANSWER",
      "chosen[0].content",
    ],
    ["empty text answer", { prompt: "q", chosen: "a", rejected: "" }, "ZA_EMPTY_ANSWER", "rejected"],
    [
      "prompt without a user",
      { prompt: [system("s")], chosen: [assistant("a")], rejected: [assistant("b")] },
      "ZA_ROLE_ORDER",
      "prompt[0].role",
    ],
    ["prompt null", { prompt: null, chosen: [assistant("a")], rejected: [assistant("b")] }, "ZA_DATA_ROW", "prompt"],
    [
      "answer of the user",
      { prompt: [user("q")], chosen: [user("a")], rejected: [user("b")] },
      "ZA_DATA_ROW",
      "chosen",
    ],
    [
      "other prompts",
      { chosen: [user("q"), assistant("a")], rejected: [user("r"), assistant("b")] },
      "ZA_DATA_ROW",
      "rejected[0]",
    ],
    [
      "part at a user turn",
      {
        chosen: [user("q"), assistant("a"), user("b"), assistant("c")],
        rejected: [user("q"), assistant("a"), user("d"), assistant("c")],
      },
      "ZA_DATA_ROW",
      "rejected[2]",
    ],
    [
      "one continues the other",
      { chosen: [user("q"), assistant("a")], rejected: [user("q"), assistant("a"), user("b"), assistant("c")] },
      "ZA_DATA_ROW",
      "rejected[2]",
    ],
    ["no common text", { chosen: "a", rejected: "b" }, "ZA_DATA_ROW", "rejected"],
  ])("names the field: %s", (name, row, code, field) => {
    const format = name.startsWith("rejected missing") ? ({ format: "preference" } as const) : {};
    const error = refusal(() => toPair(row, place, format));
    expect(error.code).toBe(code);
    expect(error.place).toEqual({ ...place, field });
  });

  it("counts equal pairs, or refuses them when asked to", () => {
    const rows = [
      { prompt: [user("q")], chosen: [assistant("a")], rejected: [assistant("a")] },
      { chosen: [user("q"), assistant("a")], rejected: [user("q"), assistant("a")] },
      { prompt: "q", chosen: "a", rejected: "a" },
    ];
    const counts: ConvertCounts = { droppedLeadingAssistant: 0, equalPairs: 0 };
    for (const row of rows) {
      toPair(row, place, { counts });
      expect(refusal(() => toPair(row, place, { onEqualPair: "error" })).code).toBe("ZA_DATA_EQUAL_PAIR");
    }
    expect(counts.equalPairs).toBe(3);
  });
});

describe("recognition", () => {
  it("says how rows are read and what is not used", () => {
    expect(describeFormat(["prompt", "prompt_id", "messages"], "sft")).toBe(
      "Each row is a conversation {messages: [{role, content}]} (TRL conversational; ultrachat_200k). Not used: prompt, prompt_id.",
    );
    expect(describeFormat(["text"], "sft")).toBe("Each row is plain text {text}; every token is learnt.");
  });

  it("prefers the messages of ultrafeedback_binarized for supervised training and its pairs for preferences", () => {
    const columns = ["prompt", "prompt_id", "chosen", "rejected", "messages", "score_chosen", "score_rejected"];
    expect(recogniseFormat(columns, "sft")).toBe("messages");
    expect(recogniseFormat(columns, "pair")).toBe("preference");
  });

  it("lists what was found and what is accepted", () => {
    const error = refusal(() => toSft({ question: "a", answer: "b" }, place));
    expect(error.code).toBe("ZA_DATA_FORMAT");
    expect(error.message).toContain("question, answer");
    expect(error.remedy).toBe("Give one of {messages} | {conversations} | {prompt, completion} | {text} | {id, data}.");
  });

  it("tells rows of the other trainer", () => {
    expect(refusal(() => toPair({ messages: [] }, place)).remedy).toContain("use the SFT trainer");
    expect(refusal(() => toSft({ prompt: "", chosen: "", rejected: "" }, place)).remedy).toContain("DPO trainer");
  });

  it("refuses unpaired preferences by name", () => {
    const row = { prompt: "q", completion: "a", label: true };
    expect(refusal(() => toPair(row, place)).code).toBe("ZA_DATA_UNPAIRED");
    expect(refusal(() => toSft(row, place)).code).toBe("ZA_DATA_UNPAIRED");
  });

  it("says where unpaired preferences are taken", () => {
    const row = { prompt: "q", completion: "a", label: true };
    expect(refusal(() => toPair(row, place)).remedy).toContain("KtoTrainer");
    expect(toUnpaired(row, place)).toEqual({ kind: "text", prompt: "q", completion: "a", label: true });
  });

  it("reads single answers with a label, in every shape", () => {
    const question = [{ role: "user", content: "q" }];
    const reply = { role: "assistant", content: "a" };
    const chat = { kind: "chat", prompt: question, completion: [reply], label: false };
    expect(toUnpaired({ prompt: question, completion: [reply], label: false }, place)).toEqual(chat);
    expect(toUnpaired({ prompt: "q", completion: [reply], label: 0 }, place)).toEqual(chat);
    expect(toUnpaired({ prompt: question, completion: reply, label: false, extra: 1 }, place)).toEqual(chat);
    expect(toUnpaired({ prompt: "q", chosen: "a", rejected: "b" }, place)).toMatchObject({ chosen: "a" });
    expect(describeFormat(["prompt", "completion", "label", "id"], "unpaired")).toMatch(/Not used: id\.$/);
    for (const columns of [
      ["prompt", "chosen", "rejected"],
      ["chosen", "rejected"],
      ["instruction", "completions"],
    ]) {
      expect(describeFormat(columns, "unpaired")).toMatch(/two single answers: chosen is wanted, rejected is not\.$/);
      expect(describeFormat(columns, "pair")).not.toContain("single answers");
    }
    const field = (row: object) => refusal(() => toUnpaired(row, place)).place?.field;
    expect(field({ prompt: question, completion: [reply], label: "yes" })).toBe("label");
    expect(field({ prompt: question, completion: question, label: true })).toBe("completion[0].role");
    expect(field({ prompt: [reply], completion: [reply], label: true })).toBe("prompt[0].role");
    const dropped = toUnpaired({ prompt: [reply, ...question], completion: [reply], label: false }, place, {
      dropLeadingAssistant: true,
    });
    expect(dropped).toEqual(chat);
    expect(refusal(() => toUnpaired({ messages: [] }, place)).remedy).toContain("use the SFT trainer");
    expect(refusal(() => toUnpaired({ text: "x" }, place, { format: "text" })).code).toBe("ZA_DATA_FORMAT");
  });

  it("refuses rows that are not objects", () => {
    for (const row of [null, 1, "a", []]) expect(refusal(() => toSft(row, place)).code).toBe("ZA_DATA_ROW");
  });
});

describe("rated answers (raw UltraFeedback)", () => {
  const rated = (response: string, ratings: unknown[], rest: object = {}) => ({
    response,
    annotations: Object.fromEntries(
      ["instruction_following", "honesty", "truthfulness", "helpfulness"].map((aspect, i) => [
        aspect,
        { Rating: ratings[i], Rationale: "so" },
      ]),
    ),
    ...rest,
  });
  const row = (completions: unknown[], rest: object = {}) => ({
    source: "s",
    instruction: "ask",
    models: [],
    completions,
    ...rest,
  });

  it("the highest mean of the aspects against the lowest, whatever the overall score says", () => {
    const completions = [
      rated("middle", ["3", "3", "N/A", "3"]),
      // The published file's 10 for 1.
      rated("bad", ["1", "1", "2", "1"], { overall_score: 10 }),
      rated("good", ["5", "4", "5", "N/A"], { overall_score: 8 }),
      rated("as good", ["4", "5", "5", "N/A"], { overall_score: 9 }),
    ];
    const pair = { kind: "chat", prompt: [user("ask")], chosen: [assistant("good")], rejected: [assistant("bad")] };
    expect(toPair(row(completions), place)).toEqual(pair);
    expect(toUnpaired(row(completions), place)).toEqual(pair);
    const history = [user("before"), assistant("yes")];
    expect(toPair(row(completions, { history }), place)).toMatchObject({ prompt: [...history, user("ask")] });
    expect(recogniseFormat(["source", "instruction", "models", "completions"], "pair")).toBe("ultrafeedback");
    expect(describeFormat(["instruction", "completions"], "pair")).toMatch(/raw UltraFeedback.*highest mean/);
    expect(refusal(() => toSft(row(completions), place))).toMatchObject({
      code: "ZA_DATA_FORMAT",
      remedy: expect.stringMatching(/DPO/),
    });
  });

  it("means alone, and answers that are left out", () => {
    const completions = [
      { response: "a", "fine-grained_score": 2.5 },
      { response: "b", "fine-grained_score": 4 },
      { response: "unrated" },
      { response: " ", "fine-grained_score": 1 },
    ];
    expect(toPair(row(completions), place)).toMatchObject({ chosen: [assistant("b")], rejected: [assistant("a")] });
  });

  it.each([
    ["rated alike", row([rated("a", ["2", "4"]), rated("b", ["3", "3"])]), "completions", /rated alike \(3\)/],
    ["one rated", row([rated("a", ["2"]), rated("b", ["N/A"])]), "completions", /1 of 2 answers/],
    [
      "a ten",
      row([rated("a", ["10"]), rated("b", ["3"])]),
      "completions[0].annotations.instruction_following.Rating",
      /"10" is no rating/,
    ],
    ["no response", row([{ annotations: {} }]), "completions[0].response", /missing/],
    ["no list", row(null as never), "completions", /found null/],
    ["a text", row(["a"]), "completions[0]", /found a string/],
  ])("refuses %s", (_, value, field, problem) => {
    const error = refusal(() => toPair(value, place));
    expect(error.code).toBe("ZA_DATA_ROW");
    expect(error.place).toEqual({ ...place, field });
    expect(error.problem).toMatch(problem);
  });
});
