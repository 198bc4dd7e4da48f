import { concurrently } from "../../client/concurrently";
import type { Rule } from "../../model/option-rules";
import { type FeedbackCompletion, type FeedbackRow, fineGrainedScore } from "../feedback-row";
import { chatModel, chatModels, checkGiven } from "../options";
import { aspectNames } from "../prompts/rating";
import { tallied } from "../tally";
import { criticise, type Rater, rateAnswers } from "./annotate";
import { type PoolAnswer, poolAnswers } from "./answer";
import { type RateOptions, type RateSettings, rateSettings } from "./options";
import { type FeedbackPrompt, feedbackId } from "./prompts";
import type { Critique, Ratings } from "./ratings";
import { countPlace, countRow, emptyRateReport, type RateFailure, type RateReport } from "./report";

const anyPrompts: Rule = {
  fits: (value) =>
    typeof value === "object" && value !== null && (Symbol.iterator in value || Symbol.asyncIterator in value),
  take: "prompts: a list, or something to iterate",
};

/** A prompt with its row, or without one; what failed is listed either way. */
export interface RatedPrompt {
  prompt: FeedbackPrompt;
  id: string;
  row?: FeedbackRow;
  failures: RateFailure[];
}

/** Rated prompts as they are made, in the order of the prompts, and a report that grows with them. */
export interface Rating extends AsyncIterable<RatedPrompt> {
  readonly settings: RateSettings;
  readonly report: RateReport;
}

/**
 * Answers prompts with a pool of models and rates the answers, as UltraFeedback did: four aspects from 1 to 5, and a
 * critique with an overall score from 1 to 10. A prompt whose ratings cannot be read, after asking again, is listed and has
 * no row. Prompts that occur twice are rated once.
 *
 * @throws ConfigError `ZA_CONFIG_INVALID`; while iterating, errors of the models and AbortedError
 */
export function rateResponses(options: RateOptions): Rating {
  checkGiven(options, { prompts: anyPrompts, pool: chatModels, rater: chatModel }, ["prompts", "pool", "rater"]);
  const { prompts, pool, rater: model, done, signal, ...rest } = options;
  const settings = rateSettings(rest);
  const report = emptyRateReport();
  const counted = pool.map((each) => tallied(each, report.calls));
  const rater: Rater = { model: tallied(model, report.calls), settings, signal };

  async function* wanted(): AsyncGenerator<{ prompt: FeedbackPrompt; id: string }> {
    const seen = new Set<string>();
    for await (const prompt of prompts) {
      report.prompts++;
      const id = feedbackId(prompt);
      if (seen.has(id)) report.duplicates++;
      else if (done?.has(id)) report.before++;
      else yield { prompt, id };
      seen.add(id);
    }
  }

  async function* made(): AsyncGenerator<RatedPrompt> {
    const work = concurrently(wanted(), settings.concurrency, async ({ prompt, id }) => {
      const answers = await poolAnswers(prompt, id, counted, settings, signal);
      return rateOne(prompt, id, answers, rater);
    });
    for await (const { places, ...rated } of work) {
      for (const { stage } of rated.failures) report.failures[stage]++;
      if (rated.row) {
        report.rated++;
        countRow(report, rated.row);
        countPlaces(report, rated.row, places);
      } else report.failed++;
      yield rated;
    }
  }
  return { settings, report, [Symbol.asyncIterator]: made };
}

async function rateOne(
  prompt: FeedbackPrompt,
  id: string,
  all: readonly PoolAnswer[],
  rater: Rater,
): Promise<RatedPrompt & { places: number[][] }> {
  const failures: RateFailure[] = [];
  const fail = (stage: RateFailure["stage"], by: string, problem: string, answers: string[]) =>
    failures.push({
      prompt_id: id,
      instruction: prompt.instruction,
      stage,
      model: by,
      problem,
      answers,
      unrated: false,
    });
  const answered = all.filter(({ model, problem, text }) => {
    if (problem !== undefined) fail("answer", model, problem, [text]);
    return problem === undefined;
  });
  const unrated = () => ({ prompt, id, failures: failures.map((each) => ({ ...each, unrated: true })), places: [] });
  if (answered.length < 2) return unrated();
  const texts = answered.map(({ text }) => text);
  const { settings, model } = rater;
  const [rated, critiques] = await Promise.all([
    rateAnswers(prompt, id, texts, rater),
    settings.critique ? Promise.all(texts.map((text) => criticise(prompt, text, rater))) : [],
  ]);
  if (rated.problem !== undefined) fail("rating", model.name, rated.problem, rated.answers);
  for (const { problem, answers } of critiques)
    if (problem !== undefined) fail("critique", model.name, problem, answers);
  if (rated.value === undefined || critiques.some(({ problem }) => problem !== undefined)) return unrated();
  const { ratings, places } = rated.value;
  const completions = answered.map((answer, index) => completionOf(answer, ratings[index]!, critiques[index]?.value));
  const row: FeedbackRow = {
    source: prompt.source,
    instruction: prompt.instruction,
    models: completions.map((each) => each.model),
    completions,
    correct_answers: prompt.correctAnswers,
    incorrect_answers: prompt.incorrectAnswers,
    ...(prompt.history.length > 0 ? { history: prompt.history } : {}),
  };
  return { prompt, id, row, failures, places };
}

function completionOf(answer: PoolAnswer, ratings: Ratings, critique: Critique | undefined): FeedbackCompletion {
  const annotations: FeedbackCompletion["annotations"] = {};
  for (const name of aspectNames) {
    const { rating, rationale } = ratings[name]!;
    annotations[name] = { Rating: rating === null ? "N/A" : String(rating), Rationale: rationale };
  }
  return {
    annotations,
    custom_system_prompt: answer.system,
    model: answer.model,
    principle: answer.principle,
    response: answer.text,
    critique: critique?.critique ?? "",
    overall_score: critique?.score ?? null,
    "fine-grained_score": fineGrainedScore(annotations),
  };
}

function countPlaces(report: RateReport, { completions }: FeedbackRow, places: readonly number[][]): void {
  for (const order of places) {
    for (const [index, place] of order.entries()) {
      const fine = completions[index]!["fine-grained_score"];
      if (fine !== null) countPlace(report, place, fine);
    }
  }
}
