/** A {@link JudgeResult} out of annotations: joined by instruction, never by position. */
import { JudgeError } from "../../errors";
import { packageVersion } from "../../native/load";
import { biasOf, codePoints } from "../bias";
import { flaggedAnswers } from "../canaries";
import { defaultFloor, figureOf, mean, missingWarning, requireComplete, type Scored } from "../figures";
import type { Ledger } from "../ledger";
import {
  type CanaryResult,
  type Figure,
  type JudgedModel,
  type JudgedRow,
  type JudgeFailure,
  type JudgeResult,
  judgeResultFormat,
} from "../result";
import { groupBy, sha256 } from "../rows";
import { type Comparison, compare, completionText, type Generator, readCompletion } from "./comparison";
import type { Annotation } from "./files";
import {
  fitLengthControlled,
  type GamedRow,
  type LengthControlWeights,
  lengthControlledFromWeights,
} from "./length-control";
import { winRate, winShare } from "./metrics";
import type { AlpacaEvalProtocol, AlpacaEvalVersion } from "./protocol";

/** What a length-controlled rate needs. */
export interface LengthControlInput {
  /** Difficulty of every instruction of the benchmark, in its order (instruction_difficulty.csv). */
  difficulty: readonly number[];
  /** Published weights of the model; left out: our own fit. */
  weights?: LengthControlWeights;
  /** Rows of the gamed baselines (df_gamed.csv); without them the fit is upstream's `length_controlled_noreg`. */
  gamed?: readonly GamedRow[];
  /**
   * Joins difficulties by the position of a row, as upstream does: after a missing row all of them are shifted. Only to
   * compare with published rates. @default false
   */
  asPublished?: boolean;
}

/** Options that judging and scoring share. */
export interface AlpacaEvalOptions {
  /** @default "2.0" */
  version?: AlpacaEvalVersion;
  model: Generator;
  baseline: Generator;
  /**
   * `strict` (ours) refuses outputs that do not join and gives no score under the floor; `compat` joins, prompts, parses and
   * counts as upstream. @default "strict"
   */
  mode?: "strict" | "compat";
  /** Share of instructions that must be judged for a score. @default 0.98 */
  minComplete?: number;
  lengthControl?: LengthControlInput;
  /** First instructions only. */
  limit?: number;
  /** Seed of the annotator, for the order coin. @default 0 */
  annotatorSeed?: number;
}

/** The comparisons of both sides, cut to the limit. */
export function joined(options: AlpacaEvalOptions) {
  const { model, limit, mode = "strict", annotatorSeed } = options;
  const first = options.baseline.outputs.slice(0, limit);
  const baseline = { ...options.baseline, outputs: first };
  const wanted = new Set(first.map(({ instruction }) => instruction));
  // Under a limit the model's other outputs are no strangers.
  const outputs = limit === undefined ? model.outputs : model.outputs.filter((each) => wanted.has(each.instruction));
  const comparisons = compare({ ...model, outputs }, baseline, mode, annotatorSeed);
  return { model, baseline, comparisons };
}

/** What a result is made of. */
export interface ResultInput extends AlpacaEvalOptions {
  protocol: AlpacaEvalProtocol;
  annotations: readonly { comparison: Comparison; row: Annotation }[];
  repeats: number;
  judge: string;
  ledger: Ledger;
  canaries: CanaryResult[];
  promptHash: string | null;
}

/**
 * The figures of a run.
 *
 * @throws JudgeError `ZA_JUDGE_INCOMPLETE` under the floor (not in `compat` mode), `ZA_JUDGE_FIT`.
 */
export function alpacaEvalResult(input: ResultInput): JudgeResult {
  const { protocol, mode = "strict", repeats, ledger } = input;
  const { model, baseline, comparisons } = joined(input);
  const floor = input.minComplete ?? defaultFloor;
  const found = groupBy(input.annotations, ({ comparison }) => comparison.instruction);
  const scored: Scored[] = [];
  const failures: JudgeFailure[] = [];
  const rows = comparisons.map((comparison): JudgedRow => {
    const { instruction, dataset } = comparison;
    const id = sha256(instruction).slice(0, 16);
    const judged = found.get(instruction) ?? [];
    for (let repeat = 0; repeat < repeats; repeat++) {
      const here = judged.filter((each) => each.comparison.repeat === repeat);
      const share = here.map(({ row }) => winShare(row.preference)).find((each) => each !== null);
      if (share !== undefined) scored.push({ question: id, category: dataset, turn: 1, repeat, score: share });
      else
        failures.push({
          id,
          turn: 1,
          repeat,
          first: firstOf(comparison),
          problem: problemOf(here[0]?.row, protocol, mode),
        });
    }
    const scores = scored.filter(({ question }) => question === id).map(({ score }) => score);
    return {
      id,
      category: dataset,
      turns: [
        {
          turn: 1,
          prompt: instruction,
          reference: null,
          answer: comparison.model,
          opponentAnswer: comparison.baseline,
          score: scores.length > 0 ? mean(scores) : null,
          verdicts: judged.flatMap(({ comparison: { repeat }, row }) =>
            comparison.baseline === comparison.model
              ? []
              : [
                  {
                    repeat,
                    prompt: protocol.annotator,
                    first: firstOf(comparison),
                    text: completionText(row.raw_completion ?? ""),
                    score: winShare(row.preference),
                    problem: row.preference === null ? problemOf(row, protocol, mode) : null,
                    tries: 1,
                  },
                ],
          ),
        },
      ],
    };
  });
  const completeness = {
    expected: repeats * baseline.outputs.length,
    judged: scored.length,
    floor,
  };
  if (mode === "strict") requireComplete(completeness, failures);
  const { topLogprobs, temperature = 0, maxTokens } = protocol.sampling;
  const alarms = input.canaries.filter(({ flagged }) => flagged).map(({ name }) => name);
  return {
    format: judgeResultFormat,
    protocol: `alpaca-eval-${protocol.version}`,
    mode,
    createdAt: new Date().toISOString(),
    model: judgedModel(
      model,
      comparisons.map((each) => each.model),
    ),
    opponent: judgedModel(
      baseline,
      comparisons.map((each) => each.baseline),
    ),
    judge: {
      asked: input.judge,
      returned: ledger.returned,
      sampling: { temperature, maxTokens, topLogprobs: topLogprobs ?? null },
    },
    scale: "win",
    figures: figuresOf(input, comparisons, scored),
    counts: countsOf(scored),
    rows,
    completeness,
    bias: biasOf(rows),
    canaries: input.canaries,
    flaggedAnswers: flaggedAnswers(rows, []),
    failures,
    hashes: {
      questions: sha256(JSON.stringify(comparisons.map(({ instruction, baseline }) => [instruction, baseline]))),
      prompts: input.promptHash,
      references: null,
      answers: sha256(JSON.stringify(comparisons.map(({ instruction, model }) => [instruction, model]))),
    },
    cost: ledger.cost,
    warnings: [
      ...(alarms.length > 0
        ? [`The judge likes answers that say nothing (${alarms.join(", ")}): its rates mean little.`]
        : []),
      ...missingWarning(failures, completeness),
      ...(input.judge !== protocol.judge
        ? [`Published rates are ${protocol.judge}'s; those of ${input.judge} do not compare with them.`]
        : []),
      ...(input.lengthControl?.asPublished ? ["Difficulties are joined by position, as upstream does."] : []),
      ...(input.lengthControl && !input.lengthControl.weights && !input.lengthControl.gamed
        ? ["The length-controlled rate is fitted without the gamed baselines, and not that of the leaderboard."]
        : []),
    ],
    versions: { "zephyr-align": packageVersion(), node: process.versions.node },
  };
}

function firstOf({ switched }: Comparison): "model" | "opponent" {
  return switched ? "model" : "opponent";
}

function problemOf(row: Annotation | undefined, protocol: AlpacaEvalProtocol, mode: "strict" | "compat"): string {
  if (!row) return "it is not judged";
  if (row.problem !== undefined) return row.problem;
  return readCompletion(row.raw_completion, protocol, mode).problem ?? "the preference is not from 1 to 2";
}

function figuresOf(input: ResultInput, comparisons: readonly Comparison[], scored: readonly Scored[]): Figure[] {
  const percent = { group: "overall", unit: "percent" } as const;
  const discrete = scored.map((each) => ({ ...each, score: each.score === 0.5 ? 0.5 : Math.round(each.score) }));
  const datasets = [...new Set(scored.flatMap(({ category }) => (category === null ? [] : [category])))].sort();
  return [
    figureOf({ name: "win_rate", label: "Win rate", ...percent }, scored, { withStandardError: true }),
    ...lengthControlled(input, comparisons, scored),
    figureOf({ name: "discrete_win_rate", label: "Discrete win rate", ...percent }, discrete),
    ...(datasets.length > 1
      ? datasets.map((name) =>
          figureOf(
            { name: `category/${name}`, label: name.replaceAll("_", " "), group: "category", unit: "percent" },
            scored.filter(({ category }) => category === name),
          ),
        )
      : []),
  ];
}

function lengthControlled(
  { lengthControl, baseline }: ResultInput,
  comparisons: readonly Comparison[],
  scored: readonly Scored[],
): Figure[] {
  if (!lengthControl) return [];
  const { difficulty, weights, gamed, asPublished = false } = lengthControl;
  if (difficulty.length !== baseline.outputs.length) {
    throw new JudgeError(
      "ZA_JUDGE_FIT",
      `there are ${difficulty.length} difficulties for ${baseline.outputs.length} instructions of the baseline`,
      {
        remedy:
          "Difficulties are known for the benchmark's own 805 instructions only; leave length control out for others.",
      },
    );
  }
  const shares = groupBy(scored, ({ question }) => question);
  const rows = comparisons.map(({ instruction, position, baseline, model }, row) => {
    const id = sha256(instruction).slice(0, 16);
    const mine = shares.get(id)?.map(({ score }) => score);
    return {
      id,
      preference: mine ? mean(mine) : null,
      baselineLength: codePoints(baseline),
      modelLength: codePoints(model),
      difficulty: difficulty[asPublished ? row : position]!,
    };
  });
  const { predictions, lc_standard_error } = weights
    ? lengthControlledFromWeights(
        weights,
        rows.map((row) => row.difficulty),
      )
    : fitLengthControlled(rows, gamed ? { gamed } : {});
  const about = {
    name: "length_controlled_win_rate",
    label: "Length-controlled win rate",
    group: "overall",
    unit: "percent",
  } as const;
  const predicted = predictions.map(
    (score, i): Scored => ({ question: rows[i]!.id, category: null, turn: 1, repeat: 0, score }),
  );
  return [{ ...figureOf(about, predicted), standardError: lc_standard_error }];
}

function countsOf(scored: readonly Scored[]) {
  const { n_wins, n_wins_base, n_draws } = winRate(scored.map(({ score }) => score + 1));
  return { wins: n_wins, losses: n_wins_base, ties: n_draws };
}

/** @param compared its outputs that are compared */
function judgedModel({ name, outputs, file, generated }: Generator, compared: readonly string[]): JudgedModel {
  const generation = outputs[0]?.generation;
  return {
    name,
    answers: generated ? "generated" : "file",
    file: file ?? null,
    template: generation?.template ?? null,
    sampling: generation
      ? { maxTokens: generation.max_tokens, temperature: generation.temperature, choices: 1, seed: 0 }
      : null,
    meanLength: compared.length > 0 ? mean(compared.map(codePoints)) : null,
  };
}
