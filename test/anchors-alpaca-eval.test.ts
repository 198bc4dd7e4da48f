/** Published AlpacaEval numbers, out of per-row numbers (`$ZEPHYR_DATA/alpaca_eval`, any folder of its layout). */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { unswitched } from "../ts/judge/alpaca-eval/comparison";
import { fitLengthControlled, lengthControlledFromWeights } from "../ts/judge/alpaca-eval/length-control";
import { winRate } from "../ts/judge/alpaca-eval/metrics";
import { logprobParser } from "../ts/judge/alpaca-eval/parsers";
import { data, present, readJson } from "./shared";

const folder = join(data, "alpaca_eval");

interface Version {
  published: Record<string, string>;
  rows: {
    preference: number | null;
    len_1: number;
    len_2: number;
    top?: [token: string, logprob: number][];
    switched?: boolean;
  }[];
}

interface LengthControl {
  instruction_difficulty: number[];
  columns: string[];
  weights: Record<string, number[]>;
}

const models = present(folder)
  ? readdirSync(folder).filter((name) => name.endsWith(".json") && name !== "length_controlled.json")
  : [];

/** Equal to the last digit that is printed, up to the last bit of a sum (pandas adds in another order on another machine). */
function sameDigits(found: number, published: string): void {
  const expected = Number(published);
  const digits = published.replace(/^0?\.0*|\D/g, "").length;
  const printed = 0.5 * 10 ** (Math.floor(Math.log10(Math.abs(expected))) + 1 - digits);
  const lastBit = 2 ** (Math.floor(Math.log2(Math.abs(expected))) - 52);
  expect(Math.abs(found - expected), `${found} against ${published}`).toBeLessThanOrEqual(Math.max(printed, lastBit));
}

for (const file of models) {
  const versions = readJson<Record<string, Version>>(folder, file);
  for (const version of ["1.0", "2.0"] as const) {
    const { published, rows } = versions[version] ?? {};
    if (!published || !rows) continue;
    describe(`${file}, AlpacaEval ${version}`, () => {
      const found = winRate(rows.map(({ preference }) => preference));

      it("win rate, standard error, discrete rate", () => {
        sameDigits(found.win_rate, published.win_rate!);
        sameDigits(found.standard_error, published.standard_error!);
        sameDigits(found.discrete_win_rate, published.discrete_win_rate!);
      });

      it("counts and length", () => {
        for (const name of ["n_wins", "n_wins_base", "n_draws", "n_total"] as const) {
          expect(found[name]).toBe(Number(published[name]));
        }
        const lengths = rows.map(({ len_2 }) => len_2);
        expect(Math.trunc(lengths.reduce((a, b) => a + b) / lengths.length)).toBe(Number(published.avg_length));
      });

      const read = rows.filter(({ top }) => top);
      it.runIf(read.length > 0)("every preference from the tokens and the order", () => {
        for (const { top, switched, preference } of read) {
          const { value } = logprobParser(top!.map(([token, logprob]) => ({ token, logprob })));
          // The files keep ten decimals.
          expect(Math.abs(unswitched(value, switched!)! - preference!)).toBeLessThan(1e-10);
        }
      });
    });
  }
}

const lengthControlled = join(folder, "length_controlled.json");
describe.runIf(existsSync(lengthControlled) && present(lengthControlled))("length-controlled rate", () => {
  const { instruction_difficulty: difficulty, columns, weights } = readJson<LengthControl>(lengthControlled);
  const at = (name: RegExp) => columns.findIndex((column) => name.test(column));

  for (const [model, row] of Object.entries(weights)) {
    const file = `${model}.json`;
    const version = models.includes(file) ? readJson<Record<string, Version>>(folder, file)["2.0"] : undefined;
    it.runIf(version)(`${model}: from the published weights`, () => {
      const rate = lengthControlledFromWeights(
        { length: row[at(/tanh/)]!, difficulty: row[at(/difficulty/)]!, model: row[at(/baseline/)]! },
        difficulty,
      );
      // The published rate was taken with the unrounded difficulties, of which the file has ten digits.
      expect(rate.length_controlled_winrate).toBeCloseTo(Number(version!.published.length_controlled_winrate), 9);
    });

    it.runIf(version)(`${model}: our fit without the gamed baselines is near`, () => {
      const rows = version!.rows.map(({ preference, len_1, len_2 }, i) => ({
        preference: preference === null ? null : preference - 1,
        baselineLength: len_1,
        modelLength: len_2,
        difficulty: difficulty[i]!,
      }));
      const fit = fitLengthControlled(rows);
      const rate = Number(version!.published.length_controlled_winrate);
      expect(Math.abs(fit.length_controlled_winrate - rate)).toBeLessThan(2);
      // Longer outputs win more at the same quality: Δ is the baseline's length minus the model's.
      expect(fit.weights.length).toBeLessThan(0);
      expect(fit.weights.difficulty).toBeGreaterThan(0);
    });
  }
});
