import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { data, present, readJsonl } from "../../../test/shared";
import { dataset, fromArray, toPair, toSft } from "../../data";
import type { FeedbackRow } from "../feedback-row";
import { promptId } from "../prompt-id";
import { type BinarisedPair, type BinariseReport, binarise } from "./binarise";
import { type BinariseOptions, binarisePresets } from "./options";
import { OverlapFilter, overlapTexts } from "./overlap";
import { pairFiles, writePairs } from "./write";

/** A row of raw UltraFeedback with these scores: overall from 1 to 10, and one rating for all aspects. */
function row(
  instruction: string,
  scores: readonly [overall: number | null, rating: number | null][],
  source = "flan",
): FeedbackRow {
  const completions = scores.map(([overall, rating], index) => ({
    annotations: rating === null ? {} : { helpfulness: { Rating: String(rating), Rationale: "so" } },
    custom_system_prompt: "",
    model: `model-${index}`,
    principle: "helpfulness",
    response: `answer ${index} to ${instruction}`,
    critique: "",
    overall_score: overall,
    "fine-grained_score": rating,
  }));
  return {
    source,
    instruction,
    models: completions.map(({ model }) => model),
    completions,
    correct_answers: [],
    incorrect_answers: [],
  };
}

async function all(rows: readonly unknown[], options: BinariseOptions & { onBadRow?: "skip" } = {}) {
  const found = binarise(fromArray(rows), options);
  const pairs: BinarisedPair[] = [];
  for await (const each of found) pairs.push(each);
  return { pairs, report: found.report };
}

const one = async (scores: Parameters<typeof row>[1], options: BinariseOptions) => {
  const { pairs, report } = await all([row("why?", scores)], options);
  return pairs[0] ? [pairs[0].row.score_chosen, pairs[0].row.score_rejected] : Object.keys(report.dropped)[0];
};

const sumOf = (report: BinariseReport) => Object.values(report.dropped).reduce((sum, { count }) => sum + count, 0);

describe("binarise", () => {
  it("makes rows of ultrafeedback_binarized", async () => {
    const { pairs } = await all([
      row("why?", [
        [9, 2],
        [3, 5],
        [4, 1],
        [5, 3],
      ]),
    ]);
    const { prompt, prompt_id, chosen, rejected, messages, ...scores } = pairs[0]!.row;
    expect(prompt).toBe("why?");
    expect(prompt_id).toBe(promptId("why?"));
    expect(chosen).toEqual([
      { role: "user", content: "why?" },
      { role: "assistant", content: "answer 1 to why?" },
    ]);
    expect(messages).toEqual(chosen);
    expect(rejected[0]).toEqual(chosen[0]);
    expect(Object.keys(scores)).toEqual(["score_chosen", "score_rejected"]);
    expect(scores.score_chosen).toBe(5);
  });

  it("has knobs: score, rejected, ties, margin", async () => {
    const scores: Parameters<typeof row>[1] = [
      [9, 2],
      [3, 5],
      [4, 1],
    ];
    expect(await one(scores, { score: "overall", rejected: "lowest" })).toEqual([9, 3]);
    expect(await one(scores, { score: "mean", rejected: "lowest" })).toEqual([5, 1]);
    expect(
      await one(
        [
          [9, 2],
          [8, 2],
          [2, 2],
        ],
        { score: "overall", rejected: "random", minMargin: 2 },
      ),
    ).toEqual([9, 2]);
    expect(
      await one(
        [
          [9, 2],
          [8, 2],
        ],
        { score: "overall", minMargin: 2 },
      ),
    ).toBe("margin");
    expect(
      await one(
        [
          [9, 2],
          [9, 2],
        ],
        { score: "overall" },
      ),
    ).toBe("tie");
    expect(
      await one(
        [
          [9, 2],
          [9, 2],
        ],
        { score: "overall", ties: "keep" },
      ),
    ).toEqual([9, 9]);
    expect(
      await one(
        [
          [9, null],
          [8, null],
        ],
        { score: "mean" },
      ),
    ).toBe("unscored");
    await expect(all([], { ties: "keep", minMargin: 1 })).rejects.toThrow(/equal scores have no margin/);
    await expect(all([], { preset: "zephyr" as "paper" })).rejects.toThrow(/there is no preset "zephyr"/);
    await expect(all([], { scores: "mean" } as object)).rejects.toThrow(/Did you mean score/);
  });

  it("follows its presets", async () => {
    const tie: Parameters<typeof row>[1] = [
      [8.5, 4],
      [8.5, 2],
      [8.5, 3],
    ];
    expect(await one(tie, { preset: "h4-current" })).toEqual([8.5, 8.5]);
    const [chosen, rejected] = (await one(tie, { preset: "paper" })) as number[];
    expect([chosen, [2, 3].includes(rejected!)]).toEqual([4, true]);
    const rows = [
      row(
        "is it true?",
        [
          [9, 5],
          [2, 1],
        ],
        "truthful_qa",
      ),
      row("why?", [
        [9, 5],
        [2, 1],
      ]),
    ];
    expect((await all(rows, { preset: "paper" })).pairs).toHaveLength(2);
    for (const preset of ["h4-current", "argilla-clean"] as const) {
      const { pairs, report } = await all(rows, { preset });
      expect(pairs.map((each) => each.row.prompt)).toEqual(["why?"]);
      expect(report.dropped.source).toEqual({ count: 1, examples: ["is it true?"] });
    }
    expect(Object.keys(binarisePresets)).toEqual(["paper", "h4-current", "argilla-clean"]);
  });

  it("meets tens that were ones (UltraFeedback#8)", async () => {
    const scores: Parameters<typeof row>[1] = [
      [10, 1.5],
      [7, 4],
      [10, 3],
      [10, 4.5],
    ];
    const options = { score: "overall", rejected: "lowest" } as const;
    const repaired = await all([row("why?", scores)], options);
    expect(repaired.pairs[0]!.row).toMatchObject({ score_chosen: 10, score_rejected: 1 });
    expect(repaired.pairs[0]!.row.chosen[1]!.content).toContain("answer 3");
    expect(repaired.report.tens).toEqual({ repaired: 1, dropped: 1, kept: 0 });
    const kept = await all([row("why?", scores)], { ...options, tens: "keep" });
    expect(kept.pairs[0]!.row.chosen[1]!.content).toContain("answer 0");
    expect(kept.report.tens).toEqual({ repaired: 0, dropped: 0, kept: 2 });
  });

  it("drops overlaps, duplicates, equal texts and answers without text, and counts everything", async () => {
    const overlap = new OverlapFilter(6);
    overlap.add("bench", "What happens to you if you eat watermelon seeds?");
    overlap.add("bench", "Is it so?");
    const same = row("same", [
      [9, 5],
      [2, 1],
    ]);
    same.completions[1]!.response = same.completions[0]!.response;
    const silent = row("silent", [
      [9, 5],
      [2, 1],
    ]);
    silent.completions[1]!.response = " ";
    const rows = [
      row("what happens to you if you eat WATERMELON seeds", [
        [9, 5],
        [2, 1],
      ]),
      row("Tell me: what happens to you if you swallow watermelon seeds?", [
        [9, 5],
        [2, 1],
      ]),
      row("Is it so", [
        [9, 5],
        [2, 1],
      ]),
      row("Is it so that it rains?", [
        [9, 5],
        [2, 1],
      ]),
      row("Is it so that it rains?", [
        [9, 5],
        [2, 1],
      ]),
      same,
      silent,
    ];
    const { pairs, report } = await all(rows, { overlap });
    expect(pairs.map((each) => each.row.prompt)).toEqual(["Is it so that it rains?"]);
    expect(report.overlaps).toEqual({ "bench (exact)": 2, "bench (n-gram)": 1 });
    expect(Object.fromEntries(Object.entries(report.dropped).map(([reason, { count }]) => [reason, count]))).toEqual({
      overlap: 3,
      duplicate: 1,
      equal: 1,
      unscored: 1,
    });
    expect(report).toMatchObject({ rows: 7, pairs: 1, answersLeftOut: 1 });
  });

  it("continues conversations", async () => {
    const history = [
      { role: "user", content: "a" },
      { role: "assistant", content: "b" },
    ] as const;
    const { pairs } = await all([
      {
        ...row("c", [
          [9, 5],
          [2, 1],
        ]),
        history,
      },
    ]);
    const found = pairs[0]!.row;
    expect(found.prompt).toBe("a\n\nb\n\nc");
    expect(found.chosen.map(({ content }) => content)).toEqual(["a", "b", "c", "answer 0 to c"]);
    expect(toPair(found, {})).toMatchObject({ kind: "chat", prompt: [...history, { role: "user", content: "c" }] });
  });

  it("names file, row and field of what it cannot read", async () => {
    const bad = row("x", [
      [9, 5],
      [10.5, 1],
    ]);
    await expect(all([bad])).rejects.toMatchObject({
      code: "ZA_DATA_ROW",
      place: { element: 1, field: "completions[1].overall_score" },
    });
    const wild = row("x", [
      [9, 5],
      [1, 6],
    ]);
    await expect(all([row("a", []), wild])).rejects.toMatchObject({
      place: { element: 2, field: "completions[1].annotations.helpfulness.Rating" },
    });
    await expect(all([{ prompt: "x", chosen: "a", rejected: "b" }])).rejects.toMatchObject({
      code: "ZA_DATA_FORMAT",
      remedy: expect.stringContaining("pairs already"),
    });
    const { pairs, report } = await all(
      [
        bad,
        row("y", [
          [9, 5],
          [2, 1],
        ]),
      ],
      { onBadRow: "skip" },
    );
    expect(pairs).toHaveLength(1);
    expect(report.dropped.unreadable!.count).toBe(1);
    // Published rows have N/A, and numbers as text.
    const published = row("z", [
      [9, 5],
      [2, 1],
    ]) as unknown as { completions: Record<string, unknown>[] };
    published.completions[0]!.annotations = {
      honesty: { Rating: "N/A" },
      helpfulness: { Rating: "4", "Rationale For Rating": "x" },
    };
    published.completions[0]!.overall_score = "8.5";
    delete published.completions[0]!["fine-grained_score"];
    expect((await all([published])).pairs[0]!.row.score_chosen).toBe(4);
  });

  const score = fc.integer({ min: 2, max: 20 }).map((halves) => halves / 2);
  const rating = fc.integer({ min: 1, max: 5 });
  const answers = fc.array(fc.tuple(fc.option(score), fc.option(rating)), { maxLength: 5 });
  const rowsOf = fc.uniqueArray(fc.tuple(fc.string({ minLength: 1 }), answers), {
    selector: ([text]) => text,
    maxLength: 12,
  });
  const options = fc.record({
    score: fc.constantFrom("overall" as const, "mean" as const),
    rejected: fc.constantFrom("lowest" as const, "random" as const),
    tens: fc.constantFrom("repair" as const, "keep" as const),
    seed: fc.nat(1000),
    testShare: fc.double({ min: 0, max: 1, noNaN: true }),
  });
  const tieRules = fc.oneof(
    fc.record({ ties: fc.constant("keep" as const), minMargin: fc.constant(0) }),
    fc.record({ ties: fc.constant("drop" as const), minMargin: fc.constantFrom(0, 0.5, 1, 3) }),
  );

  it("holds for all data: ranges, order of scores, margins, nothing lost, no dependence on order", async () => {
    await fc.assert(
      fc.asyncProperty(rowsOf, options, tieRules, async (specs, chosen, ties) => {
        const given = { ...chosen, ...ties };
        const rows = specs.map(([text, scores]) => row(text, scores as [number | null, number | null][]));
        const { pairs, report } = await all(rows, given);
        expect(report.pairs + sumOf(report)).toBe(rows.length);
        expect(report.splits.train + report.splits.test).toBe(report.pairs);
        const top = given.score === "overall" ? 10 : 5;
        for (const { row: pair, split, small } of pairs) {
          expect(pair.score_chosen).toBeLessThanOrEqual(top);
          expect(pair.score_rejected).toBeGreaterThanOrEqual(1);
          expect(pair.score_chosen - pair.score_rejected).toBeGreaterThanOrEqual(
            given.ties === "keep" ? 0 : Math.max(0.25, given.minMargin),
          );
          expect(pair.chosen).not.toEqual(pair.rejected);
          expect(small && split === "train").toBe(false);
          const source = rows.find(({ instruction }) => instruction === pair.prompt)!;
          const scores = source.completions
            .filter(({ overall_score: overall }) => given.score === "mean" || overall !== 10)
            .map((each) => (given.score === "mean" ? each["fine-grained_score"] : each.overall_score));
          for (const each of scores) if (each !== null) expect(pair.score_chosen).toBeGreaterThanOrEqual(each);
        }
        const reversed = await all(rows.toReversed(), given);
        const byPrompt = (list: BinarisedPair[]) => list.map((each) => JSON.stringify(each)).sort();
        expect(byPrompt(reversed.pairs)).toEqual(byPrompt(pairs));
      }),
      { numRuns: 200 },
    );
  });

  it("draws the rejected evenly", async () => {
    const rows = Array.from({ length: 3000 }, (_, n) =>
      row(`question ${n}`, [
        [9, 5],
        [5, 3],
        [4, 2],
        [3, 1],
      ]),
    );
    const { report } = await all(rows, { preset: "paper" });
    for (const model of ["model-1", "model-2", "model-3"])
      expect(Math.abs(report.rejectedBy[model]! - 1000)).toBeLessThan(120);
    expect(report.splits.test / 3000).toBeCloseTo(0.03, 1);
  });

  const bench = join(data, "mt_bench");
  it.runIf(present(join(bench, "model_judgment")))(
    "gives the pairs that GPT-4's scores of real answers give",
    async () => {
      const models = ["mistral-orpo-capybara", "mistral-orpo-mix", "mistral-orpo-trl"];
      type Judgment = { question_id: number; model: string; turn: number; score: number };
      type Answer = { question_id: number; choices: { turns: string[] }[] };
      const scores = new Map(
        readJsonl<Judgment>(bench, "model_judgment", "gpt-4_single.jsonl")
          .filter(({ turn }) => turn === 1)
          .map(({ question_id, model, score }) => [`${model} ${question_id}`, score]),
      );
      const answers = new Map(
        models.flatMap((model) =>
          readJsonl<Answer>(bench, "model_answer", `${model}.jsonl`).map(
            (each) => [`${model} ${each.question_id}`, each.choices[0]!.turns[0]!] as const,
          ),
        ),
      );
      const rows = readJsonl<{ question_id: number; turns: string[] }>(bench, "question.jsonl").map(
        ({ question_id, turns }) => ({
          instruction: turns[0],
          completions: models.map((model) => ({
            model,
            response: answers.get(`${model} ${question_id}`),
            overall_score: scores.get(`${model} ${question_id}`),
          })),
        }),
      );
      const { pairs, report } = await all(rows, { score: "overall", rejected: "lowest", tens: "keep" });
      type Made = {
        prompt: { content: string }[];
        chosen: { content: string }[];
        rejected: { content: string }[];
        score_chosen: number;
        score_rejected: number;
      };
      const expected = new Map(
        readJsonl<Made>(data, "pairs", "dpo.jsonl").map((each) => [each.prompt[0]!.content, each]),
      );
      let found = 0;
      for (const { row: pair } of pairs) {
        const made = expected.get(pair.prompt);
        if (!made) continue;
        found++;
        expect(pair.score_chosen).toBe(made.score_chosen);
        expect(pair.score_rejected).toBe(made.score_rejected);
        // Between answers of equal scores either file may have taken another one.
        const scored = rows.find(({ instruction }) => instruction === pair.prompt)!.completions;
        const scoreOf = (text: string) =>
          scored.find(({ response }) => response!.trim() === text.trim())?.overall_score;
        for (const each of [pair, made]) {
          expect(scoreOf(each.chosen.at(-1)!.content)).toBe(made.score_chosen);
          expect(scoreOf(each.rejected.at(-1)!.content)).toBe(made.score_rejected);
        }
      }
      expect(found).toBe(expected.size);
      expect(report.pairs + sumOf(report)).toBe(80);
      console.log(
        `real judgments: ${report.pairs} pairs of 80 questions, ${JSON.stringify(report.dropped.tie?.count)} ties`,
      );
    },
  );
});

describe("files", () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "zephyr-pairs-"));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  it("writes ultrafeedback_binarized's splits, which our readers take", async () => {
    const rows = Array.from({ length: 60 }, (_, n) =>
      row(`question ${n}`, [
        [9, 5],
        [5, 3],
      ]),
    );
    writeFileSync(join(folder, "raw.jsonl"), rows.map((each) => `${JSON.stringify(each)}\n`).join(""));
    for (let time = 0; time < 2; time++) {
      await writePairs(binarise(dataset(join(folder, "raw.jsonl")), { testShare: 0.5 }), folder);
    }
    expect(readdirSync(folder).sort()).toEqual([...pairFiles.map((name) => `${name}.jsonl`), "raw.jsonl"].sort());
    const read = Object.fromEntries(
      pairFiles.map((name) => [name, readJsonl<{ messages: unknown[] }>(folder, `${name}.jsonl`)]),
    );
    expect(read.train_prefs!.length + read.test_prefs!.length).toBe(60);
    expect(read.train_sft).toEqual(read.train_prefs);
    expect(read.test_sft!.length).toBeGreaterThan(0);
    expect(read.test_sft!.length).toBeLessThan(read.test_prefs!.length);
    expect(read.test_gen!.length).toBe(read.test_sft!.length);
    for (const { messages } of read.train_gen!) expect(messages).toHaveLength(1);
    for (const each of read.train_prefs!) expect(toPair(each, {}).kind).toBe("chat");
    for (const each of read.train_sft!) expect(toSft(each, {}).kind).toBe("chat");
  });

  it("leaves the earlier files when a row is bad", async () => {
    await writePairs(
      binarise(
        fromArray([
          row("a", [
            [9, 5],
            [5, 3],
          ]),
        ]),
      ),
      folder,
    );
    const before = readFileSync(join(folder, "train_prefs.jsonl"), "utf8");
    await expect(
      writePairs(
        binarise(
          fromArray([
            row("b", [
              [9, 5],
              [5, 3],
            ]),
            { x: 1 },
          ]),
        ),
        folder,
      ),
    ).rejects.toThrow();
    expect(readFileSync(join(folder, "train_prefs.jsonl"), "utf8")).toBe(before);
    expect(readdirSync(folder)).toHaveLength(6);
  });

  it("reads texts to keep out: CSV, JSONL, text, a named column", async () => {
    const at = (name: string, content: string) => {
      writeFileSync(join(folder, name), content);
      return join(folder, name);
    };
    const csv = at("qa.csv", 'Type,Question,Best Answer\r\nA,"Is it ""so"", then?",yes\r\nB,Why,"because,\nof it"\r\n');
    expect(await overlapTexts(csv)).toEqual({ name: "qa.csv", texts: ['Is it "so", then?', "Why"] });
    expect((await overlapTexts(`${csv}#Best Answer`)).texts).toEqual(["yes", "because,\nof it"]);
    const jsonl = at(
      "code.jsonl",
      `${JSON.stringify({ task_id: 1, prompt: "def f():" })}\n${JSON.stringify({ task_id: 2, prompt: "def g():" })}\n`,
    );
    expect((await overlapTexts(jsonl)).texts).toEqual(["def f():", "def g():"]);
    const turns = at(
      "bench.jsonl",
      `${JSON.stringify({ turns: ["a", "b"] })}\n${JSON.stringify({
        messages: [
          { role: "user", content: "c" },
          { role: "assistant", content: "d" },
        ],
      })}\n`,
    );
    expect((await overlapTexts(turns)).texts).toEqual(["a", "b", "c"]);
    expect((await overlapTexts(at("plain.txt", "one\n\ntwo\n"))).texts).toEqual(["one", "two"]);
    await expect(overlapTexts(at("odd.jsonl", '{"x": 1}\n'))).rejects.toMatchObject({
      code: "ZA_DATA_FORMAT",
      remedy: expect.stringContaining("#column"),
    });
    await expect(overlapTexts(join(folder, "none.csv"))).rejects.toMatchObject({
      place: { file: join(folder, "none.csv") },
    });
  });
});
