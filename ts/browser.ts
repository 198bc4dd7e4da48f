/**
 * zephyr-align/browser: a model in WebAssembly, for web pages and wherever there is no native addon.
 *
 * `Mistral` answers and scores with the interface of the package's own; models are kept in the origin's private file system.
 */

export { type BrowserLoadOptions, Mistral } from "./browser/mistral";
export { type CachedFile, modelCache } from "./browser/model-cache";
export type { FileSource, LoadProgress, ModelFiles, ModelSource } from "./browser/model-source";
export { Tokenizer } from "./browser/tokenizer";
export type { Message } from "./data/messages";
export {
  AbortedError,
  ConfigError,
  type ErrorCode,
  ModelError,
  OutOfMemoryError,
  type Place,
  TemplateError,
  TokenizerError,
  ZephyrError,
} from "./errors";
export type {
  AnswerLogprob,
  FinishReason,
  Generated,
  GenerateOptions,
  ScoredChat,
  TokenLogprob,
} from "./model/generation";
export type {
  Awaitable,
  BatchOptions,
  LanguageModel,
  ModelConfig,
  Prompt,
  ScoreOptions,
  TextTokenizer,
  WeightStorage,
} from "./model/language-model";
export type { EncodedChat, EncodeOptions, TokenizerFiles } from "./model/tokenizer";
