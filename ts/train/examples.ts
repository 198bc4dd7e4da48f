/**
 * From rows to token sequences: every row of a data set is encoded once, before the first step, so that what cannot be
 * trained on is refused or counted then, and the number of steps is known. Held as typed arrays (5 bytes a token).
 */
import type { ConvertedDataset, DataReport, PairRow, SftRow, UnpairedRow } from "../data";
import { DataError, fromNative, type Place, throwIfAborted, type ZephyrError } from "../errors";
import type { EncodedChat, EncodedPair, EncodedRow, EncodeOptions, Tokenizer } from "../model/tokenizer";
import { hashRows } from "./reference-cache";
import { type Fitted, keepAnswers, keepBothAnswers, keepCompletion, keepPairStart, keepStart } from "./truncate";

/** How rows are encoded and fitted. */
export interface ExampleOptions extends EncodeOptions {
  maxLength: number;
  truncation: "keep-answer" | "keep-start";
  onBadRow: "error" | "skip";
  signal?: AbortSignal;
}

/** What encoding found, besides the data report. */
export interface ExampleReport extends DataReport {
  /** Tokens of the kept sequences, prompts included. */
  tokens: number;
  /** Supervised tokens of the kept sequences. */
  supervisedTokens: number;
  /** Rows that lost tokens to maxLength. */
  cutRows: number;
  /** Tokens lost to maxLength. */
  cutTokens: number;
  /** Tokens that straddle the edge between template and content. */
  straddlingTokens: number;
  /** Single answers in the kept rows (KTO): a pair has two. */
  answers?: number;
}

/** Encoded rows. */
export interface Examples<T> {
  rows: T[];
  report: ExampleReport;
}

/** Supervised tokens that can be predicted: all but a sequence's first. */
export function predictedTokens(row: EncodedRow): number {
  let count = 0;
  for (let position = 1; position < row.supervised.length; position++) count += row.supervised[position]!;
  return count;
}

/** The same of both answers of some pairs. */
export function answerTokens(pairs: readonly EncodedPair[]): number {
  return pairs.reduce((sum, { chosen, rejected }) => sum + predictedTokens(chosen) + predictedTokens(rejected), 0);
}

/** Hash of pairs as a loss sees them. */
export function hashPairs({ rows }: Examples<EncodedPair>): string {
  return hashRows(rows.flatMap(({ chosen, rejected }) => [chosen, rejected]));
}

/** How rows of supervised fine-tuning are encoded. */
export type SftExampleOptions = ExampleOptions & { lossOn: "assistant" | "all" };

/** How pairs are encoded. */
export type PairExampleOptions = ExampleOptions & { maxPromptLength: number | null };

/** A whole row of supervised fine-tuning as tokens. */
export function encodeSft(row: SftRow, tokenizer: Tokenizer, options: SftExampleOptions): EncodedRow | EncodedChat {
  if (row.kind === "text") return tokenizer.encodeText(row.text, options);
  if (row.kind === "prompt-completion") {
    return learnAll(tokenizer.encodePromptCompletion(row.prompt, row.completion, options), options.lossOn);
  }
  const chat = tokenizer.encodeChat(row.messages, options);
  leaveOutGiven(chat, row.supervisedFrom);
  return learnAll(chat, options.lossOn);
}

/** What of a whole row fits; `undefined` when its answer does not. */
export function fitSft(
  kind: SftRow["kind"],
  encoded: EncodedRow | EncodedChat,
  { maxLength, truncation, lossOn }: SftExampleOptions,
): Fitted<EncodedRow> | undefined {
  if (kind === "text" || truncation === "keep-start" || lossOn === "all") return keepStart(encoded, maxLength);
  return "owners" in encoded ? keepAnswers(encoded, maxLength) : keepCompletion(encoded, maxLength);
}

/** A whole pair as tokens. */
export function encodePair(row: PairRow, tokenizer: Tokenizer, options: EncodeOptions): EncodedPair {
  return row.kind === "chat" ? tokenizer.encodePair(row, options) : tokenizer.encodePairText(row, options);
}

/** What of a whole pair fits; `undefined` when an answer does not. */
export function fitPair(pair: EncodedPair, options: PairExampleOptions): Fitted<EncodedPair> | undefined {
  return options.truncation === "keep-start"
    ? keepPairStart(pair, options.maxLength)
    : keepBothAnswers(pair, options.maxLength, options.maxPromptLength);
}

/** One row as the trainer learns it; `undefined` when its answer does not fit. */
export function sftExample(
  row: SftRow,
  tokenizer: Tokenizer,
  options: SftExampleOptions,
  count: Counter,
): Fitted<EncodedRow> | undefined {
  const encoded = encodeSft(row, tokenizer, options);
  if ("straddling" in encoded) count.straddling += encoded.straddling;
  return fitSft(row.kind, encoded, options);
}

/** One pair as the trainer learns it; `undefined` when an answer does not fit. */
export function pairExample(
  row: PairRow,
  tokenizer: Tokenizer,
  options: PairExampleOptions,
): Fitted<EncodedPair> | undefined {
  return fitPair(encodePair(row, tokenizer, options), options);
}

/** Encodes rows for supervised fine-tuning. */
export function sftExamples(
  dataset: ConvertedDataset<SftRow>,
  tokenizer: Tokenizer,
  options: SftExampleOptions,
): Promise<Examples<EncodedRow>> {
  const fit = (row: SftRow, count: Counter) => sftExample(row, tokenizer, options, count);
  return encodeAll(dataset, options, fit, (row) => [row]);
}

/** Encodes preference pairs. */
export function pairExamples(
  dataset: ConvertedDataset<PairRow>,
  tokenizer: Tokenizer,
  options: PairExampleOptions,
): Promise<Examples<EncodedPair>> {
  const fit = (row: PairRow) => pairExample(row, tokenizer, options);
  return encodeAll(dataset, options, fit, (pair) => [pair.chosen, pair.rejected]);
}

/** An answer behind its prompt, and whether it is wanted. */
export interface EncodedAnswer extends EncodedRow {
  promptLength: number;
  desirable: boolean;
}

/**
 * Encodes single answers. A pair becomes two: as the answers are laid out, a chosen one stands before the rejected one of
 * the next pair, so that neighbours answer different prompts (KTO's KL estimate needs that) and a batch has both kinds.
 */
export async function answerExamples(
  dataset: ConvertedDataset<UnpairedRow | PairRow>,
  tokenizer: Tokenizer,
  options: ExampleOptions,
): Promise<Examples<EncodedAnswer>> {
  const fit = (row: UnpairedRow | PairRow) => fittedAnswers(row, tokenizer, options);
  const { rows, report } = await encodeAll(dataset, options, fit, (answers) => answers);
  const next = (index: number) => rows[(index + 1) % rows.length]!;
  const answers = rows.flatMap(([first, second], index) => {
    // Pairs and single answers do not mix: all rows are of the first row's format.
    return second === undefined ? [first!] : [first!, next(index)[1]!];
  });
  return { rows: answers, report: { ...report, answers: answers.length } };
}

function fittedAnswers(
  row: UnpairedRow | PairRow,
  tokenizer: Tokenizer,
  options: ExampleOptions,
): Fitted<EncodedAnswer[]> | undefined {
  const pair = "completion" in row ? pairOfOne(row) : row;
  const encoded = pair.kind === "chat" ? tokenizer.encodePair(pair, options) : tokenizer.encodePairText(pair, options);
  const sides =
    "completion" in row
      ? ([["chosen", row.label]] as const)
      : ([
          ["chosen", true],
          ["rejected", false],
        ] as const);
  const answers: EncodedAnswer[] = [];
  let cut = 0;
  for (const [side, desirable] of sides) {
    const whole = encoded[side];
    const start = options.truncation === "keep-start";
    const fitted = start ? keepStart(whole, options.maxLength) : keepCompletion(whole, options.maxLength);
    if (!fitted) return undefined;
    cut += fitted.cut;
    const promptLength = start ? encoded.promptLength : encoded.promptLength - fitted.cut;
    answers.push({ ...fitted.row, promptLength, desirable });
  }
  return { row: answers, cut };
}

/** An answer is encoded as one side of a pair is: a pair of it twice. */
export function pairOfOne(row: UnpairedRow): PairRow {
  return row.kind === "chat"
    ? { kind: "chat", prompt: row.prompt, chosen: row.completion, rejected: row.completion }
    : { kind: "text", prompt: row.prompt, chosen: row.completion, rejected: row.completion };
}

/** Answers of the given part of a conversation are context, not something to learn. */
function leaveOutGiven(chat: EncodedChat, supervisedFrom: number): void {
  let owner = -1;
  for (let position = 0; position < chat.ids.length; position++) {
    // The end token belongs to the template; the answer before it tells whose it is.
    if (chat.owners[position]! >= 0) owner = chat.owners[position]!;
    if (owner < supervisedFrom) chat.supervised[position] = 0;
  }
}

function learnAll<T extends EncodedRow>(row: T, lossOn: "assistant" | "all"): T {
  if (lossOn === "all") row.supervised.fill(1);
  return row;
}

/** Counts while rows are encoded. */
export interface Counter {
  /** Tokens that hold the end of the template and the start of a content, or the other way round. */
  straddling: number;
}

async function encodeAll<Row, Encoded>(
  dataset: ConvertedDataset<Row>,
  options: ExampleOptions,
  fitRow: (row: Row, count: Counter) => Fitted<Encoded> | undefined,
  sequences: (encoded: Encoded) => EncodedRow[],
): Promise<Examples<Encoded>> {
  const found = await dataset.report();
  const report: ExampleReport = {
    ...found,
    skippedRows: [...found.skippedRows],
    tokens: 0,
    supervisedTokens: 0,
    cutRows: 0,
    cutTokens: 0,
    straddlingTokens: 0,
  };
  const rows: Encoded[] = [];
  const count: Counter = { straddling: 0 };
  for await (const row of dataset.rows()) {
    throwIfAborted(options.signal);
    if (row.error) throw row.error;
    const fitted = fittedOrRefusal(row.place, options, () => fitRow(row.value, count));
    if (fitted instanceof DataError) {
      if (options.onBadRow === "error") throw fitted;
      report.kept--;
      report.skipped++;
      report.skippedRows.push({ place: fitted.place ?? row.place, code: fitted.code, problem: fitted.problem });
      continue;
    }
    if (fitted.cut > 0) {
      report.cutRows++;
      report.cutTokens += fitted.cut;
    }
    for (const sequence of sequences(fitted.row)) {
      report.tokens += sequence.ids.length;
      report.supervisedTokens += predictedTokens(sequence);
    }
    rows.push(fitted.row);
    if (rows.length % 256 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  report.straddlingTokens = count.straddling;
  if (rows.length === 0) {
    const first = report.skippedRows[0];
    throw new DataError("ZA_DATA_EMPTY", `none of the ${report.rows} rows can be used; the first: ${first?.problem}`, {
      place: first?.place ?? { file: report.source },
      remedy: "Raise maxLength, or check that this is the right file.",
    });
  }
  return { rows, report };
}

/** What `fitRow` makes of the row at a place, or why the row cannot be trained on. */
export function fittedOrRefusal<T>(
  place: Place,
  options: ExampleOptions,
  fitRow: () => Fitted<T> | undefined,
): Fitted<T> | DataError {
  try {
    return fitRow() ?? tooLong(place, options);
  } catch (error) {
    return inRow(fromNative(error), place);
  }
}

/** The same error, with the row's place added: the text crate knows the field, not the file. */
function inRow(error: ZephyrError, place: Place): DataError {
  return new DataError(error.code, error.problem, {
    place: { ...place, ...error.place },
    cause: error,
    ...(error.remedy === undefined ? {} : { remedy: error.remedy }),
  });
}

function tooLong(place: Place, options: ExampleOptions): DataError {
  const what = options.truncation === "keep-start" ? "no answer token is left" : "the answer alone does not fit";
  return new DataError("ZA_DATA_TOO_LONG", `${what} within maxLength ${options.maxLength}`, {
    place,
    remedy: 'Raise maxLength, set onBadRow to "skip", or truncation to "keep-start" to cut answers.',
  });
}
