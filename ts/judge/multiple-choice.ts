/** Multiple choice by log-probability, as lm-evaluation-harness computes it: `acc` and `acc_norm` with their standard errors. */
import { z } from "zod";
import type { NativeSession } from "../../bindings/node/index";
import { DataError, fromNative, type Place, throwIfAborted } from "../errors";
import type { Mistral } from "../model/mistral";
import type { EncodedRow, Tokenizer } from "../model/tokenizer";
import { resolveConfig, sftConfig } from "../train/config";
import { nativeBatch } from "../train/native-batch";
import { openSession } from "../train/run";
import { codePoints } from "./bias";
import type { Measured } from "./logprob";
import { type Placed, readRows } from "./rows";
import { standardError } from "./statistics";

/** A question with its choices. */
export interface ChoiceQuestion {
  /** What stands before the choice, without a space at the end. */
  context: string;
  choices: string[];
  /** Index of the right choice. */
  answer: number;
}

/** How a file's rows are laid out, by the columns that were found. */
export type ChoiceFormat = "arc" | "hellaswag" | "choices";

/** Columns that each format is known by. */
export const choiceFormats: Readonly<Record<ChoiceFormat, string>> = {
  arc: "question, choices {text, label} (or question {stem, choices}), answerKey: ARC, OpenBookQA",
  hellaswag: "ctx_a, ctx_b, activity_label, endings, label: HellaSwag",
  choices: "context (or question), choices [text], answer (index or letter)",
};

/** Figures of multiple-choice questions. */
export interface ChoiceEvaluation {
  kind: "choice";
  format: ChoiceFormat;
  n: number;
  /** How often the right choice has the highest log-probability. */
  acc: Measured;
  /** The same, each log-probability divided by the choice's length in characters (code points). */
  accNorm: Measured;
  /** Questions whose context was cut at its beginning to fit. */
  cut: number;
  rows: { answer: number; picked: number; pickedNorm: number; logprobs: number[] }[];
}

/** How questions are read and scored. */
export interface ChoiceOptions {
  /** Longest sequence in tokens; a longer one loses the beginning of its context. @default the model's positions */
  maxLength?: number;
  /** Solved questions in front of each context, for example from a training split. @default none */
  shots?: readonly ChoiceQuestion[];
  /** First questions only. */
  limit?: number;
  /** Threads of the core. @default all cores */
  threads?: number;
  signal?: AbortSignal;
  /** Called after each question. */
  onRow?: (done: number, rows: number) => void;
}

/**
 * Questions of a file, its format recognised by its columns.
 *
 * @throws DataError `ZA_DATA_FORMAT` for columns that fit none, `ZA_DATA_ROW` for a row that does not fit.
 */
export async function readChoices(file: string): Promise<{ format: ChoiceFormat; questions: ChoiceQuestion[] }> {
  const rows = await readRows(file, z.record(z.string(), z.unknown()));
  if (rows.length === 0) {
    throw new DataError("ZA_DATA_EMPTY", "the file has no row", { place: { file }, remedy: "Give another file." });
  }
  const format = formatOf(rows[0]!);
  return { format, questions: rows.map(({ value, place }) => readers[format](value, place)) };
}

type Row = Record<string, unknown>;

function formatOf({ value, place }: Placed<Row>): ChoiceFormat {
  if ("endings" in value) return "hellaswag";
  if ("answerKey" in value) return "arc";
  if ("choices" in value) return "choices";
  throw new DataError(
    "ZA_DATA_FORMAT",
    `the columns ${Object.keys(value).join(", ")} are no multiple-choice questions`,
    {
      place,
      remedy: `Known are: ${Object.values(choiceFormats).join("; ")}.`,
    },
  );
}

const readers: Readonly<Record<ChoiceFormat, (row: Row, place: Place) => ChoiceQuestion>> = {
  arc: (row, place) => {
    const question = row.question;
    const nested = typeof question === "object" && question !== null ? (question as Row) : undefined;
    const stem = textOf(nested ? nested.stem : (question ?? row.question_stem), "question", place);
    const listed = nested ? nested.choices : row.choices;
    const pairs = Array.isArray(listed)
      ? (listed as Row[]).map(({ text, label }) => ({ text, label }))
      : arrayOf((listed as Row | undefined)?.text, "choices.text", place).map((text, i) => ({
          text,
          label: arrayOf((listed as Row).label, "choices.label", place)[i],
        }));
    const answer = pairs.findIndex(({ label }) => String(label) === String(row.answerKey));
    const choices = pairs.map(({ text }, i) => textOf(text, `choices.text[${i}]`, place));
    return checked({ context: `Question: ${stem}\nAnswer:`, choices, answer }, "answerKey", place);
  },
  hellaswag: (row, place) => {
    const text = (name: string) => textOf(row[name], name, place);
    const context = tidied(`${text("activity_label")}: ${text("ctx_a")} ${capitalised(text("ctx_b"))}`);
    const choices = arrayOf(row.endings, "endings", place).map((each, i) =>
      tidied(textOf(each, `endings[${i}]`, place)),
    );
    return checked({ context, choices, answer: Number(row.label === "" ? Number.NaN : row.label) }, "label", place);
  },
  choices: (row, place) => {
    const name = ["context", "question", "query", "prompt"].find((each) => each in row) ?? "context";
    const choices = arrayOf(row.choices, "choices", place).map((each, i) => textOf(each, `choices[${i}]`, place));
    const given = row.answer ?? row.label ?? row.gold;
    const letter =
      typeof given === "string" && /^[A-Za-z]$/.test(given) ? given.toUpperCase().charCodeAt(0) - 65 : undefined;
    return checked(
      { context: textOf(row[name], name, place), choices, answer: letter ?? Number(given) },
      "answer",
      place,
    );
  },
};

function checked(question: ChoiceQuestion, field: string, place: Place): ChoiceQuestion {
  const { choices, answer } = question;
  if (choices.length < 2) throw badRow(`there are ${choices.length} choices`, "choices", place);
  if (!Number.isInteger(answer) || answer < 0 || answer >= choices.length) {
    throw badRow(`it names none of the ${choices.length} choices`, field, place);
  }
  const empty = choices.indexOf("");
  if (empty >= 0) throw badRow("a choice is empty", `choices[${empty}]`, place);
  return question;
}

function textOf(value: unknown, field: string, place: Place): string {
  if (typeof value === "string") return value;
  throw badRow("it is not text", field, place);
}

function arrayOf(value: unknown, field: string, place: Place): unknown[] {
  if (Array.isArray(value)) return value;
  throw badRow("it is not a list", field, place);
}

function badRow(problem: string, field: string, place: Place): DataError {
  return new DataError("ZA_DATA_ROW", problem, {
    place: { ...place, field },
    remedy: `Known layouts: ${Object.values(choiceFormats).join("; ")}.`,
  });
}

/** What HellaSwag's WikiHow part left in its texts goes, as in lm-evaluation-harness. */
function tidied(text: string): string {
  return text
    .trim()
    .replaceAll(" [title]", ". ")
    .replaceAll(/\[.*?\]/g, "")
    .replaceAll("  ", " ");
}

/** Python's `str.capitalize`. */
function capitalised(text: string): string {
  const [first = "", ...rest] = text;
  return first.toUpperCase() + rest.join("").toLowerCase();
}

/** Scores each choice after its context, and picks the likeliest. */
export async function evaluateChoices(
  model: Mistral,
  file: string,
  options: ChoiceOptions = {},
): Promise<ChoiceEvaluation> {
  const { format, questions: all } = await readChoices(file);
  const questions = all.slice(0, options.limit);
  const maxLength = Math.min(options.maxLength ?? Number.POSITIVE_INFINITY, model.config.max_position_embeddings);
  const config = resolveConfig(sftConfig, { maxLength, threads: options.threads });
  const front = (options.shots ?? [])
    .map(({ context, choices, answer }) => `${context} ${choices[answer]}\n\n`)
    .join("");
  const session = openSession(model, config, { signal: options.signal });
  const rows: ChoiceEvaluation["rows"] = [];
  let cut = 0;
  try {
    for (const { context, choices, answer } of questions) {
      throwIfAborted(options.signal);
      const encoded = choices.map((choice) => encodedChoice(model.tokenizer, `${front}${context}`, choice, maxLength));
      if (encoded.some((each) => each.cut)) cut++;
      const logprobs = await logprobsOf(session, encoded);
      const lengths = choices.map(codePoints);
      const picked = highest(logprobs);
      const pickedNorm = highest(logprobs.map((logprob, i) => logprob / lengths[i]!));
      rows.push({ answer, picked, pickedNorm, logprobs });
      options.onRow?.(rows.length, questions.length);
    }
  } catch (error) {
    throw fromNative(error);
  } finally {
    await session.release();
  }
  const measured = (right: (row: ChoiceEvaluation["rows"][number]) => boolean): Measured => {
    const { mean, error } = standardError(rows.map((row) => (right(row) ? 1 : 0)));
    return { value: mean, error };
  };
  return {
    kind: "choice",
    format,
    n: rows.length,
    acc: measured(({ answer, picked }) => answer === picked),
    accNorm: measured(({ answer, pickedNorm }) => answer === pickedNorm),
    cut,
    rows,
  };
}

async function logprobsOf(session: NativeSession, rows: readonly EncodedRow[]): Promise<number[]> {
  return Array.from(await session.sequenceLogps(nativeBatch(rows)));
}

/**
 * Context and choice as one text, its choice supervised. As in lm-evaluation-harness a space stands between them, spaces at
 * the end of the context go over to the choice, and the choice's tokens are those after as many as the context has alone.
 */
export function encodedChoice(
  tokenizer: Tokenizer,
  context: string,
  choice: string,
  maxLength: number,
): EncodedRow & { cut: boolean } {
  const encode = (text: string) => Array.from(tokenizer.encode(text, { addSpecialTokens: true }));
  const whole = encode(`${context} ${choice}`);
  let first = encode(context.trimEnd()).length;
  if (first === 0) {
    // Without a context, something must still stand before the first token that is scored.
    whole.unshift(tokenizer.bosTokenId ?? tokenizer.eosTokenId ?? 0);
    first = 1;
  }
  const start = Math.max(0, whole.length - maxLength);
  const ids = Uint32Array.from(whole.slice(start));
  const supervised = new Uint8Array(ids.length).fill(1, Math.max(1, first - start));
  return { ids, supervised, cut: start > 0 };
}

/** The first of the highest, as numpy's argmax. */
function highest(values: readonly number[]): number {
  return values.reduce((best, value, i) => (value > values[best]! ? i : best), 0);
}
