/**
 * A judged run as one JSON document: what was asked, what was answered, what the judge said, and the figures with all that
 * belongs to them. Harnesses write it (`--json`), the report page and comparisons read it.
 *
 * One document is one model under one protocol (against one opponent where the protocol compares). Numbers that are not
 * known are null, never NaN, so that a document survives JSON unchanged.
 */

/** How answers are judged. */
export const judgeProtocols = ["mt-bench", "mt-bench-pair", "alpaca-eval-1.0", "alpaca-eval-2.0"] as const;

/** One of {@link judgeProtocols}. */
export type JudgeProtocol = (typeof judgeProtocols)[number];

/** Version of the document; a reader refuses what it does not know. */
export const judgeResultFormat = "zephyr-align/judge-result/1";

/** A judged run. */
export interface JudgeResult {
  format: typeof judgeResultFormat;
  protocol: JudgeProtocol;
  /**
   * `strict` is ours: joined by id, failures listed and never scored, nothing below the completeness floor. `compat` gives
   * the figures of the benchmark's own scripts, with their faults.
   */
  mode: "strict" | "compat";
  /** ISO 8601, in UTC. */
  createdAt: string;
  model: JudgedModel;
  /** Whom the model is compared with; null where answers are graded alone. */
  opponent: JudgedModel | null;
  judge: JudgeIdentity;
  /**
   * What `score` means everywhere in this document: `rating` is 1–10; `win` is the model's share of a win, from 0 (the
   * opponent wins) over 0.5 (tie) to 1.
   */
  scale: "rating" | "win";
  /** Figures in the order in which they are shown; the first is the headline. */
  figures: Figure[];
  /** Wins, losses and ties of turns; null where answers are graded alone. */
  counts: { wins: number; losses: number; ties: number } | null;
  /** One for each question, in the order of the benchmark. */
  rows: JudgedRow[];
  completeness: Completeness;
  bias: BiasFigures;
  canaries: CanaryResult[];
  /** Answers of the model that speak to the judge. They are judged all the same. */
  flaggedAnswers: FlaggedAnswer[];
  failures: JudgeFailure[];
  hashes: JudgeHashes;
  cost: JudgeCost;
  /** Things a reader must know beside the figures, in whole sentences. */
  warnings: string[];
  /** Versions of what made the document, for example of `zephyr-align` and `node`. */
  versions: Record<string, string>;
}

/** Whose answers are judged. */
export interface JudgedModel {
  name: string;
  /** Whether the answers were generated in this run or read from a file. */
  answers: "generated" | "file";
  /** File of the answers; null when they were only in memory. */
  file: string | null;
  /** Chat template of the answers (name or `sha256:…` of its source); null when the file of the answers does not say. */
  template: string | null;
  /** How it answered; null when the file of the answers does not say. */
  sampling: { maxTokens: number; temperature: number | "by category"; choices: number; seed: number } | null;
  /** Mean length of an answer in Unicode code points; null when there is none. */
  meanLength: number | null;
}

/** Who judged. */
export interface JudgeIdentity {
  /** The name that was asked for. */
  asked: string;
  /** The ids that came back with the answers, the most frequent first: an alias may be moved silently. */
  returned: { id: string; answers: number }[];
  sampling: { temperature: number; maxTokens: number; topLogprobs: number | null };
}

/** A figure with how many, how sure, and how stable. */
export interface Figure {
  /**
   * Stable name: `score`, `turn_1`, `turn_2`, `category/<name>`, `win_rate`, `discrete_win_rate`,
   * `length_controlled_win_rate`.
   */
  name: string;
  /** For people, for example `Writing`. */
  label: string;
  group: "overall" | "turn" | "category";
  /** `points` of 10, or `percent`. */
  unit: "points" | "percent";
  /** null when nothing was judged. */
  value: number | null;
  /** 95 % interval by bootstrap over questions (seeded); null for fewer than two questions. */
  low: number | null;
  high: number | null;
  /** Sample deviation over √n, where the benchmark publishes one; else null. */
  standardError: number | null;
  /** Judgments in it. */
  n: number;
  /** Questions in it. */
  questions: number;
  /** Times that everything was judged. */
  repeats: number;
  /** The figure of each repeat alone. */
  byRepeat: number[];
  /** Largest minus smallest of `byRepeat`; null for one repeat. */
  spread: number | null;
}

/** A question with everything that was said about it. */
export interface JudgedRow {
  /** MT-Bench's question id, or the first 16 hex digits of sha256 of AlpacaEval's instruction. */
  id: number | string;
  /** MT-Bench's category, AlpacaEval's data set; null when the file does not say. */
  category: string | null;
  turns: JudgedTurn[];
}

/** One turn of a question. */
export interface JudgedTurn {
  turn: 1 | 2;
  /** What the user says. */
  prompt: string;
  /** The reference answer that the judge saw; null where the protocol shows none. */
  reference: string | null;
  /** What the model said; null when only the judgments are known. */
  answer: string | null;
  /** What the opponent said; null where answers are graded alone, or only the judgments are known. */
  opponentAnswer: string | null;
  /** By the rule of the protocol out of `verdicts`, mean of the repeats; null when no verdict can be used. */
  score: number | null;
  /** Every call, repeats and both orders; empty when no judge was needed (equal answers). */
  verdicts: Verdict[];
}

/** One answer of the judge. */
export interface Verdict {
  /** Counted from 0. */
  repeat: number;
  /** Name of the judge's prompt, for example `single-math-v1-multi-turn`. */
  prompt: string;
  /** Whose answer was shown first; null where answers are graded alone. */
  first: "model" | "opponent" | null;
  /** What the judge wrote. */
  text: string;
  /** In the document's `scale`, from the model's view; null when it cannot be read. */
  score: number | null;
  /** Why there is no score; null when there is one. */
  problem: string | null;
  /** Times that the judge was asked until this text. */
  tries: number;
}

/** How much of the benchmark is in the figures. */
export interface Completeness {
  /** Judgments that a whole run has. */
  expected: number;
  /** Those with a usable verdict. */
  judged: number;
  /** Share of `expected` under which no figure is given. */
  floor: number;
}

/** What pulls the judge besides quality. null: the protocol cannot tell. */
export interface BiasFigures {
  /** Share of decided comparisons that the answer shown first wins; 0.5 is none. */
  firstPosition: { rate: number; n: number } | null;
  /** Share of comparisons whose winner changes when the order is swapped. */
  swapFlips: { rate: number; n: number } | null;
  /**
   * Pearson correlation of score with the length of the answer in code points; where two are compared, with the
   * difference of the lengths.
   */
  lengthCorrelation: { r: number; n: number } | null;
  /** Share of decided comparisons that the longer answer wins. */
  longerWins: { rate: number; n: number } | null;
}

/** A constant answer that deserves nothing, judged in the place of the model's. */
export interface CanaryResult {
  /** For example `empty`, `constant`, `commands-judge`. */
  name: string;
  /** The constant text. */
  answer: string;
  /** Questions that it was judged on. */
  n: number;
  /** Mean in the document's `scale`; null when no verdict could be used. */
  score: number | null;
  /** From this score on the judge cannot be trusted. */
  limit: number;
  /** Whether it reached the limit. */
  flagged: boolean;
}

/** An answer that speaks to the judge. */
export interface FlaggedAnswer {
  id: number | string;
  turn: 1 | 2;
  /** The words that gave it away. */
  excerpt: string;
}

/** A judgment that is missing in the figures. It is retried by the next run. */
export interface JudgeFailure {
  id: number | string;
  turn: 1 | 2;
  repeat: number;
  first: "model" | "opponent" | null;
  problem: string;
}

/** sha256 (hex) of what the run was made of, so that two runs can be told to be comparable. */
export interface JudgeHashes {
  /** Of the questions' or instructions' file. */
  questions: string;
  /** Of the judge's prompts, as read from the benchmark's files; null when only the judgments are known. */
  prompts: string | null;
  /** Of the reference answers; null where none are shown. */
  references: string | null;
  /** Of the model's answers as judged; null when only the judgments are known. */
  answers: string | null;
}

/** What the judge took. */
export interface JudgeCost {
  calls: number;
  /** Answers that came out of the journal or of a judgment file, without a new call. */
  reused: number;
  promptTokens: number;
  completionTokens: number;
  /** Dollars of the new calls by the price table; null when a price is not known. */
  dollars: number | null;
}
