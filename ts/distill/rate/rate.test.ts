import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { ChatModel, ChatRequest } from "../../client";
import { fromArray } from "../../data";
import { feedbackRow, fineGrainedScore } from "../feedback-row";
import { offlineModel } from "../offline";
import { tasksOf } from "../offline/catalogue";
import { aspectNames, ratingPrompt, responsePrompt } from "../prompts/rating";
import type { RateOptions } from "./options";
import { type FeedbackPrompt, feedbackPrompts } from "./prompts";
import { type RatedPrompt, rateResponses } from "./rate";
import { type feedbackFiles, writeFeedback } from "./write";

const tasks = [...tasksOf("conversion", "train").slice(0, 6), ...tasksOf("tables", "train").slice(0, 6)];
const prompts: FeedbackPrompt[] = tasks.map(({ turns }) => ({
  source: "ultrachat",
  instruction: turns[0].prompt,
  history: [],
  correctAnswers: [],
  incorrectAnswers: [],
}));
const pool = ["offline", "offline:careless", "offline:wordy", "offline:sloppy", "offline:poor"].map(offlineModel);

async function all(options: Partial<RateOptions> = {}) {
  const rating = rateResponses({ prompts, pool, rater: offlineModel(), ...options });
  const rated: RatedPrompt[] = [];
  for await (const each of rating) rated.push(each);
  return { rated, report: rating.report };
}

/** The offline rater, with other capabilities or other answers. */
function rater(
  change: Partial<ChatModel["capabilities"]>,
  answer?: (request: ChatRequest, text: string) => string,
): ChatModel {
  const model = offlineModel();
  return {
    name: "rater",
    capabilities: { ...model.capabilities, ...change },
    complete: async (request) => {
      const response = await model.complete(request);
      return { ...response, text: answer?.(request, response.text) ?? response.text };
    },
  };
}

describe("rateResponses", () => {
  it("gives rows of raw UltraFeedback, scores in their own ranges", async () => {
    const { rated, report } = await all();
    expect(rated).toHaveLength(12);
    for (const { row, failures } of rated) {
      expect(failures).toEqual([]);
      expect(Object.keys(row!)).toEqual([
        "source",
        "instruction",
        "models",
        "completions",
        "correct_answers",
        "incorrect_answers",
      ]);
      expect(row!.models).toEqual(row!.completions.map(({ model }) => model));
      expect(new Set(row!.models).size).toBe(4);
      for (const completion of row!.completions) {
        expect(Object.keys(completion.annotations)).toEqual([...aspectNames]);
        for (const { Rating, Rationale } of Object.values(completion.annotations)) {
          expect(Rating).toMatch(/^[1-5]$/);
          expect(Rationale).not.toBe("");
        }
        expect(completion["fine-grained_score"]).toBe(fineGrainedScore(completion.annotations));
        expect(completion.overall_score).toBeGreaterThanOrEqual(1);
        expect(completion.overall_score).toBeLessThanOrEqual(10);
        expect(completion.custom_system_prompt).not.toBe("");
      }
      expect(feedbackRow(JSON.parse(JSON.stringify(row)), {})).toEqual(row);
    }
    expect(report).toMatchObject({ prompts: 12, rated: 12, failed: 0, duplicates: 0 });
    const best = report.models.offline!;
    for (const [name, scores] of Object.entries(report.models)) {
      if (name !== "offline") expect(best.overall, name).toBeGreaterThan(scores.overall);
    }
    expect(report.byPlace.reduce((sum, { ratings }) => sum + ratings, 0)).toBe(48);
  });

  it("is the same whether the rater writes JSON or text, in one call or four", async () => {
    const scores = ({ rated }: Awaited<ReturnType<typeof all>>) =>
      rated.map(({ row }) =>
        row!.completions.map((each) => [each.response, each["fine-grained_score"], each.overall_score]),
      );
    const json = scores(await all());
    expect(scores(await all({ rater: rater({ schema: false }) }))).toEqual(json);
    expect(scores(await all({ ratings: "each" }))).toEqual(json);
    expect(scores(await all({ ratings: "each", rater: rater({ schema: false }), concurrency: 1 }))).toEqual(json);
  });

  it("shows the answers in orders that differ, each marked by a word that is in none of them", async () => {
    const places = new Map<string, Set<number>>();
    const seen = rater({}, (request, text) => {
      const read = ratingPrompt.read(request.messages[0]!.content);
      for (const { number, response } of read ? responsePrompt.readAll(read.responses) : []) {
        expect(response).not.toContain(read!.mark);
        places.set(response, (places.get(response) ?? new Set()).add(Number(number)));
      }
      return text;
    });
    const same = [{ ...prompts[0]! }, ...prompts.slice(1)];
    await all({ prompts: same, rater: seen, ratings: "each" });
    const orders = [...places.values()].filter((set) => set.size > 1);
    expect(orders.length).toBeGreaterThan(10);
  });

  it("asks again once, and lists what cannot be read with all its answers", async () => {
    let asked = 0;
    let unsaid = "";
    const mends = rater({ schema: false }, (request, text) => {
      if (request.purpose !== "rate rating") return text;
      asked++;
      // The offline rater does not know its own prompt behind a second question.
      if (request.messages.length > 1) return unsaid;
      unsaid = text;
      return "I like them all.";
    });
    const mended = await all({ rater: mends, concurrency: 1, prompts: prompts.slice(0, 3) });
    expect(mended.report).toMatchObject({ rated: 3, failed: 0 });
    expect(asked).toBe(6);

    const stubborn = rater({ schema: false }, (request, text) =>
      request.purpose === "rate critique" ? "Overall score: 0.9" : text,
    );
    const { rated, report } = await all({ rater: stubborn, prompts: prompts.slice(0, 2) });
    expect(report).toMatchObject({ rated: 0, failed: 2, failures: { critique: 8 } });
    expect(rated[0]!.row).toBeUndefined();
    expect(rated[0]!.failures[0]).toMatchObject({
      stage: "critique",
      model: "rater",
      problem: expect.stringMatching(/0.9, outside 1 to 10/),
      answers: ["Overall score: 0.9", "Overall score: 0.9"],
      unrated: true,
    });
  });

  it("leaves empty answers out and says so; with fewer than two there is no row", async () => {
    const silent = (name: string): ChatModel => ({ ...rater({}, () => " "), name });
    const { rated } = await all({
      pool: [pool[0]!, pool[4]!, silent("silent")],
      answers: 3,
      prompts: prompts.slice(0, 1),
    });
    expect(rated[0]!.row!.models.sort()).toEqual(["offline", "offline:poor"]);
    expect(rated[0]!.failures).toMatchObject([
      { stage: "answer", model: "silent", problem: "the answer is empty", unrated: false },
    ]);
    const none = await all({ pool: [pool[0]!, silent("a"), silent("b")], answers: 3, prompts: prompts.slice(0, 1) });
    expect(none.report).toMatchObject({ rated: 0, failed: 1, failures: { answer: 2 } });
    expect(none.rated[0]!.failures.every(({ unrated }) => unrated)).toBe(true);
  });

  it("draws again from a pool that is too small, and gives no principle to models without system messages", async () => {
    const plain: ChatModel = { ...offlineModel("offline:careless"), ...rater({ system: false }), name: "plain" };
    const { rated } = await all({ pool: [plain], answers: 3 });
    expect(rated[0]!.row!.models).toEqual(["plain", "plain", "plain"]);
    expect(rated[0]!.row!.completions.map(({ principle, custom_system_prompt: text }) => [principle, text])).toEqual(
      Array.from({ length: 3 }, () => ["none", ""]),
    );
    expect(() => rateResponses({ prompts, pool: [], rater: plain })).toThrow(/at least one model/);
  });

  it("does without critiques", async () => {
    const { rated } = await all({ critique: false, prompts: prompts.slice(0, 2) });
    expect(rated[0]!.row!.completions.map(({ overall_score: score, critique }) => [score, critique])).toEqual(
      Array.from({ length: 4 }, () => [null, ""]),
    );
  });
});

describe("feedbackPrompts", () => {
  const read = async (rows: unknown[], options = {}) => {
    const found: FeedbackPrompt[] = [];
    for await (const each of feedbackPrompts(fromArray(rows), options)) found.push(each);
    return found;
  };
  const talk = ["a", "b", "c", "d"].map((content, index) => ({
    role: index % 2 === 0 ? "user" : "assistant",
    content,
  }));

  it("reads conversations, prompts and instructions", async () => {
    const last = { instruction: "c", history: talk.slice(0, 2) };
    expect(await read([{ messages: talk }, { messages: talk.slice(0, 3) }])).toMatchObject([last, last]);
    expect(await read([{ messages: talk }], { turns: "first" })).toMatchObject([{ instruction: "a", history: [] }]);
    expect(await read([{ messages: talk }], { turns: "all" })).toHaveLength(2);
    expect(
      await read([{ prompt: "a" }, { prompt: talk.slice(0, 1) }, { instruction: "a", source: "flan" }]),
    ).toMatchObject([
      { instruction: "a", source: "prompts" },
      { instruction: "a" },
      { instruction: "a", source: "flan" },
    ]);
  });

  it("names row and field of what it cannot use", async () => {
    await expect(read([{ prompt: "a" }, { question: "b" }])).rejects.toMatchObject({
      code: "ZA_DATA_FORMAT",
      place: { element: 2 },
    });
    await expect(read([{ messages: [talk[1]] }])).rejects.toMatchObject({ code: "ZA_ROLE_ORDER" });
    await expect(read([{ prompt: " " }])).rejects.toMatchObject({ code: "ZA_DATA_ROW", place: { field: "prompt" } });
  });
});

describe("writeFeedback", () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "zephyr-rate-"));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));
  const lines = (name: (typeof feedbackFiles)[number]) =>
    readFileSync(join(folder, `${name}.jsonl`), "utf8")
      .split("\n")
      .filter(Boolean)
      .map((line) => JSON.parse(line));

  it("passes over what has a row, asks again what failed, and costs nothing when nothing is missing", async () => {
    const options = { prompts, pool, rater: offlineModel() };
    let calls = 0;
    const ill = rater({ schema: false }, (request, text) => {
      calls++;
      const hard =
        request.messages[0]!.content.includes(prompts[2]!.instruction) ||
        request.messages[0]!.content.includes(prompts[5]!.instruction);
      return hard && request.purpose === "rate rating" ? "No." : text;
    });
    await writeFeedback({ ...options, rater: ill, concurrency: 2 }, folder);
    expect(lines("raw")).toHaveLength(10);
    expect(lines("failures").map(({ instruction }) => instruction)).toEqual([
      prompts[2]!.instruction,
      prompts[5]!.instruction,
    ]);
    calls = 0;
    const well = rater({}, (_, text) => {
      calls++;
      return text;
    });
    const second = await writeFeedback({ ...options, rater: well }, folder);
    expect(second).toMatchObject({ rated: 2, before: 10, failed: 0 });
    expect(calls).toBe(2 * 5);
    expect(lines("raw")).toHaveLength(12);
    expect(lines("failures")).toHaveLength(0);
    const third = await writeFeedback(options, folder);
    expect(third).toMatchObject({ rated: 0, before: 12, calls: { made: 0 } });
    expect(third.models.offline!.answers).toBeGreaterThan(0);
    await expect(writeFeedback({ ...options, seed: 9 }, folder)).rejects.toMatchObject({ code: "ZA_RESUME_DIFFERS" });
  });

  it("keeps what is rated when it is stopped", async () => {
    const stop = new AbortController();
    const options = { prompts, pool, rater: offlineModel(), concurrency: 1 };
    const first = writeFeedback({ ...options, signal: stop.signal }, folder, {
      onPrompt: (_, { rated }) => rated === 4 && stop.abort(),
    });
    await expect(first).rejects.toMatchObject({ code: "ZA_ABORTED" });
    expect(lines("raw")).toHaveLength(4);
    expect(await writeFeedback(options, folder)).toMatchObject({ before: 4, rated: 8 });
    const straight = mkdtempSync(join(tmpdir(), "zephyr-rate-"));
    await writeFeedback(options, straight);
    expect(readFileSync(join(straight, "raw.jsonl"))).toEqual(readFileSync(join(folder, "raw.jsonl")));
    rmSync(straight, { recursive: true });
  });
});
