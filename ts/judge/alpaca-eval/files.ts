/** AlpacaEval's files: outputs, annotations, and what the length-controlled rate needs. */
import { readFile } from "node:fs/promises";
import { z } from "zod";
import { fromNative, JudgeError } from "../../errors";
import { byKey, type Placed, readRows } from "../rows";
import type { GamedRow, LengthControlWeights } from "./length-control";

/** How outputs were made; upstream's files do not say, ours do. */
export interface OutputGeneration {
  template: string | null;
  max_tokens: number;
  temperature: number;
}

/** A row of model_outputs.json. */
export interface Output {
  instruction: string;
  output: string;
  generator?: string | undefined;
  /** Which of the five sources the instruction is of. */
  dataset?: string | undefined;
  generation?: OutputGeneration | undefined;
}

const outputSchema: z.ZodType<Output> = z.object({
  instruction: z.string(),
  output: z.string(),
  generator: z.string().optional(),
  dataset: z.string().optional(),
  generation: z.object({ template: z.string().nullable(), max_tokens: z.number(), temperature: z.number() }).optional(),
});

/**
 * Reads outputs, in their order; an instruction that is there twice is refused.
 *
 * @throws JudgeError `ZA_JUDGE_DUPLICATE`, DataError.
 */
export async function readOutputs(file: string): Promise<Output[]> {
  return [...byKey(await readRows(file, outputSchema), ({ instruction }) => instruction, named).values()];
}

/** A row of annotations.json; ours have three fields more. */
export interface Annotation {
  instruction: string;
  output_1: string;
  generator_1?: string | undefined;
  dataset?: string | undefined;
  output_2: string;
  generator_2?: string | undefined;
  annotator: string;
  /** 1 (output_1 is better) to 2; null when the judge could not be read. */
  preference: number | null;
  /** The judge's text, or its first token's alternatives in OpenAI's form; upstream writes the latter as Python's repr. */
  raw_completion?: unknown;
  /** @default 0 */
  repeat?: number | undefined;
  judge?: string | undefined;
  judge_returned?: string | undefined;
  prompt_sha256?: string | undefined;
  /** Why the judge gave no answer at all. Such a row is never written. */
  problem?: string | undefined;
}

const annotationSchema: z.ZodType<Annotation> = z.object({
  instruction: z.string(),
  output_1: z.string(),
  generator_1: z.string().optional(),
  dataset: z.string().optional(),
  output_2: z.string(),
  generator_2: z.string().optional(),
  annotator: z.string(),
  preference: z.number().nullable(),
  raw_completion: z.unknown().optional(),
  repeat: z.number().optional(),
  judge: z.string().optional(),
  judge_returned: z.string().optional(),
  prompt_sha256: z.string().optional(),
});

export async function readAnnotations(file: string): Promise<Placed<Annotation>[]> {
  return await readRows(file, annotationSchema);
}

/** An instruction in a message: its beginning. */
export function named(instruction: string): string {
  const line = instruction.replaceAll(/\s+/g, " ");
  return `the instruction ${JSON.stringify(line.length > 60 ? `${line.slice(0, 57)}…` : line)}`;
}

/** instruction_difficulty.csv: a value for each instruction of the benchmark, by its position there. */
export async function readDifficulty(file: string): Promise<number[]> {
  const { header, rows } = await readCsv(file);
  const column = columnOf(file, header, "instruction_difficulty");
  const index = header.findIndex((name) => name === "index" || name === "");
  const values: number[] = [];
  for (const row of rows) values[index < 0 ? values.length : Number(row[index])] = numberIn(file, row[column]!);
  return values;
}

/** df_gamed.csv: comparisons of the gamed baselines. */
export async function readGamed(file: string): Promise<GamedRow[]> {
  const { header, rows } = await readCsv(file);
  const [preference, length, difficulty] = ["preference", "std_delta_len", "instruction_difficulty"].map((name) =>
    columnOf(file, header, name),
  );
  return rows.map((row) => ({
    preference: row[preference!] === "" ? null : numberIn(file, row[preference!]!),
    standardisedLength: numberIn(file, row[length!]!),
    difficulty: numberIn(file, row[difficulty!]!),
  }));
}

const weightColumns = {
  length: "np.tanh(std_delta_len)",
  difficulty: "instruction_difficulty",
  model: "not_gamed_baseline.astype(float)",
} as const;

/** `metrics/weights/<annotator>/length_controlled_v1/baseline_<name>.csv`: a row of weights for each model. */
export async function readWeights(file: string): Promise<Map<string, LengthControlWeights>> {
  const { header, rows } = await readCsv(file);
  const at = Object.fromEntries(
    Object.entries(weightColumns).map(([key, name]) => [key, columnOf(file, header, name)]),
  ) as Record<keyof LengthControlWeights, number>;
  const of = (row: string[], key: keyof LengthControlWeights) => numberIn(file, row[at[key]]!);
  return new Map(
    rows.map((row) => [
      row[0]!,
      { length: of(row, "length"), difficulty: of(row, "difficulty"), model: of(row, "model") },
    ]),
  );
}

/** A table of numbers and names: none of the files has a quoted cell. */
async function readCsv(file: string): Promise<{ header: string[]; rows: string[][] }> {
  const text = await readFile(file, "utf8").catch((error) => {
    throw fromNative(error, { file });
  });
  const [header = [], ...rows] = text
    .split(/\r?\n/)
    .filter((line) => line !== "")
    .map((line) => line.split(","));
  return { header, rows };
}

function columnOf(file: string, header: readonly string[], name: string): number {
  const at = header.indexOf(name);
  if (at >= 0) return at;
  throw new JudgeError("ZA_JUDGE_FILES", `the table has no column ${name}`, {
    place: { file },
    remedy: `It has ${header.join(", ")}. Give the file as AlpacaEval publishes it.`,
  });
}

function numberIn(file: string, cell: string): number {
  const value = Number(cell);
  if (cell !== "" && Number.isFinite(value)) return value;
  throw new JudgeError("ZA_JUDGE_FILES", `${JSON.stringify(cell)} is not a number`, {
    place: { file },
    remedy: "Give the file as AlpacaEval publishes it.",
  });
}
