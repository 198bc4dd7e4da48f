/**
 * zephyr-align: align a language model from TypeScript.
 *
 * `Mistral` loads a model, `SftTrainer` and `DpoTrainer` train it, `dataset` and its readers stream the rows;
 * `generateConversations`, `rateResponses` and `binarise` make rows with a teacher.
 */
export { recipes } from "../recipes/zephyr";
export * from "./client";
export * from "./data";
export * from "./distill";
export {
  AbortedError,
  type CallFailure,
  ClientError,
  ConfigError,
  type ConfigProblem,
  DataError,
  DeviceError,
  type ErrorCode,
  errorCodes,
  HubError,
  IoError,
  JudgeError,
  ModelError,
  OutOfMemoryError,
  type Place,
  TemplateError,
  TokenizerError,
  TrainingError,
  ZephyrError,
} from "./errors";
export { type Snapshot, type SnapshotOptions, snapshotDownload } from "./hub/snapshot";
export * from "./judge";
export {
  type AnswerLogprob,
  type FinishReason,
  type Generated,
  type GenerateOptions,
  type GgufExport,
  type GgufOptions,
  type GgufType,
  type LanguageModel,
  type LoadOptions,
  Mistral,
  type ModelConfig,
  type Prompt,
  type SaveOptions,
  type ScoredChat,
  type ScoreOptions,
  type TokenLogprob,
} from "./model/mistral";
export { setThreads } from "./model/threads";
export {
  type EncodedChat,
  type EncodedPair,
  type EncodedRow,
  type EncodeOptions,
  Tokenizer,
  type TokenizerFiles,
} from "./model/tokenizer";
export {
  type ChosenDevice,
  type Device,
  type DeviceAttempt,
  type DeviceName,
  type DeviceProblem,
  type DeviceSurvey,
  devices,
} from "./native/devices";
export {
  type DatasetView,
  type EvaluationReportOptions,
  type EvaluationSummary,
  evaluationSummary,
  type Overview,
  type RunComparison,
  type RunReportInput,
  renderEvaluationMarkdown,
  renderEvaluationReport,
  renderRunReport,
  type ViewOptions,
  viewDataset,
} from "./report";
export { type ModelServer, type RequestLog, type ServeOptions, serve } from "./serve";
export {
  type DpoConfig,
  type DpoConfigInput,
  dpoLosses,
  type LoraOptions,
  type LoraSettings,
  type SftConfig,
  type SftConfigInput,
} from "./train/config";
export { CpoTrainer, type CpoTrainerOptions } from "./train/cpo-trainer";
export { DpoTrainer, type DpoTrainerOptions } from "./train/dpo-trainer";
export type {
  CheckpointEvent,
  EndEvent,
  EvalEvent,
  Metrics,
  ReferenceEvent,
  SamplesEvent,
  StartEvent,
  StepEvent,
  TrainerEvent,
  WarningEvent,
  WatchEvent,
} from "./train/events";
export { KtoTrainer, type KtoTrainerOptions } from "./train/kto-trainer";
export type { LoggedRun, Logger } from "./train/loggers/logger";
export { tensorBoard } from "./train/loggers/tensorboard";
export type { MemoryPlan } from "./train/memory";
export { OrpoTrainer, type OrpoTrainerOptions } from "./train/orpo-trainer";
export type {
  CpoConfig,
  CpoConfigInput,
  KtoConfig,
  KtoConfigInput,
  OrpoConfig,
  OrpoConfigInput,
  SimpoConfig,
  SimpoConfigInput,
} from "./train/preference-config";
export { showProgress } from "./train/progress";
export { SftTrainer, type SftTrainerOptions } from "./train/sft-trainer";
export { SimpoTrainer, type SimpoTrainerOptions } from "./train/simpo-trainer";
export type { Reference, TrainerInput, TrainResult } from "./train/trainer";
export type { Watch } from "./train/watch/watch-run";
