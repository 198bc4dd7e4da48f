/**
 * What teacher, raters and judges talk to: one interface over servers, our own models and the offline teacher.
 *
 * A {@link ChatModel} is a plain function with a name. What makes calls safe (journal, caps, retries, rate limits) wraps
 * a model and is a model again, so that nobody who asks knows whether the answer was paid for now or yesterday.
 */
import type { Message } from "../data/messages";
import type { ModelFacts } from "./model-facts";

/** How an answer is sampled; left out means the server's own default. Part of the journal's key. */
export interface Sampling {
  /** 0 is greedy. */
  temperature?: number;
  topP?: number;
  /** Longest answer in tokens; caps are checked with it, so it is never left out. */
  maxTokens: number;
  stop?: readonly string[];
  seed?: number;
  /** Log-probabilities of the answer's tokens, with so many alternatives each (0–20); left out: none. */
  topLogprobs?: number;
  /** The answer must fit this JSON schema (`response_format: json_schema`) where the model can do it. */
  schema?: { name: string; schema: Record<string, unknown> };
}

/** One call. */
export interface ChatRequest {
  messages: readonly Message[];
  sampling: Sampling;
  /**
   * Draws of the same request that must differ (repeats, choices) count up from 0. Part of the journal's key.
   * @default 0
   */
  sampleIndex?: number;
  /** What the call is for, for example `rate` or `judge mt-bench`: groups the cost ledger. */
  purpose?: string;
  signal?: AbortSignal;
  /** Called with each piece of text as it comes, where the model streams; a journalled answer comes as one piece. */
  onToken?: (piece: string) => void;
}

/** A token of the answer with the alternatives at its place, the most probable first. */
export interface ChatLogprob {
  token: string;
  /** Natural logarithm. */
  logprob: number;
  top: readonly { token: string; logprob: number }[];
}

/** Tokens as the server counted them. */
export interface Usage {
  promptTokens: number;
  completionTokens: number;
}

/** An answer. */
export interface ChatResponse {
  text: string;
  /** `filtered`: the provider held the text back. */
  finishReason: "stop" | "length" | "filtered";
  /** The model as the server names it in the answer; judges print it, for an alias may be moved silently. */
  model: string;
  /** null when the server gave none. */
  usage: Usage | null;
  /** When asked for and given. */
  logprobs?: readonly ChatLogprob[];
  /** Dollars of this answer by the price table; null when the model has no price there. */
  cost: number | null;
  /** Whether it came out of the journal, without a new call. */
  journalled: boolean;
  /**
   * Says that the answer is of no use (it cannot be parsed). The journal keeps it as such: the same request asks the
   * model again, and the stored text can be parsed anew without paying. Nothing happens where there is no journal.
   */
  reject?: (reason: string) => Promise<void>;
}

/** What a model can do; asked before work starts, never found out in the middle of it. */
export interface ChatCapabilities {
  /** Alternatives with log-probabilities that can be asked for; 0: none. */
  topLogprobs: number;
  /** Whether `schema` is honoured; if not, ask for JSON in words and parse the text. */
  schema: boolean;
  /** Whether a system message is honoured. */
  system: boolean;
}

/** Something that answers. */
export interface ChatModel {
  /** Name for people, files and tables, for example `gpt-4-0613` or `offline-teacher`. */
  readonly name: string;
  /**
   * Where it is asked, or what else tells it from others of its name: address of the server, fingerprint of the weights.
   * Part of the journal's key: the same question to another place is another call. @default ""
   */
  readonly endpoint?: string;
  readonly capabilities: ChatCapabilities;
  /** Price and context where the model knows them itself (what runs here is free); else a table is asked by name. */
  readonly facts?: ModelFacts;
  /**
   * Answers a conversation that ends with a user message.
   *
   * @throws ClientError (`ZA_CLIENT_…`) for what the server refuses or what the caps forbid, AbortedError.
   */
  complete(request: ChatRequest): Promise<ChatResponse>;
}
