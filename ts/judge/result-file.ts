/** Judged runs read back from the files that the harnesses write. */
import { readFile } from "node:fs/promises";
import { z } from "zod";
import { fromNative, JudgeError } from "../errors";
import { type JudgeResult, judgeProtocols, judgeResultFormat } from "./result";

const nullableNumber = z.number().nullable();
const nullableText = z.string().nullable();
const id = z.union([z.number(), z.string()]);
const turn = z.union([z.literal(1), z.literal(2)]);
const side = z.enum(["model", "opponent"]).nullable();
const rate = z.object({ rate: z.number(), n: z.number() }).nullable();

const model = z.object({
  name: z.string(),
  answers: z.enum(["generated", "file"]),
  file: nullableText,
  template: nullableText,
  sampling: z
    .object({
      maxTokens: z.number(),
      temperature: z.union([z.number(), z.literal("by category")]),
      choices: z.number(),
      seed: z.number(),
    })
    .nullable(),
  meanLength: nullableNumber,
});

const figure = z.object({
  name: z.string(),
  label: z.string(),
  group: z.enum(["overall", "turn", "category"]),
  unit: z.enum(["points", "percent"]),
  value: nullableNumber,
  low: nullableNumber,
  high: nullableNumber,
  standardError: nullableNumber,
  n: z.number(),
  questions: z.number(),
  repeats: z.number(),
  byRepeat: z.array(z.number()),
  spread: nullableNumber,
});

const verdict = z.object({
  repeat: z.number(),
  prompt: z.string(),
  first: side,
  text: z.string(),
  score: nullableNumber,
  problem: nullableText,
  tries: z.number(),
});

const judgedTurn = z.object({
  turn,
  prompt: z.string(),
  reference: nullableText,
  answer: nullableText,
  opponentAnswer: nullableText,
  score: nullableNumber,
  verdicts: z.array(verdict),
});

const schema: z.ZodType<JudgeResult> = z.object({
  format: z.literal(judgeResultFormat),
  protocol: z.enum(judgeProtocols),
  mode: z.enum(["strict", "compat"]),
  createdAt: z.string(),
  model,
  opponent: model.nullable(),
  judge: z.object({
    asked: z.string(),
    returned: z.array(z.object({ id: z.string(), answers: z.number() })),
    sampling: z.object({ temperature: z.number(), maxTokens: z.number(), topLogprobs: nullableNumber }),
  }),
  scale: z.enum(["rating", "win"]),
  figures: z.array(figure).min(1),
  counts: z.object({ wins: z.number(), losses: z.number(), ties: z.number() }).nullable(),
  rows: z.array(z.object({ id, category: nullableText, turns: z.array(judgedTurn) })),
  completeness: z.object({ expected: z.number(), judged: z.number(), floor: z.number() }),
  bias: z.object({
    firstPosition: rate,
    swapFlips: rate,
    lengthCorrelation: z.object({ r: z.number(), n: z.number() }).nullable(),
    longerWins: rate,
  }),
  canaries: z.array(
    z.object({
      name: z.string(),
      answer: z.string(),
      n: z.number(),
      score: nullableNumber,
      limit: z.number(),
      flagged: z.boolean(),
    }),
  ),
  flaggedAnswers: z.array(z.object({ id, turn, excerpt: z.string() })),
  failures: z.array(z.object({ id, turn, repeat: z.number(), first: side, problem: z.string() })),
  hashes: z.object({ questions: z.string(), prompts: nullableText, references: nullableText, answers: nullableText }),
  cost: z.object({
    calls: z.number(),
    reused: z.number(),
    promptTokens: z.number(),
    completionTokens: z.number(),
    dollars: nullableNumber,
  }),
  warnings: z.array(z.string()),
  versions: z.record(z.string(), z.string()),
});

/**
 * The judged runs of a file: one document, or a list of them.
 *
 * @throws JudgeError `ZA_JUDGE_RESULT` with file and field
 */
export async function readJudgeResults(file: string): Promise<JudgeResult[]> {
  let parsed: unknown;
  try {
    parsed = JSON.parse(await readFile(file, "utf8"));
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw fromNative(error, { file });
    throw noResult(file, `the file is not JSON: ${error.message}`);
  }
  const documents: unknown[] = Array.isArray(parsed) ? parsed : [parsed];
  return documents.map((each, index) => {
    const format = (each as { format?: unknown } | null)?.format;
    if (format !== judgeResultFormat) {
      const found = typeof format === "string" ? `the format is ${format}` : "it has no format of a judged run";
      throw noResult(file, found, Array.isArray(parsed) ? `[${index}]` : undefined);
    }
    const result = schema.safeParse(each);
    if (result.success) return result.data;
    const issue = result.error.issues[0]!;
    const path = [...(Array.isArray(parsed) ? [index] : []), ...issue.path];
    const field = path.map((part) => (typeof part === "number" ? `[${part}]` : `.${String(part)}`)).join("");
    throw noResult(file, issue.message, field.replace(/^\./, ""));
  });
}

function noResult(file: string, problem: string, field?: string): JudgeError {
  return new JudgeError("ZA_JUDGE_RESULT", problem, {
    place: { file, ...(field === undefined ? {} : { field }) },
    remedy: `Give a file that zephyr-align eval mt-bench or eval alpaca-eval has written with --json (${judgeResultFormat}).`,
  });
}
