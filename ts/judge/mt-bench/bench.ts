/** MT-Bench as FastChat keeps it on disk: questions, the judge's prompts, reference answers. None of it is in the package. */
import { existsSync, readdirSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { z } from "zod";
import { fromNative, JudgeError } from "../../errors";
import { byKey, type Placed, readRows, sha256 } from "../rows";
import { type Answer, answerSchema } from "./answers";

/** A question of one or two turns. */
export interface Question {
  question_id: number | string;
  category: string;
  turns: string[];
}

/** A prompt of the judge. */
export interface JudgePrompt {
  name: string;
  type: "single" | "pairwise";
  system_prompt: string;
  prompt_template: string;
  output_format: string;
}

/** What one run needs of the benchmark. */
export interface MtBench {
  /** Folder of question.jsonl. */
  folder: string;
  questions: Question[];
  prompts: ReadonlyMap<string, JudgePrompt>;
  /** By question id; empty when there is no file of references. */
  references: ReadonlyMap<number | string, Answer>;
  /** The model whose answers the references are, by the name of their file. */
  referenceModel: string | null;
  /** sha256 of the three files. */
  hashes: { questions: string; prompts: string; references: string | null };
}

const questionSchema = z.object({
  question_id: z.union([z.number(), z.string()]),
  category: z.string(),
  turns: z.array(z.string()).min(1).max(2),
});

const promptSchema = z.object({
  name: z.string(),
  type: z.enum(["single", "pairwise"]),
  system_prompt: z.string(),
  prompt_template: z.string(),
  output_format: z.string(),
});

/** Places of question.jsonl under what a user may give: a checkout of FastChat, its llm_judge or data folder, the bench's own. */
const benchFolders = ["", "mt_bench", "data/mt_bench", "llm_judge/data/mt_bench", "fastchat/llm_judge/data/mt_bench"];

/** How a bench is opened. */
export interface OpenMtBenchOptions {
  /** File of reference answers. @default `reference_answer/<judge>.jsonl`, else the one file that is there, else gpt-4's */
  references?: string;
  /** File of the judge's prompts. @default judge_prompts.jsonl beside the bench or above it */
  prompts?: string;
  /** Name of the judge: FastChat names the references after it. */
  judge?: string;
  /** First questions only. */
  limit?: number;
}

/**
 * Opens the benchmark's own files in FastChat's layout (`data/mt_bench/question.jsonl`, `data/judge_prompts.jsonl`,
 * `data/mt_bench/reference_answer/<model>.jsonl`) or flat in one folder (`reference_answer_<model>.jsonl`).
 *
 * @throws JudgeError `ZA_JUDGE_FILES` for what is missing, `ZA_JUDGE_DUPLICATE` for a question that is there twice.
 */
export async function openMtBench(path: string, options: OpenMtBenchOptions = {}): Promise<MtBench> {
  const folder = benchFolders.map((each) => join(path, each)).find((each) => existsSync(join(each, "question.jsonl")));
  if (folder === undefined) throw missing(path, "question.jsonl");
  const promptFile =
    options.prompts ?? [folder, dirname(folder)].map((each) => join(each, "judge_prompts.jsonl")).find(existsSync);
  if (promptFile === undefined) throw missing(folder, "judge_prompts.jsonl");
  const referenceFile = options.references ?? findReferences(folder, options.judge);

  const questionFile = join(folder, "question.jsonl");
  const questions = await readRows(questionFile, questionSchema);
  byKey(
    questions,
    ({ question_id }) => question_id,
    (id) => `question ${id}`,
  );
  const references = referenceFile === undefined ? [] : await readRows(referenceFile, answerSchema);
  return {
    folder,
    questions: questions.slice(0, options.limit).map(({ value }) => value),
    prompts: byKey(
      await readRows(promptFile, promptSchema),
      ({ name }) => name,
      (name) => `prompt ${name}`,
    ),
    references: byKey(
      references as Placed<Answer>[],
      ({ question_id }) => question_id,
      (id) => `the reference of ${id}`,
    ),
    referenceModel: referenceFile === undefined ? null : modelOf(referenceFile),
    hashes: {
      questions: await hashOf(questionFile),
      prompts: await hashOf(promptFile),
      references: referenceFile === undefined ? null : await hashOf(referenceFile),
    },
  };
}

/** FastChat takes the references of the judge itself; here the only file, or gpt-4's, does as well. */
function findReferences(folder: string, judge: string | undefined): string | undefined {
  const listed = (place: string, prefix: string) =>
    existsSync(place)
      ? readdirSync(place)
          .filter((name) => name.startsWith(prefix) && name.endsWith(".jsonl"))
          .sort()
          .map((name) => join(place, name))
      : [];
  const files = [...listed(join(folder, "reference_answer"), ""), ...listed(folder, "reference_answer_")];
  const of = (model: string | undefined) => files.find((file) => modelOf(file) === model);
  return of(judge) ?? (files.length === 1 ? files[0] : of("gpt-4"));
}

function modelOf(file: string): string {
  return basename(file, ".jsonl").replace(/^reference_answer_/, "");
}

async function hashOf(file: string): Promise<string> {
  try {
    return sha256(await readFile(file));
  } catch (error) {
    throw fromNative(error, { file });
  }
}

function missing(folder: string, name: string): JudgeError {
  return new JudgeError("ZA_JUDGE_FILES", `there is no ${name} in the folder`, {
    place: { file: folder },
    remedy: "Give FastChat's checkout or its data folder, or fetch the files with: zephyr-align pull mt-bench.",
  });
}
