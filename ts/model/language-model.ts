/** What a loaded model can do, wherever its memory is: in this process, or in a worker of a browser. */
import { argumentError, type Message } from "../data/messages";
import type { Generated, GenerateOptions, ScoredChat } from "./generation";
import type { EncodedChat, EncodeOptions } from "./tokenizer";

/** A value that may be there later: `await` serves both. */
export type Awaitable<T> = T | Promise<T>;

/** The architecture as transformers names it. */
export interface ModelConfig {
  model_type: string;
  vocab_size: number;
  hidden_size: number;
  intermediate_size: number;
  num_hidden_layers: number;
  num_attention_heads: number;
  num_key_value_heads: number;
  max_position_embeddings: number;
  [key: string]: unknown;
}

/** What is answered: a conversation that ends with a user message, or plain text or tokens to continue. */
export type Prompt = readonly Message[] | string | Uint32Array;

/** Options of a batch: each conversation has a seed of its own, and no pieces or stop texts. */
export type BatchOptions = Omit<GenerateOptions, "onToken" | "stop" | "reuse"> & {
  /** Conversations begun together. @default 256 */
  batchSize?: number;
  /** Of each conversation, in place of `seed + i`. */
  seeds?: readonly number[];
};

/** How the weights are kept: "float32", or frozen as "bfloat16", "nf4", or as in their GGUF file. */
export type WeightStorage = "float32" | "bfloat16" | "nf4" | "gguf";

/** A tokenizer with its chat template. */
export interface TextTokenizer {
  /** Entries, added tokens included. */
  readonly vocabularySize: number;
  readonly eosTokenId: number | undefined;
  readonly bosTokenId: number | undefined;
  /** Jinja source of the chat template in use. */
  readonly chatTemplate: string;
  encode(text: string, options?: { addSpecialTokens?: boolean; specials?: "text" | "parse" }): Awaitable<Uint32Array>;
  decode(ids: Uint32Array | readonly number[], options?: { skipSpecialTokens?: boolean }): Awaitable<string>;
  /** The text that the template makes of a conversation. */
  render(messages: readonly Message[], options?: { addGenerationPrompt?: boolean }): Awaitable<string>;
  /** The ids of a conversation, ready for the assistant to answer. */
  encodePrompt(messages: readonly Message[], options?: EncodeOptions): Awaitable<Uint32Array>;
  /** A conversation with its mask: assistant contents and their end tokens are supervised, nothing else. */
  encodeChat(messages: readonly Message[], options?: EncodeOptions): Awaitable<EncodedChat>;
}

/** Work that can be stopped. */
export interface Stoppable {
  /** Stops it between two pieces of the text: `AbortedError`. */
  signal?: AbortSignal;
}

/** How given text is computed. */
export interface ScoreOptions extends Stoppable {
  /**
   * Whether nothing is rounded for speed: log-probabilities are then the same on every processor and in WebAssembly. With
   * `false`, text is read as prompts are: over weights that are kept as in a GGUF file, activations are rounded to 16 bits and
   * keys and values to float16, which is nearly twice as fast where there is AVX-512. Of other weights nothing changes.
   * @default true
   */
  exact?: boolean;
}

/** A model that answers and scores. `Mistral` of the package and `Mistral` of `zephyr-align/browser` are such. */
export interface LanguageModel {
  /** Where it was loaded from. */
  readonly source: string;
  readonly tokenizer: TextTokenizer;
  readonly config: ModelConfig;
  /** Number of parameters; tied embeddings count once. */
  readonly parameters: number;
  readonly storage: WeightStorage;
  /** Bytes of the weights in memory. */
  readonly weightBytes: number;
  /** Token ids that end an answer. */
  readonly stopTokenIds: number[];
  /** Answers a conversation, or continues plain text (a string) or tokens. */
  generate(prompt: Prompt, options?: GenerateOptions): Promise<Generated>;
  /** The answer as a stream of text pieces. Leaving the loop stops the generation. */
  stream(prompt: Prompt, options?: GenerateOptions): AsyncGenerator<string, void>;
  /** Answers many conversations at once. Sequence `i` is sampled with `seed + i`, or with `seeds[i]`. */
  generateBatch(prompts: readonly (readonly Message[])[], options?: BatchOptions): Promise<Generated[]>;
  /** Log-probability of each token of a conversation, and which of them are the assistant's. */
  score(messages: readonly Message[], options?: EncodeOptions & ScoreOptions): Promise<ScoredChat>;
  /** Log-probability of each token after the first, in nats: `[length − 1]`. */
  score(ids: Uint32Array | readonly number[], options?: ScoreOptions): Promise<Float32Array>;
  /** The logits after each token, row by row: `[length × vocabulary]`. Large; for inspection. */
  logits(ids: Uint32Array | readonly number[], options?: ScoreOptions): Promise<Float32Array>;
  /** Gives the memory back. */
  dispose(): void;
}

/** Whether what is to be scored is a conversation. @throws ConfigError `ZA_ARGUMENT` for what is neither that nor ids */
export function isConversation(
  input: readonly Message[] | Uint32Array | readonly number[],
): input is readonly Message[] {
  if (!Array.isArray(input) && !(input instanceof Uint32Array)) {
    throw argumentError("input", "messages or token ids", input, "Give a conversation, or token ids (a Uint32Array).");
  }
  return typeof input[0] === "object";
}

/** The log-probabilities of a conversation's tokens, summed over the assistant's. */
export function scoredChat({ ids, supervised }: EncodedChat, logprobs: Float32Array): ScoredChat {
  const answers = supervised.subarray(1);
  const answerLogprob = logprobs.reduce((sum, logprob, at) => (answers[at] ? sum + logprob : sum), 0);
  return { ids, logprobs, answers, answerLogprob, answerTokens: answers.reduce((sum, answer) => sum + answer, 0) };
}
