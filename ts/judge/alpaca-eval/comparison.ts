/** What is compared, in which order it is shown, and how the judge's answer is read. */
import type { ChatResponse } from "../../client";
import { JudgeError } from "../../errors";
import { sha256 } from "../rows";
import { type Annotation, named, type Output } from "./files";
import { logprobParser, type Preference, rankingParser, type TokenLogprob } from "./parsers";
import type { AlpacaEvalProtocol } from "./protocol";
import { type PythonValue, pythonLiteral } from "./python-literal";
import { isSwitched } from "./python-random";

/** Outputs of one model. */
export interface Generator {
  name: string;
  outputs: readonly Output[];
  /** File that the outputs were read from, or written to. */
  file?: string | undefined;
  /** Whether they were generated in this run. @default false */
  generated?: boolean | undefined;
}

/** One instruction with both outputs. */
export interface Comparison {
  instruction: string;
  dataset: string | null;
  /** Place among the baseline's outputs: the benchmark's own numbering. */
  position: number;
  baseline: string;
  model: string;
  /** Whether the model's output is shown first. */
  switched: boolean;
  /** Counted from 0. */
  repeat: number;
}

/**
 * Joins by instruction, in the order of the baseline.
 *
 * @param mode `compat` leaves out what is on one side only, as upstream's inner join does
 * @param seed of the annotator, for the order coin
 * @throws JudgeError `ZA_JUDGE_JOIN` in `strict` mode when an instruction is on one side only
 */
export function compare(model: Generator, baseline: Generator, mode: "strict" | "compat", seed = 0): Comparison[] {
  const outputs = new Map(model.outputs.map(({ instruction, output }) => [instruction, output]));
  const known = new Set(baseline.outputs.map(({ instruction }) => instruction));
  const missing = baseline.outputs.filter(({ instruction }) => !outputs.has(instruction));
  const foreign = model.outputs.filter(({ instruction }) => !known.has(instruction));
  if (mode === "strict" && (missing.length > 0 || foreign.length > 0)) {
    const first = named((missing[0] ?? foreign[0])!.instruction);
    throw new JudgeError(
      "ZA_JUDGE_JOIN",
      `${missing.length} of ${known.size} instructions have no output of ${model.name}, ${foreign.length} of its outputs belong to no instruction; the first is ${first}`,
      { remedy: "Give outputs to the baseline's instructions, word by word. Nothing is judged until they join." },
    );
  }
  return baseline.outputs.flatMap(({ instruction, output, dataset }, position) => {
    const mine = outputs.get(instruction);
    if (mine === undefined) return [];
    const switched = isSwitched(instruction, seed);
    return [{ instruction, dataset: dataset ?? null, position, baseline: output, model: mine, switched, repeat: 0 }];
  });
}

/** The outputs in the order shown. */
export function shown({ instruction, baseline, model, switched }: Comparison) {
  return switched
    ? { instruction, output_1: model, output_2: baseline }
    : { instruction, output_1: baseline, output_2: model };
}

/** A preference in the order shown as one of (baseline, model): x becomes 3 − x when the places were switched. */
export function unswitched(preference: number | null, switched: boolean): number | null {
  return preference === null || !switched ? preference : 3 - preference;
}

/** What of the judge's answer is kept, to be read again at any time: the text, or the alternatives of its first token. */
export function rawCompletion({ text, logprobs }: ChatResponse, { version }: AlpacaEvalProtocol): unknown {
  if (version === "1.0") return text;
  const content = (logprobs ?? [])
    .slice(0, 1)
    .map(({ token, logprob, top }) => ({ token, logprob, top_logprobs: top }));
  return { text, logprobs: { content } };
}

/** Reads what was kept, in the order shown. */
export function readCompletion(raw: unknown, { version }: AlpacaEvalProtocol, mode: "strict" | "compat"): Preference {
  if (version === "1.0") {
    return typeof raw === "string"
      ? rankingParser(raw, mode === "strict")
      : { value: null, problem: "the judge's text is not kept" };
  }
  const top = alternatives(raw);
  return top ? logprobParser(top) : { value: null, problem: "the answer came without log-probabilities" };
}

/** The judge's words for people. */
export function completionText(raw: unknown): string {
  if (typeof raw === "string" && !raw.startsWith("{")) return raw;
  const top = alternatives(raw);
  return top
    ? top.map(({ token, logprob }) => `${JSON.stringify(token)} ${(100 * Math.exp(logprob)).toFixed(2)} %`).join(", ")
    : "";
}

/** OpenAI's `logprobs.content[0].top_logprobs`, as JSON or as the Python repr that upstream stores. */
function alternatives(raw: unknown): TokenLogprob[] | null {
  if (typeof raw !== "string") return topLogprobs(raw);
  try {
    return topLogprobs(plainObject(pythonLiteral(raw)));
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw error;
  }
}

function topLogprobs(raw: unknown): TokenLogprob[] | null {
  const content = (raw as { logprobs?: { content?: { top_logprobs?: TokenLogprob[] }[] } } | null)?.logprobs?.content;
  const top = Array.isArray(content) ? content[0]?.top_logprobs : undefined;
  return Array.isArray(top) && top.length > 0 ? top : null;
}

function plainObject(value: PythonValue): unknown {
  if (value instanceof Map) {
    return Object.fromEntries([...value].map(([key, each]) => [String(key), plainObject(each)]));
  }
  return Array.isArray(value) ? value.map(plainObject) : value;
}

/** The row of a comparison before it is judged; equal outputs are a draw, and need no judge. */
export function annotationOf(
  { instruction, dataset, baseline, model, repeat }: Comparison,
  modelGenerator: Generator,
  baselineGenerator: Generator,
  { annotator }: AlpacaEvalProtocol,
): Annotation {
  return {
    instruction,
    output_1: baseline,
    generator_1: baselineGenerator.name,
    ...(dataset === null ? {} : { dataset }),
    output_2: model,
    generator_2: modelGenerator.name,
    annotator,
    preference: baseline === model ? 1.5 : null,
    ...(repeat === 0 ? {} : { repeat }),
  };
}

/** What a stored annotation is known by: everything that the judge read, and who it is. */
export function annotationKey(row: Annotation, protocol: AlpacaEvalProtocol): string {
  // Upstream's rows do not name the judge; its annotators have one each.
  const judge = row.judge ?? protocol.judge;
  return sha256(JSON.stringify([row.annotator, judge, row.repeat ?? 0, row.instruction, row.output_1, row.output_2]));
}
