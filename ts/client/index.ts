export { type Asked, type AskOptions, ask, type Parsed } from "./ask";
export type {
  ChatCapabilities,
  ChatLogprob,
  ChatModel,
  ChatRequest,
  ChatResponse,
  Sampling,
  Usage,
} from "./chat-model";
