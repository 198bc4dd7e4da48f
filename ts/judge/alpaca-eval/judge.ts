/** Asking AlpacaEval's judge: one call for each pair of outputs, in the order that the coin gives. */
import { existsSync } from "node:fs";
import { ask, type ChatModel } from "../../client";
import { concurrently } from "../../client/concurrently";
import { JudgeError, throwIfAborted } from "../../errors";
import { JsonLines } from "../json-lines";
import type { Ledger } from "../ledger";
import { failureOfOne } from "../one-call";
import {
  annotationKey,
  annotationOf,
  type Comparison,
  type Generator,
  rawCompletion,
  readCompletion,
  shown,
  unswitched,
} from "./comparison";
import { type Annotation, readAnnotations } from "./files";
import { type AlpacaEvalPrompt, type AlpacaEvalProtocol, judgeMessages } from "./protocol";

/** How comparisons are judged. */
export interface AnnotateOptions {
  protocol: AlpacaEvalProtocol;
  prompt: AlpacaEvalPrompt;
  model: Generator;
  baseline: Generator;
  /** `strict` asks once more for what cannot be read, and keeps no failure. */
  mode: "strict" | "compat";
  /** JSON lines of annotations: finished ones are taken from it, new ones are added. */
  file?: string | undefined;
  /** Write what is new into the file; false only reads it, for a dry run. @default true */
  keep?: boolean | undefined;
  /** Comparisons in work at once. @default 4 */
  concurrency?: number | undefined;
  signal?: AbortSignal | undefined;
  onJudgment?: ((done: number, comparisons: number) => void) | undefined;
}

/**
 * What the protocol needs of a judge.
 *
 * @throws JudgeError `ZA_JUDGE_CAPABILITY` before any work.
 */
export function checkJudge(judge: ChatModel, { version, sampling }: AlpacaEvalProtocol): void {
  const needed = sampling.topLogprobs ?? 0;
  const { topLogprobs } = judge.capabilities;
  if (topLogprobs >= needed) return;
  throw new JudgeError(
    "ZA_JUDGE_CAPABILITY",
    `AlpacaEval ${version} reads the log-probabilities of ${needed} tokens, and ${judge.name} gives ${topLogprobs === 0 ? "none" : `those of ${topLogprobs}`}`,
    {
      remedy: "Take a judge with log-probabilities, or AlpacaEval 1.0. Figures of different annotators do not compare.",
    },
  );
}

/** Annotates every comparison, in their order. Equal outputs are a draw without a call. */
export async function annotate(
  comparisons: readonly Comparison[],
  judge: ChatModel,
  ledger: Ledger,
  options: AnnotateOptions,
): Promise<Annotation[]> {
  const { protocol, mode, file, keep = true, concurrency = 4, signal } = options;
  const lines = file === undefined || !keep ? undefined : await JsonLines.open(file);
  const annotations: Annotation[] = [];
  try {
    const finished = new Map<string, Annotation>();
    for (const { value } of file !== undefined && existsSync(file) ? await readAnnotations(file) : []) {
      const samePrompt = (value.prompt_sha256 ?? options.prompt.hash) === options.prompt.hash;
      if (value.preference !== null && samePrompt) finished.set(annotationKey(value, protocol), value);
    }
    for await (const { row, fresh } of concurrently(comparisons, concurrency, async (comparison) => {
      const empty: Annotation = {
        ...annotationOf(comparison, options.model, options.baseline, protocol),
        judge: judge.name,
        prompt_sha256: options.prompt.hash,
      };
      if (empty.preference !== null) return { row: empty, fresh: false };
      const kept = finished.get(annotationKey(empty, protocol));
      if (kept) {
        ledger.reuse(kept.judge_returned ?? judge.name);
        return { row: kept, fresh: false };
      }
      throwIfAborted(signal);
      return { row: await annotated(empty, comparison, judge, ledger, options), fresh: true };
    })) {
      if (fresh && (row.preference !== null || (mode === "compat" && row.problem === undefined)))
        await lines?.append(row);
      annotations.push(row);
      options.onJudgment?.(annotations.length, comparisons.length);
    }
  } finally {
    await lines?.close();
  }
  return annotations;
}

async function annotated(
  row: Annotation,
  comparison: Comparison,
  judge: ChatModel,
  ledger: Ledger,
  { protocol, prompt, mode, signal }: AnnotateOptions,
): Promise<Annotation> {
  const asked = await ask(
    judge,
    {
      messages: judgeMessages(prompt.text, shown(comparison), mode),
      sampling: protocol.sampling,
      sampleIndex: comparison.repeat,
      purpose: `judge alpaca-eval ${protocol.version}`,
      ...(signal ? { signal } : {}),
    },
    (_, response) => {
      const read = readCompletion(rawCompletion(response, protocol), protocol, mode);
      return mode === "compat" || read.problem === null ? { value: true } : { problem: read.problem };
    },
    // One token with its alternatives is not mended by talking.
    { reasks: protocol.version === "1.0" ? 1 : 0 },
  ).catch(failureOfOne);
  if ("failure" in asked) return { ...row, problem: asked.failure };
  for (const response of asked.tries) ledger.add(response);
  const last = asked.tries.at(-1)!;
  const raw = rawCompletion(last, protocol);
  const preference = unswitched(readCompletion(raw, protocol, mode).value, comparison.switched);
  return { ...row, preference, raw_completion: raw, judge_returned: last.model };
}
