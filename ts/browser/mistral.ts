import { version } from "../../package.json";
import type { Message } from "../data/messages";
import { ModelError } from "../errors";
import { CallersFunction } from "../model/callers-function";
import {
  checkBatch,
  checkGenerateOptions,
  checkScoreOptions,
  promptIds,
  seedOf,
  stopsOf,
} from "../model/generate-options";
import { decodingOf, type Generated, type GenerateOptions, type ScoredChat, streamed } from "../model/generation";
import {
  type BatchOptions,
  isConversation,
  type LanguageModel,
  type ModelConfig,
  type Prompt,
  type ScoreOptions,
  scoredChat,
  type WeightStorage,
} from "../model/language-model";
import type { EncodeOptions } from "../model/tokenizer";
import { absolute, type LoadProgress, type ModelSource } from "./model-source";
import { nodeWorker, platform, type WorkerLike } from "./platform";
import type { WasmSource } from "./runtime";
import { type Thread, thisThread, workerThread } from "./thread";
import { threadsOf } from "./threads";
import { Tokenizer } from "./tokenizer";
import type { ModelFacts } from "./work";

/** There in browsers only. */
declare const Worker: new (url: URL, options: { type: "module"; name: string }) => WorkerLike;

/** How a model is loaded in a browser. */
export interface BrowserLoadOptions {
  /** Jinja source of a chat template that replaces the model's own, or `"zephyr"`. */
  template?: string;
  /** "bfloat16" keeps the weights of a safetensors file in half the memory. @default "float32" */
  dtype?: "float32" | "bfloat16";
  /**
   * "auto" keeps a quantised GGUF file as it is, where all its types can be kept; else `dtype` holds. "gguf" insists on it,
   * "none" dequantises to `dtype`.
   * @default "auto"
   */
  quantization?: "auto" | "gguf" | "none";
  /** Called as the files come. */
  onProgress?: (progress: LoadProgress) => void;
  /** Stops the loading; the call rejects with `AbortedError`. */
  signal?: AbortSignal;
  /** Whether files that are fetched are kept in the origin's private file system, and taken from there. @default true */
  cache?: boolean;
  /**
   * Whether the model gets a worker, so that the page never waits for it: `false` for none, or a worker that runs the
   * package's browser-worker.js, or a function that starts one. Where there are no web workers (Node), one thread works in
   * the thread that calls, several in threads of their own.
   * @default true
   */
  worker?: boolean | WorkerLike | (() => WorkerLike);
  /**
   * How many threads compute, each in a worker, with the same bits for every number. More than one needs a page that is
   * cross-origin isolated, or Node; `"auto"` takes the processors, up to four, where that is so, else one.
   * @default 1
   */
  threads?: number | "auto";
  /**
   * Where the WebAssembly module is: its address or bytes.
   * @default zephyr_bg.wasm, for several threads zephyr-threads_bg.wasm, beside the package's scripts
   */
  wasm?: WasmSource;
}

/**
 * A Mistral or Llama decoder in WebAssembly, with its tokenizer. It works in a worker of its own, where its memory (at most
 * 4 GiB) is; {@link Mistral.dispose} ends the worker, and those of its threads, and gives all of it back.
 */
export class Mistral implements LanguageModel {
  readonly tokenizer: Tokenizer;
  readonly source: string;
  readonly #thread: Thread;
  readonly #facts: ModelFacts;

  private constructor(thread: Thread, facts: ModelFacts, source: string) {
    this.#thread = thread;
    this.#facts = facts;
    this.source = source;
    this.tokenizer = new Tokenizer(thread, facts);
  }

  /**
   * Loads a model from the address of a folder in Hugging Face's layout or of a `.gguf` file, from such a file (a `Blob`, or
   * its bytes), or from the files of a folder. Tensors are converted as they come; the file is never whole in memory.
   *
   * @throws ModelError (`ZA_MODEL_TOO_LARGE` by the header, before the rest is fetched), TokenizerError, TemplateError;
   * ZephyrError `ZA_WASM_LOAD`, `ZA_WASM_UNSUPPORTED`; ConfigError `ZA_THREADS`; AbortedError.
   */
  static async fromPretrained(source: ModelSource, options: BrowserLoadOptions = {}): Promise<Mistral> {
    const { template, signal, onProgress: onEvent, cache = true, worker = true, wasm } = options;
    const threads = threadsOf(options.threads ?? 1, worker === true || typeof worker === "function");
    const module = { version, ...(wasm === undefined ? {} : { wasm: wasm instanceof URL ? wasm.href : wasm }) };
    const request = {
      source: sendable(source),
      ...module,
      threads,
      ...storageOf(options),
      cache,
      ...(template === undefined ? {} : { template }),
    };
    const alone = worker === false || (worker === true && threads === 1 && !platform.Worker);
    const start = typeof worker === "function" ? worker : () => (typeof worker === "object" ? worker : ownWorker());
    const own = alone ? undefined : workerThread(start());
    const thread = own ?? thisThread();
    try {
      if (own && threads > 1) {
        const shared = await own.call("loadShared", [module], signal ? { signal } : {});
        for (let others = threads - 1; others > 0; others--) own.add(start(), shared);
      }
      const hooks = { ...(signal ? { signal } : {}), ...(onEvent ? { onEvent } : {}) };
      return new Mistral(thread, await thread.call("load", [request], hooks), nameOf(source));
    } catch (error) {
      thread.end();
      throw error;
    }
  }

  get config(): ModelConfig {
    return structuredClone(this.#facts.config);
  }

  get parameters(): number {
    return this.#facts.parameters;
  }

  get storage(): WeightStorage {
    return this.#facts.storage;
  }

  get weightBytes(): number {
    return this.#facts.weightBytes;
  }

  get stopTokenIds(): number[] {
    return [...this.#facts.stopTokenIds];
  }

  /** Bytes that WebAssembly has taken for this model: the peak, as its memory never shrinks. */
  memoryBytes(): Promise<number> {
    return this.#thread.call("memoryBytes", []);
  }

  async generate(prompt: Prompt, options: GenerateOptions = {}): Promise<Generated> {
    checkGenerateOptions(options);
    const ids = await promptIds(this.tokenizer, prompt, options);
    const { signal, onToken, stop, seed = 0, logprobs } = options;
    const decoding = decodingOf(options, this.stopTokenIds);
    const request = {
      prompts: [ids],
      seeds: [seedOf(seed)],
      decoding,
      stop: stopsOf(stop),
      ...(logprobs === undefined ? {} : { logprobs }),
    };
    if (!onToken) return (await this.#thread.call("generate", [request], signal ? { signal } : {}))[0]!;
    const caller = new CallersFunction(onToken);
    const onEvent = ([, piece]: readonly [number, string]) => caller.call(piece);
    const answering = this.#thread.call("generate", [request], { signal: caller.signalWith(signal), onEvent });
    return (await caller.during(answering))[0]!;
  }

  stream(prompt: Prompt, options: GenerateOptions = {}): AsyncGenerator<string, void> {
    return streamed((options) => this.generate(prompt, options), options);
  }

  async generateBatch(prompts: readonly (readonly Message[])[], options: BatchOptions = {}): Promise<Generated[]> {
    checkBatch(prompts, options);
    const { signal, batchSize: size = 256, seed = 0, seeds, logprobs } = options;
    const decoding = decodingOf(options, this.stopTokenIds);
    const answers: Generated[] = [];
    for (let start = 0; start < prompts.length; start += size) {
      const part = prompts.slice(start, start + size);
      const ids = await Promise.all(part.map((prompt) => this.tokenizer.encodePrompt(prompt, options)));
      const own = ids.map((_, i) => seedOf(seeds?.[start + i] ?? seed + start + i));
      const request = { prompts: ids, seeds: own, decoding, stop: [], ...(logprobs === undefined ? {} : { logprobs }) };
      const found = await this.#thread.call("generate", [request], signal ? { signal } : {});
      answers.push(...found.map(({ timing: _, ...answer }) => answer));
    }
    return answers;
  }

  score(messages: readonly Message[], options?: EncodeOptions & ScoreOptions): Promise<ScoredChat>;
  score(ids: Uint32Array | readonly number[], options?: ScoreOptions): Promise<Float32Array>;
  async score(
    input: readonly Message[] | Uint32Array | readonly number[],
    options: EncodeOptions & ScoreOptions = {},
  ): Promise<ScoredChat | Float32Array> {
    checkScoreOptions(options);
    const { signal, exact = true, ...encoding } = options;
    const score = (ids: Uint32Array) => this.#thread.call("score", [{ ids, exact }], signal ? { signal } : {});
    if (!isConversation(input)) return await score(Uint32Array.from(input));
    const chat = await this.tokenizer.encodeChat(input, encoding);
    return scoredChat(chat, await score(chat.ids));
  }

  async logits(ids: Uint32Array | readonly number[], options: ScoreOptions = {}): Promise<Float32Array> {
    checkScoreOptions(options);
    const { signal, exact = true } = options;
    return this.#thread.call("logits", [{ ids: Uint32Array.from(ids), exact }], signal ? { signal } : {});
  }

  /** Ends the model's worker; calls that run reject, and later ones do. */
  dispose(): void {
    this.#thread.end();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

function storageOf({ dtype = "float32", quantization = "auto" }: BrowserLoadOptions): {
  storage: WeightStorage;
  keep: boolean;
} {
  const wrong = (field: string, value: unknown, remedy: string) =>
    new ModelError("ZA_MODEL_INVALID", `${field} ${JSON.stringify(value)} is not one of its values`, {
      place: { field },
      remedy,
    });
  if (dtype !== "float32" && dtype !== "bfloat16") throw wrong("dtype", dtype, 'Take "float32" or "bfloat16".');
  if (quantization === "gguf") return { storage: "gguf", keep: true };
  if (quantization === "auto" || quantization === "none") return { storage: dtype, keep: quantization === "auto" };
  throw wrong("quantization", quantization, 'Take "auto", "gguf" or "none".');
}

/** Where the script of {@link nodeWorker} is: named apart, as a bundler takes what stands in a `new URL` for a file to copy. */
const workerScript = "./browser-worker.js";

function ownWorker(): WorkerLike {
  if (!platform.Worker) return nodeWorker(new URL(workerScript, import.meta.url));
  // In this very form bundlers find the script.
  return new Worker(new URL("./browser-worker.js", import.meta.url), { type: "module", name: "zephyr-align" });
}

/** A source as it can be sent: addresses are made whole here, where the page's own address is known. */
function sendable(source: ModelSource): ModelSource {
  if (typeof source !== "object" || !("weights" in source)) return absolute(source);
  const entries = Object.entries(source).map(([name, file]) => [
    name,
    Array.isArray(file) ? file.map(absolute) : absolute(file),
  ]);
  return Object.fromEntries(entries) as ModelSource;
}

function nameOf(source: ModelSource): string {
  if (typeof source === "string" || source instanceof URL) return String(source);
  return (source as Partial<File>).name ?? "the model's files";
}
