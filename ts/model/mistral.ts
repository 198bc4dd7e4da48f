import { existsSync } from "node:fs";
import { mkdir, rename, rm, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import type { NativeModel } from "../../bindings/node/index";
import type { Message } from "../data";
import { aborted, fromNative, ModelError, throwIfAborted } from "../errors";
import { modelFolder } from "../hub/model-folder";
import { isRepositoryId } from "../hub/repository";
import type { HubOptions } from "../hub/settings";
import { type ChosenDevice, chooseDevice, type DeviceName } from "../native/devices";
import { native } from "../native/load";
import { type LoraOptions, loraSettings } from "../train/config";
import { type EncodeOptions, folderTokenizer, Tokenizer } from "./tokenizer";

/** How a model is loaded. */
export interface LoadOptions {
  /**
   * Where the model computes: "auto" is the first card that can be used, else the CPU; "cuda" that card, "cuda:1" the second
   * one. What can be used, and why not, is told by {@link devices} and `zephyr-align doctor`. @default "auto"
   */
  device?: DeviceName;
  /** Jinja source of a chat template that replaces the model's own, or `"zephyr"`. */
  template?: string;
  /** Folder of the tokenizer, when it is not the model's. */
  tokenizer?: string;
  /** Folder of a LoRA adapter of this model, as PEFT writes it. */
  adapter?: string;
  /** For the id of a model at the Hub: branch, tag or commit. @default "main" */
  revision?: string;
  /** How the Hub is reached; the environment variables of huggingface_hub are honoured. */
  hub?: HubOptions;
  /**
   * "bfloat16" keeps the weights frozen in half the memory: for generating, scoring, and training an adapter (`lora`);
   * sums are float32 in any case. @default "float32"
   */
  dtype?: "float32" | "bfloat16";
  /**
   * "nf4" keeps the projections frozen in 4.1 bits each, as bitsandbytes does (QLoRA), and embeddings and head as bfloat16.
   * @default none
   */
  quantization?: "nf4";
}

/** Decoding options; names and order of application as in transformers. */
export interface GenerateOptions extends EncodeOptions {
  /** @default 256 */
  maxTokens?: number;
  /** 0 is greedy. @default 0 */
  temperature?: number;
  /** 0 is off. @default 0 */
  topK?: number;
  /** 1 is off. @default 1 */
  topP?: number;
  /** 0 is off. @default 0 */
  minP?: number;
  /** 1 is off. @default 1 */
  repetitionPenalty?: number;
  /** The same seed gives the same text. @default 0 */
  seed?: number;
  /** Texts that end the answer; they are not part of it. */
  stop?: readonly string[];
  /** Stops the generation; the call rejects with `AbortedError`. */
  signal?: AbortSignal;
  /** Called with each finished piece of text; the pieces joined are the answer. */
  onToken?: (piece: string) => void;
}

/** Why a generation ended: an end token or stop text, or the limit of tokens or context. */
export type FinishReason = "stop" | "length";

/** A generated answer. */
export interface Generated {
  text: string;
  ids: Uint32Array;
  finishReason: FinishReason;
}

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

/** How a model is written. */
export interface SaveOptions {
  /** @default "float32" */
  dtype?: "float32" | "bfloat16" | "float16";
  /** Largest file in bytes; bigger models are sharded. @default 5_000_000_000 */
  maxShardBytes?: number;
}

/**
 * A Mistral or Llama decoder in memory, with its tokenizer.
 *
 * Training changes a model in place: its weights, or with an adapter ({@link Mistral.withLora}) the adapter alone.
 * {@link Mistral.frozenCopy} shares the weights until then and costs nothing.
 */
export class Mistral {
  /** @internal */
  readonly native: NativeModel;
  readonly tokenizer: Tokenizer;
  /** Path it was loaded from, or what it was made of. */
  readonly source: string;
  /** Parameters that training has changed no more: see {@link Mistral.frozenCopy}. */
  readonly frozen: boolean;

  /** Where it computes; for the CPU with what kept it from a card, if it was left to choose. */
  readonly device: ChosenDevice;

  /** @internal Use {@link Mistral.fromPretrained}. */
  constructor(handle: NativeModel, tokenizer: Tokenizer, source: string, device: ChosenDevice, frozen = false) {
    this.native = handle;
    this.tokenizer = tokenizer;
    this.source = source;
    this.device = device;
    this.frozen = frozen;
  }

  /**
   * Loads a folder in Hugging Face's layout (config.json, safetensors, tokenizer.json) or a GGUF file (dequantised).
   * A folder of a LoRA adapter is loaded together with the base that its configuration names. What is neither may be the id
   * of a model at the Hub (`org/name`), whose files are downloaded into the Hub's cache.
   *
   * @throws ModelError, TokenizerError, TemplateError that name file, field or tensor; HubError.
   */
  static async fromPretrained(source: string, options: LoadOptions = {}): Promise<Mistral> {
    try {
      const addon = native();
      // Before anything is fetched or read.
      const device = await chooseDevice(options.device);
      const path = await modelFolder(source, options);
      const adapter = addon.NativeModel.adapterBase(path);
      if (adapter) return await Mistral.#ofAdapter(path, adapter.base, options);
      if (options.adapter !== undefined) {
        const { adapter: folder, ...rest } = options;
        return await (await Mistral.fromPretrained(source, rest)).withAdapter(folder);
      }
      const handle = await addon.NativeModel.load(path, storageOf(options));
      const metadata = options.tokenizer === undefined ? handle.ggufTokenizer() : null;
      const tokenizer = metadata
        ? new Tokenizer(addon.NativeTokenizer.fromGguf(metadata, options.template))
        : await folderTokenizer(options.tokenizer ?? path, options.template);
      return Mistral.#checked(handle, tokenizer, source, device);
    } catch (error) {
      throw fromNative(error);
    }
  }

  /** A model with random weights (normal with `initializer_range`), a pure function of the seed. */
  static async random(config: Record<string, unknown>, tokenizer: Tokenizer, seed: number): Promise<Mistral> {
    try {
      const handle = await native().NativeModel.random(JSON.stringify(config), seed);
      return Mistral.#checked(handle, tokenizer, `random(${seed})`, await chooseDevice("cpu"));
    } catch (error) {
      throw fromNative(error);
    }
  }

  /** The adapter in `path` over its base. A tokenizer beside the adapter (with the template of its training) is taken. */
  static async #ofAdapter(path: string, base: string | undefined, options: LoadOptions): Promise<Mistral> {
    const places = [base, base && join(path, base)];
    const folder =
      places.find((place) => place && existsSync(place)) ?? (base && isRepositoryId(base) ? base : undefined);
    if (folder === undefined || options.adapter !== undefined) {
      const problem =
        options.adapter !== undefined
          ? "this is an adapter, not the model to put one over"
          : `the adapter's base ${base === undefined ? "is not named" : `${base} is not here`}`;
      throw new ModelError("ZA_MODEL_NOT_FOUND", problem, {
        place: { file: path },
        remedy: "Load its base model with the adapter: Mistral.fromPretrained(base, { adapter }).",
      });
    }
    const own = options.tokenizer === undefined && existsSync(join(path, "tokenizer.json"));
    // The revision is that of the adapter, not of its base.
    const { revision: _, ...rest } = options;
    const loading = own ? { ...rest, tokenizer: path } : rest;
    return await (await Mistral.fromPretrained(folder, loading)).withAdapter(path);
  }

  static #checked(handle: NativeModel, tokenizer: Tokenizer, source: string, device: ChosenDevice): Mistral {
    const model = new Mistral(handle, tokenizer, source, device);
    const rows = model.config.vocab_size;
    if (tokenizer.vocabularySize > rows) {
      throw new ModelError(
        "ZA_MODEL_INVALID",
        `the tokenizer has ${tokenizer.vocabularySize} entries, but the model's vocabulary is ${rows}`,
        { place: { file: source }, remedy: "Take the tokenizer that belongs to this model." },
      );
    }
    return model;
  }

  get config(): ModelConfig {
    return JSON.parse(this.native.configJson());
  }

  /** Number of parameters; tied embeddings count once. */
  get parameters(): number {
    return this.native.parameters;
  }

  /** The adapter's configuration, with PEFT's names; undefined without an adapter. */
  get adapter(): Readonly<Record<string, unknown>> | undefined {
    const json = this.native.adapterJson();
    return json === null ? undefined : JSON.parse(json);
  }

  /** How the weights are kept: "float32", or frozen as "bfloat16" or "nf4". */
  get storage(): "float32" | "bfloat16" | "nf4" {
    return this.native.storage as "float32" | "bfloat16" | "nf4";
  }

  /** Number of parameters that training changes: the adapter's, or all. */
  get trainableParameters(): number {
    return this.native.trainableParameters;
  }

  /** Token ids that end an answer: the config's, and the tokenizer's end token. */
  get stopTokenIds(): number[] {
    const ids = new Set(this.native.eosTokenIds);
    if (this.tokenizer.eosTokenId !== undefined) ids.add(this.tokenizer.eosTokenId);
    return [...ids];
  }

  /** Weights and adapter as they are now. Shared, not copied, until one of the two is trained. */
  frozenCopy(): Mistral {
    return new Mistral(this.native.snapshot(), this.tokenizer, this.source, this.device, true);
  }

  /** Another state of this model. */
  #with(handle: NativeModel, frozen = false): Mistral {
    return new Mistral(handle, this.tokenizer, this.source, this.device, frozen);
  }

  /**
   * The same weights, not copied, under a new low-rank adapter (LoRA, Hu et al. 2021), which changes nothing until it is
   * trained. Training then leaves the weights as they are: they get no gradient and no moments.
   *
   * @throws ModelError `ZA_ADAPTER_CONFIG` for a target that does not exist (the message lists what does), and
   * `ZA_ADAPTER_STACKED` when the model has an adapter already: merge() it first, or train it on.
   */
  async withLora(options: LoraOptions & { seed?: number } = {}): Promise<Mistral> {
    const { seed = 0, ...given } = options;
    const { rank, alpha, dropout, targetModules, useRslora } = loraSettings(given);
    const fields = {
      r: rank,
      lora_alpha: alpha,
      lora_dropout: dropout,
      target_modules: targetModules,
      use_rslora: useRslora,
    };
    try {
      return this.#with(await this.native.addAdapter(JSON.stringify(fields), seed));
    } catch (error) {
      throw fromNative(error);
    }
  }

  /**
   * The same weights, not copied, under the adapter in a folder of PEFT.
   *
   * @throws ModelError `ZA_ADAPTER_BASE` when it was made for another model (names, shapes).
   */
  async withAdapter(folder: string): Promise<Mistral> {
    try {
      return this.#with(await this.native.loadAdapter(folder));
    } catch (error) {
      throw fromNative(error);
    }
  }

  /** The weights without the adapter: the base that it was trained over. Shared, not copied. */
  withoutAdapter(): Mistral {
    return this.#with(this.native.withoutAdapter(), true);
  }

  /** A model of its own whose weights hold what the adapter adds: W + scale·B·A, in float32. */
  async merge(): Promise<Mistral> {
    try {
      return this.#with(await this.native.mergeAdapter());
    } catch (error) {
      throw fromNative(error);
    }
  }

  /** Writes the adapter as PEFT does, with the tokenizer beside it. PEFT, and {@link Mistral.fromPretrained}, load it. */
  async saveAdapter(folder: string): Promise<void> {
    const { source } = this;
    const base = existsSync(source) ? resolve(source) : isRepositoryId(source) ? source : undefined;
    await this.#saveWithTokenizer(folder, async () => {
      await this.native.saveAdapter(folder, base);
      // What transformers' BitsAndBytesConfig needs to load the base as it was here.
      if (this.storage === "nf4") {
        await writeFile(join(folder, "quantization_config.json"), `${JSON.stringify(quantizationConfig, null, 2)}\n`);
      }
    });
  }

  /**
   * The same weights, not copied, under another chat template: Jinja source, `"zephyr"`, or `"model"` for the one it has.
   */
  withTemplate(template: string): Mistral {
    const tokenizer = this.tokenizer.withTemplate(template);
    if (tokenizer === this.tokenizer) return this;
    return new Mistral(this.native, tokenizer, this.source, this.device, this.frozen);
  }

  /** Answers a conversation (or continues plain text, given as a string). */
  async generate(prompt: readonly Message[] | string, options: GenerateOptions = {}): Promise<Generated> {
    const ids =
      typeof prompt === "string"
        ? this.tokenizer.encode(prompt, {
            addSpecialTokens: true,
            ...(options.specialsInContent ? { specials: options.specialsInContent } : {}),
          })
        : this.tokenizer.encodePrompt(prompt, options);
    const { signal, onToken, stop } = options;
    throwIfAborted(signal);
    const abort = new (native().NativeAbort)();
    const stopWork = () => abort.abort();
    signal?.addEventListener("abort", stopWork, { once: true });
    try {
      const result = await this.native.generate(
        this.tokenizer.native,
        ids,
        this.#decoding(options),
        [...(stop ?? [])],
        abort,
        (piece) => onToken?.(piece),
      );
      return { ...result, finishReason: result.finishReason as FinishReason };
    } catch (error) {
      throw signal?.aborted ? aborted(signal.reason) : fromNative(error);
    } finally {
      signal?.removeEventListener("abort", stopWork);
    }
  }

  /** The answer as a stream of text pieces. Leaving the loop stops the generation. */
  async *stream(prompt: readonly Message[] | string, options: GenerateOptions = {}): AsyncGenerator<string, void> {
    const leave = new AbortController();
    const signal = options.signal ? AbortSignal.any([options.signal, leave.signal]) : leave.signal;
    const pieces: string[] = [];
    let wake = () => {};
    let finished = false;
    let failure: unknown;
    const running = this.generate(prompt, {
      ...options,
      signal,
      onToken: (piece) => {
        options.onToken?.(piece);
        pieces.push(piece);
        wake();
      },
    })
      .catch((error: unknown) => {
        failure = error;
      })
      .finally(() => {
        finished = true;
        wake();
      });
    try {
      for (;;) {
        const piece = pieces.shift();
        if (piece !== undefined) yield piece;
        else if (finished) break;
        else
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
      }
      if (failure) throw failure;
    } finally {
      leave.abort();
      await running;
    }
  }

  /**
   * Answers many conversations at once: the weights are read once a step for all of them.
   * Sequence `i` is sampled with `seed + i`, or with `seeds[i]`.
   */
  async generateBatch(
    prompts: readonly (readonly Message[])[],
    options: Omit<GenerateOptions, "onToken" | "stop"> & { batchSize?: number; seeds?: readonly number[] } = {},
  ): Promise<Generated[]> {
    const size = options.batchSize ?? 256;
    const answers: Generated[] = [];
    const { signal } = options;
    const abort = new (native().NativeAbort)();
    const stopWork = () => abort.abort();
    signal?.addEventListener("abort", stopWork, { once: true });
    try {
      for (let start = 0; start < prompts.length; start += size) {
        throwIfAborted(signal);
        const ids = prompts.slice(start, start + size).map((prompt) => this.tokenizer.encodePrompt(prompt, options));
        const seeds = ids.map((_, i) => options.seeds?.[start + i] ?? (options.seed ?? 0) + start + i);
        const batch = await this.native.generateBatch(ids, seeds, this.#decoding(options), abort);
        for (const { ids, finishReason } of batch) {
          const text = this.tokenizer.decode(ids, { skipSpecialTokens: true });
          answers.push({ text, ids, finishReason: finishReason as FinishReason });
        }
      }
    } catch (error) {
      throw signal?.aborted ? aborted(signal.reason) : fromNative(error);
    } finally {
      signal?.removeEventListener("abort", stopWork);
    }
    return answers;
  }

  /** Log-probability of each token after the first, in nats: `[length − 1]`. */
  async score(ids: Uint32Array | readonly number[]): Promise<Float32Array> {
    try {
      return await this.native.score(ids instanceof Uint32Array ? ids : Uint32Array.from(ids));
    } catch (error) {
      throw fromNative(error);
    }
  }

  /** The logits after each token, row by row: `[length × vocabulary]`. Large; for inspection. */
  async logits(ids: Uint32Array | readonly number[]): Promise<Float32Array> {
    try {
      return await this.native.logits(ids instanceof Uint32Array ? ids : Uint32Array.from(ids));
    } catch (error) {
      throw fromNative(error);
    }
  }

  /** Writes a folder that transformers, and {@link Mistral.fromPretrained}, load. */
  async save(folder: string, options: SaveOptions = {}): Promise<void> {
    const { dtype = "float32", maxShardBytes = 5_000_000_000 } = options;
    await this.#saveWithTokenizer(folder, () => this.native.save(folder, dtype, maxShardBytes));
  }

  async #saveWithTokenizer(folder: string, save: () => Promise<unknown>): Promise<void> {
    const files = { "tokenizer.json": this.tokenizer.toJson(), "tokenizer_config.json": this.tokenizer.configJson() };
    const hidden = (name: string) => join(folder, `.${name}.${process.pid}.tmp`);
    try {
      await mkdir(folder, { recursive: true });
      // Written under hidden names before the tensors, renamed after them: a full disk leaves no part of a model.
      for (const [name, text] of Object.entries(files)) await writeFile(hidden(name), text, { flush: true });
      await save();
      for (const name of Object.keys(files)) await rename(hidden(name), join(folder, name));
    } catch (error) {
      await Promise.all(Object.keys(files).map((name) => rm(hidden(name), { force: true }).catch(() => {})));
      throw fromNative(error, { file: folder });
    }
  }

  #decoding(options: GenerateOptions) {
    return {
      maxTokens: options.maxTokens ?? 256,
      temperature: options.temperature ?? 0,
      topK: options.topK ?? 0,
      topP: options.topP ?? 1,
      minP: options.minP ?? 0,
      repetitionPenalty: options.repetitionPenalty ?? 1,
      seed: options.seed ?? 0,
      stopTokenIds: this.stopTokenIds,
    };
  }
}

/** NF4 with double quantisation under the names of transformers' `BitsAndBytesConfig`. */
const quantizationConfig = {
  quant_method: "bitsandbytes",
  load_in_4bit: true,
  load_in_8bit: false,
  bnb_4bit_quant_type: "nf4",
  bnb_4bit_use_double_quant: true,
  bnb_4bit_quant_storage: "uint8",
  bnb_4bit_compute_dtype: "float32",
} as const;

function storageOf({ dtype = "float32", quantization }: LoadOptions): string {
  const wrong = (field: string, value: unknown, remedy: string) =>
    new ModelError("ZA_MODEL_INVALID", `${field} ${JSON.stringify(value)} is not one of its values`, {
      place: { field },
      remedy,
    });
  if (dtype !== "float32" && dtype !== "bfloat16") throw wrong("dtype", dtype, 'Take "float32" or "bfloat16".');
  if (quantization === undefined) return dtype;
  if (quantization !== "nf4") throw wrong("quantization", quantization, 'Take "nf4", or leave it out.');
  return quantization;
}
