/** What holds for all data, for many rows, and for real judgments. */
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { pairsOf, rated, sumOf } from "../../../test/rated";
import { data, present, readJsonl } from "../../../test/shared";
import type { BinarisedPair } from "./binarise";

describe("binarise", () => {
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
        const rows = specs.map(([text, scores]) => rated(text, scores as [number | null, number | null][]));
        const { pairs, report } = await pairsOf(rows, given);
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
        const reversed = await pairsOf(rows.toReversed(), given);
        const byPrompt = (list: BinarisedPair[]) => list.map((each) => JSON.stringify(each)).sort();
        expect(byPrompt(reversed.pairs)).toEqual(byPrompt(pairs));
      }),
      { numRuns: 200 },
    );
  });

  it("draws the rejected evenly", async () => {
    const rows = Array.from({ length: 3000 }, (_, n) =>
      rated(`question ${n}`, [
        [9, 5],
        [5, 3],
        [4, 2],
        [3, 1],
      ]),
    );
    const { report } = await pairsOf(rows, { preset: "paper" });
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
      const { pairs, report } = await pairsOf(rows, { score: "overall", rejected: "lowest", tens: "keep" });
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
