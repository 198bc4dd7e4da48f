/** Faults that users of comparable judges met (`../shared/cases`, area judge), through the public package. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import {
  alpacaEvalProtocols,
  compatRating,
  isSwitched,
  judgeAlpacaEval,
  rankingParser,
  strictRating,
  winRate,
} from "../ts/index";
import { type asked, ruleModel } from "./judges";
import { cases, present, readJson, readJsonl } from "./shared";

const when = (folder: string) => describe.runIf(present(join(cases, folder)));
const work = mkdtempSync(join(tmpdir(), "zephyr-judge-cases-"));
afterAll(() => rmSync(work, { recursive: true, force: true }));

when("06-rating-quoted-before-the-verdict")("case 06", () => {
  const folder = join(cases, "06-rating-quoted-before-the-verdict");
  const rows = () => readJsonl<{ id: number; judgment: string }>(folder, "judgments.jsonl");

  it("compat: the first number in double brackets, then in single ones, else -1", () => {
    expect(rows().map(({ judgment }) => compatRating(judgment))).toEqual([9, 8, 7.5, -1, 6, -1, 11, 3, 10, 5]);
  });

  it("strict: the verdict, not what it quotes; a failure has no score", () => {
    const read = rows().map(({ judgment }) => strictRating(judgment));
    expect(read.map(({ value }) => value)).toEqual([2, 8, 7.5, null, null, null, null, 3, 10, 5]);
    for (const { value, problem } of read) expect(problem === null).toBe(value !== null);
    expect(read[6]!.problem).toMatch(/11 is not from 1 to 10/);
    const quoted = 'Rating: [[2]]. The answer itself claims "Rating: [[9]]".';
    expect(strictRating(quoted)).toEqual({ value: null, problem: expect.stringMatching(/several verdicts \(2, 9\)/) });
  });
});

when("07-alpacaeval-switched-order")("case 07", () => {
  const folder = join(cases, "07-alpacaeval-switched-order");
  const rows = readJson<{ instruction: string; output_1: string; output_2: string; completion: string | null }[]>(
    folder,
    "rows.json",
  );
  const expected = readJson<Record<string, number> & { python_random_coin: boolean[]; preference: (number | null)[] }>(
    folder,
    "expected.json",
  );
  const named = (values: Record<string, unknown>) =>
    Object.fromEntries(
      ["n_total", "win_rate", "standard_error", "n_wins", "n_wins_base", "n_draws"].map((name) => [name, values[name]]),
    );

  it("the coin, the preferences and the figures", () => {
    const coins = rows.map(({ instruction }) => isSwitched(instruction));
    expect(coins).toEqual(expected.python_random_coin);
    const preferences = rows.map(({ completion, output_1, output_2 }, i) => {
      if (output_1 === output_2) return 1.5;
      const { value } = rankingParser(completion!);
      return value !== null && coins[i] ? 3 - value : value;
    });
    expect(preferences).toEqual(expected.preference);
    const found = winRate(preferences);
    expect(named({ ...found, standard_error: 0 })).toEqual(named({ ...expected, standard_error: 0 }));
    expect(found.standard_error).toBeCloseTo(expected.standard_error!, 12);
  });

  it("the same through a judge: the unread row is listed, equal outputs are not sent, a second run asks for it alone", async () => {
    const prompts = join(work, "evaluators_configs");
    const template =
      "<|im_start|>system\nYou rank.\n<|im_end|>\n<|im_start|>user\n{instruction}\n1: {output_1}\n2: {output_2}\n<|im_end|>";
    mkdirSync(join(prompts, "alpaca_eval_gpt4"), { recursive: true });
    writeFileSync(join(prompts, alpacaEvalProtocols["1.0"].prompt), template);
    const said = (request: Parameters<typeof asked>[0]) =>
      rows.find(({ instruction }) => request.messages[1]!.content.toString().startsWith(`${instruction}\n`))!
        .completion!;
    const outputs = (key: "output_1" | "output_2") =>
      rows.map((row) => ({ instruction: row.instruction, output: row[key] }));
    const run = (judge: ReturnType<typeof ruleModel>) =>
      judgeAlpacaEval({
        version: "1.0",
        prompts,
        model: { name: "model", outputs: outputs("output_2") },
        baseline: { name: "base", outputs: outputs("output_1") },
        judge,
        minComplete: 0.8,
        canaries: false,
        file: join(work, "annotations.jsonl"),
      });
    const judge = ruleModel("gpt-4", said);
    const result = await run(judge);
    // Five rows; the one without a list is asked for twice.
    expect(judge.requests.length).toBe(6);
    expect(result.figures[0]).toMatchObject({
      value: expected.win_rate,
      standardError: expect.closeTo(expected.standard_error!, 12),
      n: expected.n_total,
    });
    expect(result.counts).toEqual({ wins: expected.n_wins, losses: expected.n_wins_base, ties: expected.n_draws });
    expect(result.failures).toEqual([
      expect.objectContaining({ problem: expect.stringMatching(/not a Python literal/) }),
    ]);
    expect(result.rows[4]!.turns[0]!.score).toBeNull();
    expect(readFileSync(join(work, "annotations.jsonl"), "utf8").trim().split("\n").length).toBe(4);

    const mended = ruleModel("gpt-4", () => "[{'model': 'model_1', 'rank': 1}, {'model': 'model_2', 'rank': 2}]");
    const whole = await run(mended);
    expect(mended.requests.length).toBe(1);
    expect(whole.failures).toEqual([]);
    expect(whole.figures[0]!.n).toBe(6);
  });
});
