export type { Generator } from "./alpaca-eval/comparison";
export {
  type Annotation,
  type Output,
  readAnnotations,
  readDifficulty,
  readGamed,
  readOutputs,
  readWeights,
} from "./alpaca-eval/files";
export {
  fitLengthControlled,
  type LengthControlFit,
  type LengthControlled,
  type LengthControlWeights,
  lengthControlledFromWeights,
} from "./alpaca-eval/length-control";
export { averageLength, type WinRate, winRate } from "./alpaca-eval/metrics";
export { type GenerateOutputsOptions, generateOutputs } from "./alpaca-eval/outputs";
export { logprobParser, type Preference, rankingParser } from "./alpaca-eval/parsers";
export { type AlpacaEvalVersion, alpacaEvalProtocols } from "./alpaca-eval/protocol";
export { isSwitched } from "./alpaca-eval/python-random";
export type { AlpacaEvalOptions, LengthControlInput } from "./alpaca-eval/result";
export {
  type JudgeAlpacaEvalOptions,
  judgeAlpacaEval,
  type ScoreAlpacaEvalOptions,
  scoreAlpacaEval,
} from "./alpaca-eval/run";
export { addressesJudge, type Canary, canaries } from "./canaries";
export {
  evaluateConversations,
  evaluatePairs,
  type LogprobOptions,
  type Measured,
  type PairEvaluation,
  type SftEvaluation,
} from "./logprob";
export { type Answer, type AnswerOptions, answerQuestions, readAnswers } from "./mt-bench/answers";
export { type JudgePrompt, type MtBench, type OpenMtBenchOptions, openMtBench, type Question } from "./mt-bench/bench";
export { readJudgments } from "./mt-bench/judge";
export type { Judgment, PairJudgment, SingleJudgment } from "./mt-bench/judgments";
export type { Contestant } from "./mt-bench/match";
export {
  contestantFrom,
  type JudgeMtBenchOptions,
  judgeMtBench,
  type ScoreMtBenchOptions,
  scoreMtBench,
} from "./mt-bench/run";
export { compatRating, compatWinner, strictRating, strictWinner } from "./mt-bench/verdict";
export {
  type ChoiceEvaluation,
  type ChoiceOptions,
  type ChoiceQuestion,
  evaluateChoices,
  readChoices,
} from "./multiple-choice";
export { benchmarkFolder, type PulledBenchmark, publications, pullBenchmark } from "./pull";
export type * from "./result";
export { readJudgeResults } from "./result-file";
export { bootstrapMean, type Estimate } from "./statistics";
