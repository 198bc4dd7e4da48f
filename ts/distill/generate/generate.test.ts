import { describe, expect, it } from "vitest";
import type { ChatModel, ChatRequest } from "../../client";
import { offlineModel } from "../offline";
import { promptId } from "../prompt-id";
import { endMark, userPrompt } from "../prompts/conversation";
import { type GeneratedConversation, generateConversations } from "./generate";
import type { GenerateOptions } from "./options";

const offline = { teacher: offlineModel(), truecase: false, minAnswerWords: 1 };

async function all(options: Omit<GenerateOptions, "teacher"> & { teacher?: ChatModel }) {
  const generation = generateConversations({ ...offline, ...options });
  const made: GeneratedConversation[] = [];
  for await (const each of generation) made.push(each);
  return { made, report: generation.report };
}

/** The offline teacher with another answer where `change` gives one. */
function changed(change: (request: ChatRequest, call: number) => string | undefined): ChatModel {
  const model = offlineModel();
  let calls = 0;
  return {
    name: model.name,
    capabilities: model.capabilities,
    complete: async (request) => {
      const response = await model.complete(request);
      const text = change(request, calls++);
      return text === undefined ? response : { ...response, text };
    },
  };
}

const isUserCall = ({ messages }: ChatRequest) => userPrompt.read(messages.at(-1)!.content) !== undefined;

describe("generateConversations", () => {
  it("makes rows of ultrachat_200k in three sectors, with rounds in their ranges", async () => {
    const { made, report } = await all({ conversations: 60 });
    expect(made).toHaveLength(60);
    for (const { row, sector } of made) {
      expect(Object.keys(row)).toEqual(["prompt", "prompt_id", "messages"]);
      expect(row.prompt_id).toBe(promptId(row.prompt));
      expect(row.messages[0]).toEqual({ role: "user", content: row.prompt });
      expect(row.messages.map(({ role }) => role)).toEqual(
        row.messages.map((_, i) => (i % 2 === 0 ? "user" : "assistant")),
      );
      const rounds = row.messages.length / 2;
      expect(rounds).toBeGreaterThanOrEqual(sector === "world" ? 3 : 2);
      expect(rounds).toBeLessThanOrEqual(sector === "world" ? 7 : 4);
    }
    expect(Math.min(...Object.values(report.sectors))).toBeGreaterThan(5);
    expect(new Set(made.map(({ row }) => row.prompt_id)).size).toBe(60);
    expect(Object.keys(report.personas).length).toBeGreaterThan(5);
    expect(report.conversations).toBe(60);
    const dropped = Object.values(report.dropped).reduce((sum, { count }) => sum + count, 0);
    expect(report.openings).toBe(60 + dropped);
  });

  it("gives the same rows at any concurrency, others with another seed, and begins a longer run like a shorter one", async () => {
    const rows = async (options: Omit<GenerateOptions, "teacher">) => JSON.stringify((await all(options)).made);
    const twenty = await rows({ conversations: 20, concurrency: 1 });
    expect(await rows({ conversations: 20, concurrency: 13 })).toBe(twenty);
    expect(await rows({ conversations: 20, seed: 7 })).not.toBe(twenty);
    const { made } = await all({ conversations: 33 });
    expect(JSON.stringify(made.slice(0, 20))).toBe(twenty);
  });

  it("asks the user's instruction after the history, and begins no more than is missing", async () => {
    const seen: ChatRequest[] = [];
    const { report } = await all({
      conversations: 5,
      teacher: changed((request) => {
        seen.push(request);
        return undefined;
      }),
    });
    const userCalls = seen.filter(isUserCall);
    expect(userCalls.length).toBeGreaterThan(5);
    for (const { messages } of userCalls) {
      expect(messages.at(-1)!.role).toBe("user");
      expect(messages.at(-2)!.role).toBe("assistant");
      expect(messages.some(({ role }) => role === "system")).toBe(false);
    }
    expect(report.calls.made).toBe(seen.length);
    const begun = new Set(
      seen
        .filter((request) => request.purpose === "distil converse")
        .map(({ messages }) => messages.find(({ role }) => role === "user")!.content),
    );
    const dropped = Object.values(report.dropped).reduce((sum, { count }) => sum + count, 0);
    expect(begun.size).toBeLessThanOrEqual(5 + dropped);
  });

  it("drops what the filters find, counts it with examples, and makes up for it", async () => {
    const faults: Record<string, string> = {
      "role-exchange": "How can I help you today?",
      empty: "...",
      loop: "and again and again and again and again and again",
      leak: `thanks ${endMark} bye`,
    };
    for (const [reason, text] of Object.entries(faults)) {
      let users = 0;
      const teacher = changed((request) => (isUserCall(request) && users++ % 4 === 0 ? text : undefined));
      const { made, report } = await all({ conversations: 12, teacher, concurrency: 1 });
      expect(made).toHaveLength(12);
      expect(report.dropped[reason as "loop"]!.count).toBeGreaterThan(0);
      expect(report.dropped[reason as "loop"]!.examples[0]!.length).toBeGreaterThan(0);
      for (const { row } of made) expect(row.messages.map(({ content }) => content)).not.toContain(text);
    }
    const disclaimers = changed((request, call) =>
      request.purpose === "distil converse" && !isUserCall(request) && call % 5 === 0
        ? "As an AI, I have no opinion."
        : undefined,
    );
    const { report } = await all({ conversations: 12, teacher: disclaimers });
    expect(report.dropped["ai-disclaimer"]!.count).toBeGreaterThan(0);
  });

  it("ends early when the user has got everything, but never before the fewest rounds", async () => {
    const done = changed((request) => (isUserCall(request) ? endMark : undefined));
    const sectors = { world: { rounds: [1, 9] as [number, number] }, writing: { weight: 0 }, material: { weight: 0 } };
    const { made } = await all({ conversations: 6, teacher: done, sectors });
    for (const { row } of made) expect(row.messages).toHaveLength(2);
    const tooSoon = await all({
      conversations: 3,
      teacher: done,
      sectors: { ...sectors, world: { rounds: [2, 9] } },
      topics: 1,
      subtopics: 1,
      openings: 3,
    });
    expect(tooSoon.made).toHaveLength(0);
    expect(tooSoon.report.exhausted).toBe(true);
    expect(tooSoon.report.dropped.short!.count).toBeGreaterThan(0);
  });

  it("drops or shortens conversations whose answer was cut", async () => {
    const { made, report } = await all({ conversations: 20, maxTokens: 6 });
    expect(report.dropped.cut!.count).toBeGreaterThan(0);
    expect(made.every(({ row }) => row.messages.at(-1)!.role === "assistant")).toBe(true);
  });

  it("takes texts from the user, each once", async () => {
    const passages = [
      "The mill of Holt was built in 1820. Its owner was Jane Hill. It burned down in 1911.",
      "x".repeat(3),
    ];
    const sectors = { world: { weight: 0 }, writing: { weight: 0 } };
    const { made, report } = await all({ conversations: 50, passages, sectors, passageWords: 10 });
    expect(report.exhausted).toBe(true);
    expect(made.length).toBeGreaterThan(1);
    expect(made.every(({ sector }) => sector === "material")).toBe(true);
    expect(made[0]!.row.prompt).toContain("built in 1820");
    expect(report.changed.passagesCut).toBe(1);
    expect(made.some(({ row }) => row.prompt.includes("Jane"))).toBe(false);
  });

  it("keeps out what the user names", async () => {
    const free = await all({ conversations: 20 });
    const forbidden = free.made[3]!.row.prompt;
    const { made, report } = await all({
      conversations: 20,
      keepOut: (text) => (text === forbidden ? "mine" : undefined),
    });
    expect(made.map(({ row }) => row.prompt)).not.toContain(forbidden);
    expect(report.dropped.overlap).toEqual({ count: 1, examples: [forbidden] });
  });

  it("lists what could not be read and goes on", async () => {
    const { made, report } = await all({
      conversations: 10,
      teacher: changed(({ messages }) =>
        messages[0]!.content.includes("topic is: changing lists") ? "I would rather not." : undefined,
      ),
    });
    expect(made).toHaveLength(10);
    expect(report.failures[0]).toMatchObject({
      what: expect.stringContaining("changing lists"),
      problem: expect.stringMatching(/no numbered list/),
    });
    expect(made.some(({ topic }) => topic === "changing lists")).toBe(false);
  });

  it("refuses options that mean nothing, all at once", () => {
    const wrong = { conversations: 0, sectors: { world: { rounds: [5, 2] } }, temprature: 1 } as never;
    expect(() => generateConversations({ teacher: offlineModel(), ...(wrong as object) } as GenerateOptions)).toThrow(
      /3 problems|conversations[\s\S]*temprature/,
    );
  });

  it("stops at its signal", async () => {
    const controller = new AbortController();
    const generation = generateConversations({ ...offline, conversations: 50, signal: controller.signal });
    await expect(async () => {
      for await (const _ of generation) controller.abort();
    }).rejects.toThrow(/abort/);
    expect(generation.report.conversations).toBeLessThan(10);
  });
});
