/**
 * What a model gives to texts, without generating: loss and accuracy on held-out conversations, rewards on held-out
 * pairs. Every figure comes with the number of rows and its standard error.
 */
import { type DatasetInput, pairDataset, sftDataset } from "../data";
import { fromNative, throwIfAborted } from "../errors";
import type { Mistral } from "../model/mistral";
import { resolveConfig, type SftConfigInput, sftConfig } from "../train/config";
import { type ExampleReport, pairExamples, predictedTokens, sftExamples } from "../train/examples";
import { nativeBatch } from "../train/native-batch";
import { openSession } from "../train/run";
import { standardError } from "./statistics";

/** How rows are read; the trainers' options of the same names. */
export interface LogprobOptions
  extends Pick<
    SftConfigInput,
    "maxLength" | "template" | "answerEnd" | "specialsInContent" | "truncation" | "onBadRow"
  > {
  /** Threads of the core. @default all cores */
  threads?: number;
  signal?: AbortSignal;
  /** Called after each row. */
  onRow?: (done: number, rows: number) => void;
}

/** A figure with its standard error; `error` is NaN when there is one row only. */
export interface Measured {
  value: number;
  error: number;
}

/** Figures of conversations. */
export interface SftEvaluation {
  kind: "sft";
  /** Rows. */
  n: number;
  /** Predicted tokens: those that training would learn. */
  tokens: number;
  /** Mean cross-entropy of a token, in nats. Its error counts rows, not tokens, as independent. */
  loss: Measured;
  /** exp(loss); the error by the delta method. */
  perplexity: Measured;
  /** Share of tokens that greedy decoding would have chosen. */
  tokenAccuracy: Measured;
  report: ExampleReport;
}

/** Figures of pairs, under TRL's names. `rewards/…` are there with a reference only. */
export interface PairEvaluation {
  kind: "pair";
  /** Pairs. */
  n: number;
  tokens: number;
  metrics: Record<string, Measured>;
  report: ExampleReport;
}

/**
 * Loss, perplexity and token accuracy of a model on conversations.
 *
 * The loss is the mean over all tokens. Tokens of a row hang together, so its standard error is that of a ratio of row
 * sums: √(n/(n−1) · Σ(lossᵢ − loss·tokensᵢ)²) / tokens.
 */
export async function evaluateConversations(
  model: Mistral,
  data: DatasetInput,
  options: LogprobOptions = {},
): Promise<SftEvaluation> {
  const { config, tokenizer, encoding } = setUp(model, options);
  const examples = await sftExamples(sftDataset(data, { onBadRow: config.onBadRow }), tokenizer, encoding);
  const session = openSession(model, config, { signal: options.signal });
  const rows: { loss: number; correct: number; tokens: number }[] = [];
  try {
    for (const row of examples.rows) {
      throwIfAborted(options.signal);
      const tokens = predictedTokens(row);
      await session.accumulateSft(nativeBatch([row]), tokens, false);
      const metrics: Record<string, number> = JSON.parse(await session.takeEvaluation());
      const { eval_loss: loss = Number.NaN, eval_mean_token_accuracy: accuracy = Number.NaN } = metrics;
      rows.push({ loss: loss * tokens, correct: accuracy * tokens, tokens });
      options.onRow?.(rows.length, examples.rows.length);
    }
  } catch (error) {
    throw fromNative(error);
  } finally {
    await session.release();
  }
  const loss = ratio(rows, ({ loss }) => loss);
  const perplexity = Math.exp(loss.value);
  return {
    kind: "sft",
    n: rows.length,
    tokens: rows.reduce((sum, { tokens }) => sum + tokens, 0),
    loss,
    perplexity: { value: perplexity, error: perplexity * loss.error },
    tokenAccuracy: ratio(rows, ({ correct }) => correct),
    report: examples.report,
  };
}

/**
 * How a model ranks pairs. Without a reference: how often the chosen answer has the higher log-probability, in sum and
 * per token. With one: the implicit rewards β·(log π − log π_ref) of DPO, their margins and accuracy, and the loss.
 */
export async function evaluatePairs(
  model: Mistral,
  data: DatasetInput,
  options: LogprobOptions & { ref?: Mistral; beta?: number; maxPromptLength?: number | null } = {},
): Promise<PairEvaluation> {
  const { config, tokenizer, encoding } = setUp(model, options);
  const { ref, beta = 0.1, maxPromptLength = null } = options;
  const dataset = pairDataset(data, { onBadRow: config.onBadRow });
  const examples = await pairExamples(dataset, tokenizer, { ...encoding, maxPromptLength });
  const { signal } = options;
  const policySession = openSession(model, config, { signal });
  const refSession = ref && openSession(ref, config, { signal });
  const columns: Record<string, number[]> = {};
  const add = (name: string, value: number) => {
    columns[name] ??= [];
    columns[name].push(value);
  };
  let tokens = 0;
  try {
    for (const [index, pair] of examples.rows.entries()) {
      throwIfAborted(options.signal);
      const batch = nativeBatch([pair.chosen, pair.rejected]);
      const [chosen = Number.NaN, rejected = Number.NaN] = await policySession.sequenceLogps(batch);
      const lengths = [predictedTokens(pair.chosen), predictedTokens(pair.rejected)] as const;
      tokens += lengths[0] + lengths[1];
      add("logps/chosen", chosen);
      add("logps/rejected", rejected);
      add("logps/accuracies", chosen > rejected ? 1 : 0);
      add("logps/accuracies_per_token", chosen / lengths[0] > rejected / lengths[1] ? 1 : 0);
      if (refSession) {
        const [refChosen = Number.NaN, refRejected = Number.NaN] = await refSession.sequenceLogps(batch);
        const rewards = [beta * (chosen - refChosen), beta * (rejected - refRejected)] as const;
        const margin = rewards[0] - rewards[1];
        add("loss", softplus(-margin));
        add("rewards/chosen", rewards[0]);
        add("rewards/rejected", rewards[1]);
        add("rewards/margins", margin);
        add("rewards/accuracies", margin > 0 ? 1 : 0);
      }
      options.onRow?.(index + 1, examples.rows.length);
    }
  } catch (error) {
    throw fromNative(error);
  } finally {
    await policySession.release();
    await refSession?.release();
  }
  const metrics = Object.entries(columns).map(([name, values]) => {
    const { mean, error } = standardError(values);
    return [name, { value: mean, error }] as const;
  });
  return {
    kind: "pair",
    n: examples.rows.length,
    tokens,
    metrics: Object.fromEntries(metrics),
    report: examples.report,
  };
}

function setUp(model: Mistral, options: LogprobOptions) {
  const { signal, maxLength, template, answerEnd, specialsInContent, truncation, onBadRow, threads } = options;
  const chosen = { maxLength, template, answerEnd, specialsInContent, truncation, onBadRow, threads };
  const config = resolveConfig(sftConfig, chosen);
  const tokenizer = model.tokenizer.withTemplate(config.template);
  return { config, tokenizer, encoding: { ...config, ...(signal ? { signal } : {}) } };
}

/** Σ values / Σ tokens with the standard error of a ratio estimator over rows. */
function ratio<T extends { tokens: number }>(rows: readonly T[], of: (row: T) => number): Measured {
  const n = rows.length;
  const tokens = rows.reduce((sum, row) => sum + row.tokens, 0);
  const value = rows.reduce((sum, row) => sum + of(row), 0) / tokens;
  const squares = rows.reduce((sum, row) => sum + (of(row) - value * row.tokens) ** 2, 0);
  return { value, error: n > 1 ? Math.sqrt((squares * n) / (n - 1)) / tokens : Number.NaN };
}

/** log(1 + eˣ) without overflow. */
function softplus(x: number): number {
  return Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
}
