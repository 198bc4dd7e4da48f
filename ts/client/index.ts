export { type Asked, type AskOptions, ask, type Parsed } from "./ask";
export type { BatchOptions } from "./batch-desk";
export type { BreakerOptions } from "./breaker";
export type { Caps } from "./budget";
export type {
  ChatCapabilities,
  ChatLogprob,
  ChatModel,
  ChatRequest,
  ChatResponse,
  Sampling,
  Usage,
} from "./chat-model";
export { DryRun, type DryRunOptions, type EstimateLine } from "./dry-run";
export type { Ledger, LedgerLine } from "./ledger";
export { type MistralChatOptions, mistralChat } from "./mistral-chat";
export { type ModelFacts, type ModelTable, readPrices } from "./model-facts";
export { OpenAiChat, type OpenAiChatOptions, openAiAddress } from "./openai-chat";
export type { PaceOptions } from "./pace";
export { PaidCalls, type PaidCallsOptions } from "./paid-calls";
