/**
 * zephyr-align: align a language model from TypeScript.
 *
 * `Mistral` loads a model, `SftTrainer` and `DpoTrainer` train it, `dataset` and its readers stream the rows.
 */
export { recipes } from "../recipes/zephyr";
export * from "./data";
export {
  AbortedError,
  ConfigError,
  type ConfigProblem,
  DataError,
  type ErrorCode,
  errorCodes,
  IoError,
  ModelError,
  OutOfMemoryError,
  type Place,
  TemplateError,
  TokenizerError,
  TrainingError,
  ZephyrError,
} from "./errors";
export {
  type FinishReason,
  type Generated,
  type GenerateOptions,
  type LoadOptions,
  Mistral,
  type ModelConfig,
  type SaveOptions,
} from "./model/mistral";
export {
  type EncodedChat,
  type EncodedPair,
  type EncodedRow,
  type EncodeOptions,
  Tokenizer,
  type TokenizerFiles,
} from "./model/tokenizer";
export { type RunReportInput, renderRunReport } from "./report";
export {
  type DpoConfig,
  type DpoConfigInput,
  dpoLosses,
  type LoraOptions,
  type LoraSettings,
  type SftConfig,
  type SftConfigInput,
} from "./train/config";
export { DpoTrainer, type DpoTrainerOptions } from "./train/dpo-trainer";
export type {
  CheckpointEvent,
  EndEvent,
  EvalEvent,
  Metrics,
  SamplesEvent,
  StartEvent,
  StepEvent,
  TrainerEvent,
  WarningEvent,
  WatchEvent,
} from "./train/events";
export type { LoggedRun, Logger } from "./train/loggers/logger";
export { tensorBoard } from "./train/loggers/tensorboard";
export { showProgress } from "./train/progress";
export { type Reference, SftTrainer, type SftTrainerOptions, type TrainResult } from "./train/sft-trainer";
export type { Watch } from "./train/watch/watch-run";
