import type { Dataset } from "../../data";
import { isDataset } from "../../data/dataset-type";
import { argumentError, type Message } from "../../data/messages";
import { wordsOf } from "../../data/word-runs";
import { DataError } from "../../errors";
import { draw, drawOne } from "../draw";
import { type FeedbackCompletion, type FeedbackRow, feedbackRow } from "../feedback-row";
import { meanWith } from "../generate/report";
import { promptId } from "../prompt-id";
import { promptText } from "../rate/prompts";
import { type BinariseOptions, type BinariseSettings, binariseSettings } from "./options";

/** A row of ultrafeedback_binarized. */
export interface PreferenceRow {
  prompt: string;
  /** SHA-256 of the prompt. */
  prompt_id: string;
  /** The conversation with the chosen answer. */
  chosen: Message[];
  rejected: Message[];
  /** The conversation with the chosen answer, as a row for supervised training. */
  messages: Message[];
  score_chosen: number;
  score_rejected: number;
}

/** A pair with its split; `small` pairs of the test split are in `test_sft` and `test_gen` too. */
export interface BinarisedPair {
  row: PreferenceRow;
  split: "train" | "test";
  small: boolean;
}

/** Why a row gives no pair. */
export const pairDropReasons = {
  unreadable: "the row cannot be read",
  source: "its source is excluded",
  overlap: "the prompt overlaps with a text to be kept out",
  duplicate: "the prompt was there before",
  unscored: "fewer than two answers have a score and a text",
  tie: "no other answer has a lower score",
  margin: "no other answer is lower by the least margin",
  equal: "chosen and rejected are the same text",
} as const;

/** A key of {@link pairDropReasons}. */
export type PairDropReason = keyof typeof pairDropReasons;

/** What a binarisation made, and dropped and why. Grows while it goes on. */
export interface BinariseReport {
  rows: number;
  pairs: number;
  splits: { train: number; test: number };
  dropped: Partial<Record<PairDropReason, { count: number; examples: string[] }>>;
  /** Overlaps by the source of the text. */
  overlaps: Record<string, number>;
  /** Answers left out because they have no score or no text. */
  answersLeftOut: number;
  /** Overall scores of 10 against ratings of at most 4: how many were made 1, dropped, or kept. */
  tens: { repaired: number; dropped: number; kept: number };
  scores: { chosen: number; rejected: number };
  /** Share of pairs whose chosen answer has more words: preference for length alone would show here. */
  longerChosen: number;
  chosenBy: Record<string, number>;
  rejectedBy: Record<string, number>;
}

/** Pairs as they are made, and a report that grows with them. */
export interface Binarisation extends AsyncIterable<BinarisedPair> {
  readonly settings: BinariseSettings;
  readonly report: BinariseReport;
}

/** How unreadable rows are met. */
export interface BadRowOption {
  /** `"skip"` drops rows that cannot be read and counts them. @default "error" */
  onBadRow?: "error" | "skip" | undefined;
}

/** Examples of each reason that are kept. */
const examplesKept = 5;

/**
 * Makes preference pairs of rated answers (raw UltraFeedback's rows, in any of our data sets). Every choice depends on the
 * seed and the prompt only, not on the order of the rows. Of equal best answers the first is chosen, as numpy's argmax does.
 *
 * @throws ConfigError `ZA_CONFIG_INVALID`; while iterating DataError `ZA_DATA_FORMAT` for other columns, `ZA_DATA_ROW`
 */
export function binarise(rows: Dataset<unknown>, options: BinariseOptions & BadRowOption = {}): Binarisation {
  if (!isDataset(rows)) throw argumentError("rows", "a data set", rows, "Open the rows first: dataset(source).");
  const { overlap, onBadRow = "error", ...input } = options;
  const settings = binariseSettings(input);
  const report = emptyReport();

  async function* made(): AsyncGenerator<BinarisedPair> {
    const seen = new Set<string>();
    for await (const read of rows.rows()) {
      report.rows++;
      let row: FeedbackRow;
      try {
        if (read.error) throw read.error;
        row = feedbackRow(read.value, read.place);
      } catch (error) {
        // Other columns are a fault of the whole file.
        const skip = onBadRow === "skip" && error instanceof DataError && error.code !== "ZA_DATA_FORMAT";
        if (!skip) throw error;
        drop(report, "unreadable", error.message);
        continue;
      }
      const history = row.history ?? [];
      const prompt = promptText({ history, instruction: row.instruction });
      const id = promptId(prompt);
      if (settings.excludeSources.includes(row.source)) {
        drop(report, "source", row.instruction);
        continue;
      }
      const found = overlap?.find(row.instruction) ?? (history.length > 0 ? overlap?.find(prompt) : undefined);
      if (found) {
        const key = `${found.name} (${found.kind})`;
        report.overlaps[key] = (report.overlaps[key] ?? 0) + 1;
        drop(report, "overlap", row.instruction);
        continue;
      }
      if (seen.has(id)) {
        drop(report, "duplicate", row.instruction);
        continue;
      }
      seen.add(id);
      const chosen = choose(row, id, settings, report);
      if (typeof chosen === "string") {
        drop(report, chosen, row.instruction);
        continue;
      }
      yield pairOf(row, prompt, id, chosen, settings, report);
    }
  }
  return { settings, report, [Symbol.asyncIterator]: made };
}

interface Scored {
  completion: FeedbackCompletion;
  score: number;
}

interface Choice {
  chosen: Scored;
  rejected: Scored;
}

function choose(
  row: FeedbackRow,
  id: string,
  settings: BinariseSettings,
  report: BinariseReport,
): Choice | PairDropReason {
  const { rejected: rule, ties, minMargin, seed } = settings;
  const scored: Scored[] = row.completions.flatMap((completion) => {
    const score = scoreOf(completion, settings, report);
    if (score !== null && completion.response.trim() !== "") return [{ completion, score }];
    report.answersLeftOut++;
    return [];
  });
  if (scored.length < 2) return "unscored";
  const best = Math.max(...scored.map(({ score }) => score));
  const chosen = scored.find(({ score }) => score === best)!;
  const others = scored.filter((each) => each !== chosen);
  const lower = others.filter(({ score }) => score < best);
  if (ties === "drop" && lower.length === 0) return "tie";
  const fitting = ties === "keep" ? others : lower.filter(({ score }) => best - score >= minMargin);
  if (fitting.length === 0) return "margin";
  const least = Math.min(...fitting.map(({ score }) => score));
  const lowest = fitting.filter(({ score }) => score === least);
  const rejected = drawOne(rule === "lowest" ? lowest : fitting, seed, "rejected", id);
  return chosen.completion.response === rejected.completion.response ? "equal" : { chosen, rejected };
}

/** From here an overall score of 10 is believed, and below it was a 1: OpenBMB's limits. */
const believedFrom = 4;
const surelyOne = 2;

/** The score that answers are compared by. The two kinds have different scales and are never mixed. */
function scoreOf(
  completion: FeedbackCompletion,
  { score, tens }: BinariseSettings,
  report: BinariseReport,
): number | null {
  const { overall_score: overall, "fine-grained_score": mean } = completion;
  if (score === "mean") return mean;
  if (overall !== 10 || mean === null || mean > believedFrom) return overall;
  if (tens === "keep") {
    report.tens.kept++;
    return overall;
  }
  if (mean <= surelyOne) {
    report.tens.repaired++;
    return 1;
  }
  report.tens.dropped++;
  return null;
}

function pairOf(
  row: FeedbackRow,
  prompt: string,
  prompt_id: string,
  { chosen, rejected }: Choice,
  { seed, testShare }: BinariseSettings,
  report: BinariseReport,
): BinarisedPair {
  const before: Message[] = [...(row.history ?? []), { role: "user", content: row.instruction }];
  const withAnswer = ({ completion }: Scored): Message[] => [
    ...before,
    { role: "assistant", content: completion.response },
  ];
  const split = draw(seed, "test", prompt_id) < testShare ? "test" : "train";
  const n = ++report.pairs;
  report.splits[split]++;
  report.scores.chosen = meanWith(report.scores.chosen, n, chosen.score);
  report.scores.rejected = meanWith(report.scores.rejected, n, rejected.score);
  const length = ({ completion }: Scored) => wordsOf(completion.response).length;
  report.longerChosen = meanWith(report.longerChosen, n, length(chosen) > length(rejected) ? 1 : 0);
  countBy(report.chosenBy, chosen.completion.model);
  countBy(report.rejectedBy, rejected.completion.model);
  return {
    row: {
      prompt,
      prompt_id,
      chosen: withAnswer(chosen),
      rejected: withAnswer(rejected),
      messages: withAnswer(chosen),
      score_chosen: chosen.score,
      score_rejected: rejected.score,
    },
    split,
    small: split === "test" && draw(seed, "small", prompt_id) < 0.5,
  };
}

function countBy(counts: Record<string, number>, key: string): void {
  counts[key] = (counts[key] ?? 0) + 1;
}

function drop(report: BinariseReport, reason: PairDropReason, example: string): void {
  const entry = report.dropped[reason] ?? { count: 0, examples: [] };
  report.dropped[reason] = entry;
  entry.count++;
  if (entry.examples.length < examplesKept)
    entry.examples.push(example.length > 160 ? `${example.slice(0, 157)}…` : example);
}

function emptyReport(): BinariseReport {
  return {
    rows: 0,
    pairs: 0,
    splits: { train: 0, test: 0 },
    dropped: {},
    overlaps: {},
    answersLeftOut: 0,
    tens: { repaired: 0, dropped: 0, kept: 0 },
    scores: { chosen: 0, rejected: 0 },
    longerChosen: 0,
    chosenBy: {},
    rejectedBy: {},
  };
}
