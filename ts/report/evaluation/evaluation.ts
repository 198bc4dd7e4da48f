/** Judged runs put together for one report: who is in it, how they compare, what a reader must know. */
import { ConfigError } from "../../errors";
import type { Figure, JudgeProtocol, JudgeResult } from "../../judge/result";
import { compareRuns, type RunComparison } from "./comparison";
import { columnOf, type PublishedName } from "./published";

/** A judged run under the name that tells it from the others. */
export interface EvaluatedRun {
  label: string;
  /** Counted from 0 over the different labels: a model has one colour under all protocols. */
  index: number;
  result: JudgeResult;
}

/** The runs of one protocol, in the order given. */
export interface ProtocolRuns {
  protocol: JudgeProtocol;
  title: string;
  runs: EvaluatedRun[];
  /** The first run and each other one. */
  comparisons: RunComparison[];
}

/** A model of ours with its figures in the columns of the results table. */
export interface ResultRow {
  model: string;
  /** The runs behind it. */
  runs: EvaluatedRun[];
  figures: Partial<Record<PublishedName, Figure>>;
}

/** Everything that a report says. */
export interface Evaluation {
  runs: EvaluatedRun[];
  protocols: ProtocolRuns[];
  table: ResultRow[];
}

/** What the protocols are called. */
export const protocolTitles: Record<JudgeProtocol, string> = {
  "mt-bench": "MT-Bench",
  "mt-bench-pair": "MT-Bench pairs",
  "alpaca-eval-1.0": "AlpacaEval 1.0",
  "alpaca-eval-2.0": "AlpacaEval 2.0",
};

/**
 * Puts runs together. The first of each protocol is what the others are compared with.
 *
 * @throws ConfigError `ZA_CONFIG_INVALID` when there is none
 */
export function evaluationOf(results: readonly JudgeResult[]): Evaluation {
  if (results.length === 0) {
    const remedy = "Give at least one file that zephyr-align eval has written with --json.";
    throw new ConfigError("ZA_CONFIG_INVALID", "there are no judged runs to report", { remedy });
  }
  const labels = labelsOf(results);
  const different = [...new Set(labels)];
  const runs = results.map((result, at) => ({ label: labels[at]!, index: different.indexOf(labels[at]!), result }));
  const protocols = [...new Set(results.map(({ protocol }) => protocol))].map((protocol): ProtocolRuns => {
    const mine = runs.filter(({ result }) => result.protocol === protocol);
    const [first, ...others] = mine;
    return {
      protocol,
      title: protocolTitles[protocol],
      runs: mine,
      comparisons: others.map((other) => compareRuns(first!, other)),
    };
  });
  return { runs, protocols, table: tableOf(runs) };
}

/** The model's name, with what tells it from another run of the same model under the same protocol. */
function labelsOf(results: readonly JudgeResult[]): string[] {
  const name = ({ model, opponent, protocol }: JudgeResult) =>
    protocol === "mt-bench-pair" && opponent ? `${model.name} against ${opponent.name}` : model.name;
  const more: ((result: JudgeResult, index: number) => string)[] = [
    name,
    (result) => `${name(result)}, judged by ${result.judge.asked}`,
    (result) => `${name(result)}, ${result.createdAt.slice(0, 16).replace("T", " ")}`,
    (result) => `${name(result)}, ${result.createdAt.slice(0, 16).replace("T", " ")}, judged by ${result.judge.asked}`,
    (result, index) => `${name(result)} (${index + 1})`,
  ];
  return results.map((result, index) => {
    const rivals = results.filter((each) => each.protocol === result.protocol && name(each) === name(result));
    const form =
      rivals.length === 1
        ? name
        : more.find(
            (each) => new Set(rivals.map((rival) => each(rival, results.indexOf(rival)))).size === rivals.length,
          );
    return (form ?? name)(result, index);
  });
}

/** One row for each model; a model that is judged twice under a protocol has a row for each time. */
function tableOf(runs: readonly EvaluatedRun[]): ResultRow[] {
  const rows: ResultRow[] = [];
  for (const run of runs) {
    const { result, label } = run;
    const column = columnOf(result.protocol);
    if (!column) continue;
    const figures: ResultRow["figures"] = { [column]: result.figures[0]! };
    const controlled = result.figures.find(({ name }) => name === "length_controlled_win_rate");
    if (result.protocol === "alpaca-eval-2.0") {
      figures[column] = result.figures.find(({ name }) => name === "win_rate") ?? result.figures[0]!;
      if (controlled) figures["alpaca-eval-2.0-lc"] = controlled;
    }
    const open = rows.find(({ model, figures: there }) => model === result.model.name && !(column in there));
    if (open && label === result.model.name) {
      open.runs.push(run);
      Object.assign(open.figures, figures);
    } else rows.push({ model: label, runs: [run], figures });
  }
  return rows;
}

/** A figure as it is published: two digits after the point. */
export function shown(value: number | null, digits = 2): string {
  return value === null ? "–" : value.toFixed(digits);
}

/** The interval behind a figure. */
export function interval({ low, high }: { low: number | null; high: number | null }): string {
  return low === null || high === null ? "" : `${low.toFixed(2)} to ${high.toFixed(2)}`;
}

/** With its sign, as differences are read. */
export function signed(value: number): string {
  const text = value.toFixed(2);
  return Number(text) > 0 ? `+${text}` : text.replace("-", "−");
}

/** What a reader must know, alarms first; each with the run that it is about. */
export function alarmsOf({ runs }: Evaluation): { run: string; text: string; alarm: boolean }[] {
  return runs.flatMap(({ label, result }) => {
    const { canaries, flaggedAnswers, completeness, mode, warnings, failures } = result;
    const canary = canaries
      .filter(({ flagged }) => flagged)
      .map(
        ({ name, score, limit }) =>
          `The judge gives the canary "${name}" ${shown(score)}, ${shown(limit)} or more is an alarm: its scores mean little.`,
      );
    const share = completeness.expected > 0 ? completeness.judged / completeness.expected : 1;
    const said = [
      ...(share < completeness.floor
        ? [
            `Only ${completeness.judged} of ${completeness.expected} judgments are in the figures, fewer than the floor of ${completeness.floor}.`,
          ]
        : []),
      ...(flaggedAnswers.length > 0
        ? [
            `${flaggedAnswers.length === 1 ? "1 answer speaks" : `${flaggedAnswers.length} answers speak`} to the judge.`,
          ]
        : []),
    ];
    const notes = [
      ...(mode === "compat" ? ["Computed as the benchmark's own scripts do (compat), with their faults."] : []),
      ...(failures.length > 0 && share >= completeness.floor
        ? [`${failures.length} of ${completeness.expected} judgments are missing in the figures.`]
        : []),
      // The harness says some of this as well.
      ...warnings.filter(
        (text) => !/judgments are missing|comparisons are missing|likes answers that say nothing/.test(text),
      ),
    ];
    return [
      ...[...canary, ...said].map((text) => ({ run: label, text, alarm: true })),
      ...notes.map((text) => ({ run: label, text, alarm: false })),
    ];
  });
}
