/** AlpacaEval from outputs to a result. */
import type { ChatModel } from "../../client";
import { JudgeError } from "../../errors";
import { canaries, canaryQuestions, canaryResult, evenly } from "../canaries";
import { Ledger } from "../ledger";
import type { JudgeResult } from "../result";
import { byKey, groupBy } from "../rows";
import { annotationOf, readCompletion, unswitched } from "./comparison";
import { named, readAnnotations } from "./files";
import { annotate, checkJudge } from "./judge";
import { winShare } from "./metrics";
import { alpacaEvalProtocols, readAlpacaEvalPrompt } from "./protocol";
import { type AlpacaEvalOptions, alpacaEvalResult, joined } from "./result";

/** Options of {@link judgeAlpacaEval}. */
export interface JudgeAlpacaEvalOptions extends AlpacaEvalOptions {
  /** Folder of alpaca_eval: a checkout, the installed package, or its evaluators_configs. */
  prompts: string;
  judge: ChatModel;
  /** Judge everything so many times. @default 1 */
  repeats?: number;
  /** Judge the null-model answers too. @default true */
  canaries?: boolean;
  /** JSON lines of annotations: what is judged there already is not asked again. */
  file?: string;
  /** Write what is new into the file; false only reads it, for a dry run. @default true */
  keep?: boolean;
  /** Comparisons in work at once. @default 4 */
  concurrency?: number;
  signal?: AbortSignal;
  onJudgment?: (done: number, of: number) => void;
}

/**
 * Judges a model's outputs against a baseline's (Li et al. 2023; length control: Dubois et al. 2024).
 *
 * @throws JudgeError `ZA_JUDGE_…`, and what the judge's client throws; what was judged until then is in the file.
 */
export async function judgeAlpacaEval(options: JudgeAlpacaEvalOptions): Promise<JudgeResult> {
  const { judge, mode = "strict", repeats = 1, file, keep, concurrency, signal } = options;
  const protocol = alpacaEvalProtocols[options.version ?? "2.0"];
  checkJudge(judge, protocol);
  const prompt = await readAlpacaEvalPrompt(options.prompts, protocol);
  const { model, baseline, comparisons } = joined(options);
  const repeated = Array.from({ length: repeats }, (_, repeat) =>
    comparisons.map((each) => ({ ...each, repeat })),
  ).flat();
  const constant =
    options.canaries === false
      ? []
      : evenly(comparisons, canaryQuestions).flatMap((comparison) =>
          canaries.map((canary) => ({ canary, comparison: { ...comparison, model: canary.answer } })),
        );
  const total = repeated.length + constant.length;
  const ledger = new Ledger();
  const asking = { protocol, prompt, model, baseline, mode, keep, concurrency, signal };
  const annotations = await annotate(repeated, judge, ledger, {
    ...asking,
    file,
    onJudgment: (done) => options.onJudgment?.(done, total),
  });
  const canaryRows = await annotate(
    constant.map(({ comparison }) => comparison),
    judge,
    ledger,
    {
      ...asking,
      model: { name: "canary", outputs: [] },
      file: file?.replace(/(\.jsonl)?$/, ".canaries.jsonl"),
      onJudgment: (done) => options.onJudgment?.(repeated.length + done, total),
    },
  );
  const canaryResults = canaries.flatMap((canary) => {
    const shares = canaryRows.filter((_, i) => constant[i]!.canary === canary).map((row) => winShare(row.preference));
    return constant.length > 0 ? [canaryResult(canary, "win", shares)] : [];
  });
  return alpacaEvalResult({
    ...options,
    protocol,
    annotations: repeated.map((comparison, i) => ({ comparison, row: annotations[i]! })),
    repeats,
    judge: judge.name,
    ledger,
    canaries: canaryResults,
    promptHash: prompt.hash,
  });
}

/** Options of {@link scoreAlpacaEval}. */
export interface ScoreAlpacaEvalOptions extends AlpacaEvalOptions {
  /** annotations.json as alpaca_eval writes it, or our JSON lines. */
  file: string;
}

/**
 * The result of annotations that are there already; no judge is asked. In `strict` mode preferences are read anew from the
 * judge's words, where the file has them.
 */
export async function scoreAlpacaEval(options: ScoreAlpacaEvalOptions): Promise<JudgeResult> {
  const { mode = "strict", file } = options;
  const protocol = alpacaEvalProtocols[options.version ?? "2.0"];
  const { comparisons } = joined(options);
  const rows = (await readAnnotations(file)).filter(({ value }) => value.annotator === protocol.annotator);
  if (mode === "strict") {
    const usable = rows.filter(({ value }) => value.preference !== null);
    byKey(
      usable,
      ({ instruction, repeat }) => JSON.stringify([instruction, repeat ?? 0]),
      (key) => named(JSON.parse(key)[0]),
    );
  }
  const byInstruction = groupBy(rows, ({ value }) => value.instruction);
  const ledger = new Ledger();
  const annotations = comparisons.flatMap((comparison) => {
    const mine = byInstruction.get(comparison.instruction);
    // Equal outputs were never sent, and our files do not hold them.
    if (!mine && comparison.baseline === comparison.model) {
      return [{ comparison, row: annotationOf(comparison, options.model, options.baseline, protocol) }];
    }
    return (mine ?? []).map(({ value: row, place }) => {
      if (mode === "strict" && (row.output_1 !== comparison.baseline || row.output_2 !== comparison.model)) {
        throw new JudgeError("ZA_JUDGE_JOIN", `${named(row.instruction)} was judged with other outputs`, {
          place,
          remedy: "Give the outputs that were judged, or judge these.",
        });
      }
      if (row.preference !== null) ledger.reuse(row.judge_returned ?? row.judge ?? protocol.judge);
      // Files of 1.0 do not keep the judge's words; equal outputs were never sent.
      const words = row.output_1 === row.output_2 ? undefined : row.raw_completion;
      const preference =
        mode === "strict" && words !== undefined
          ? unswitched(readCompletion(words, protocol, mode).value, comparison.switched)
          : row.preference;
      return { comparison: { ...comparison, repeat: row.repeat ?? 0 }, row: { ...row, preference } };
    });
  });
  return alpacaEvalResult({
    ...options,
    protocol,
    annotations,
    repeats: Math.max(1, ...annotations.map(({ comparison }) => comparison.repeat + 1)),
    judge: annotations[0]?.row.judge ?? protocol.judge,
    ledger,
    canaries: [],
    promptHash: annotations[0]?.row.prompt_sha256 ?? null,
  });
}
