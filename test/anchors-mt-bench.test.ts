/** Published MT-Bench numbers, out of the very judgments (`$ZEPHYR_DATA/mt_bench`, any folder of its layout). */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { contestantFrom, openMtBench, readJudgments, scoreMtBench } from "../ts/index";
import type { PairJudgment, SingleJudgment } from "../ts/judge/mt-bench/judgments";
import { matchOf } from "../ts/judge/mt-bench/match";
import { compatRating, compatWinner } from "../ts/judge/mt-bench/verdict";
import type { Figure, JudgeResult } from "../ts/judge/result";
import { data, present, readJson } from "./shared";

const folder = join(data, "mt_bench");
const single = join(folder, "model_judgment", "gpt-4_single.jsonl");
const pair = join(folder, "model_judgment", "gpt-4_pair.jsonl");

interface Expected {
  single: Record<
    string,
    {
      rows: number;
      unrated: number;
      duplicates: number;
      turn1: number;
      turn2: number;
      average: number;
      categories: Record<string, number>;
    }
  >;
  pair: Record<string, number>;
}

const expected = present(join(folder, "expected.json"))
  ? readJson<Expected>(folder, "expected.json")
  : { single: {}, pair: {} };

const figure = (result: JudgeResult, name: string): Figure => result.figures.find((each) => each.name === name)!;

function agree(result: JudgeResult, published: Expected["single"][string]): void {
  expect(figure(result, "turn_1").value).toBeCloseTo(published.turn1, 12);
  expect(figure(result, "turn_2").value).toBeCloseTo(published.turn2, 12);
  expect(figure(result, "score").value).toBeCloseTo(published.average, 12);
  expect(figure(result, "score").n).toBe(published.rows - published.unrated);
  for (const [category, value] of Object.entries(published.categories)) {
    expect(figure(result, `category/${category}`).value).toBeCloseTo(value, 12);
  }
}

describe.runIf(present(single))("single judgments", () => {
  for (const [model, published] of Object.entries(expected.single)) {
    it(`${model}: FastChat's numbers in compat mode`, async () => {
      agree(await scoreMtBench({ bench: folder, file: single, model, mode: "compat" }), published);
    });

    if (published.duplicates > 0) {
      it(`${model}: is there twice, and refused in our mode`, async () => {
        const error = await scoreMtBench({ bench: folder, file: single, model }).catch((thrown) => thrown);
        expect(error.code).toBe("ZA_JUDGE_DUPLICATE");
        expect(error.place).toMatchObject({ file: single, row: expect.any(Number) });
        expect(error.message).toContain(model);
      });
    } else {
      it(`${model}: the same numbers in our mode, each with its interval`, async () => {
        const result = await scoreMtBench({ bench: folder, file: single, model });
        agree(result, published);
        for (const { value, low, high, n } of result.figures) {
          expect(n).toBeGreaterThan(0);
          expect(low!).toBeLessThan(value!);
          expect(high!).toBeGreaterThan(value!);
        }
      });
    }
  }

  it("the prompts are rendered byte for byte, and the ratings read as stored", async () => {
    const bench = await openMtBench(folder);
    const questions = new Map(bench.questions.map((question) => [question.question_id, question]));
    const rows = (await readJudgments(single, false)).map(({ value }) => value as SingleJudgment);
    const answers = new Map<string, Awaited<ReturnType<typeof contestantFrom>> | undefined>();
    for (const model of new Set(rows.map((row) => row.model))) {
      const file = join(folder, "model_answer", `${model}.jsonl`);
      answers.set(model, existsSync(file) ? await contestantFrom(file) : undefined);
    }
    let fromFile = 0;
    for (const row of rows) {
      expect(compatRating(row.judgment)).toBe(row.score);
      const question = questions.get(row.question_id)!;
      const known = answers.get(row.model);
      const game = known && matchOf(bench, question, row.turn, known, null).games[0];
      if (game?.userPrompt === row.user_prompt) {
        fromFile++;
        continue;
      }
      // The other answers of a model that was judged twice are only in the prompts: they are taken out and put in again.
      const template = bench.prompts.get(row.judge[1])!.prompt_template;
      // A prompt of turn 1 shows one answer; the other does not matter.
      const turns = [...answersIn(template, row.user_prompt), ""].slice(0, 2);
      const again = {
        name: row.model,
        answers: new Map([[row.question_id, { question_id: row.question_id, choices: [{ index: 0, turns }] }]]),
      };
      const rendered = matchOf(bench, question, row.turn, again, null);
      expect(rendered.prompt.name).toBe(row.judge[1]);
      expect(rendered.games[0]!.userPrompt).toBe(row.user_prompt);
    }
    expect(fromFile).toBeGreaterThanOrEqual(rows.length / 2);
  });
});

describe.runIf(present(pair))("pair judgments", () => {
  it("wins, losses and ties; verdicts read as stored", async () => {
    const rows = (await readJudgments(pair, true)).map(({ value }) => value as PairJudgment);
    const letters = {
      A: ["model_1", "model_2"],
      B: ["model_2", "model_1"],
      tie: ["tie", "tie"],
      error: ["error", "error"],
    };
    for (const row of rows) {
      expect(letters[compatWinner(row.g1_judgment)][0]).toBe(row.g1_winner);
      expect(letters[compatWinner(row.g2_judgment)][1]).toBe(row.g2_winner);
    }
    const { model_1: model, model_2: opponent } = rows[0]!;
    const result = await scoreMtBench({ bench: folder, file: pair, model, opponent, mode: "compat" });
    const { tie, error, rows: count } = expected.pair;
    expect(result.counts).toEqual({ wins: expected.pair[model], losses: expected.pair[opponent], ties: tie });
    expect(figure(result, "win_rate").n).toBe(count! - error!);
    expect(result.bias.firstPosition!.n).toBeGreaterThan(0);
    expect(result.bias.swapFlips!.rate).toBeGreaterThan(0);
    const turned = await scoreMtBench({ bench: folder, file: pair, model: opponent, opponent: model, mode: "compat" });
    expect(turned.counts).toEqual({ wins: expected.pair[opponent], losses: expected.pair[model], ties: tie });
  });
});

/** The answers in a filled prompt: what stands where the template has `{answer}`, or `{answer_1}` and `{answer_2}`. */
function answersIn(template: string, filled: string): string[] {
  const pieces = template.split(/\{\w+\}/);
  const names = [...template.matchAll(/\{(\w+)\}/g)].map(([, name]) => name!);
  let at = pieces[0]!.length;
  return names.flatMap((name, i) => {
    const after = pieces[i + 1]!;
    const end = i + 1 === names.length ? filled.length - after.length : filled.indexOf(after, at);
    const value = filled.slice(at, end);
    at = end + after.length;
    return name.startsWith("answer") ? [value] : [];
  });
}
