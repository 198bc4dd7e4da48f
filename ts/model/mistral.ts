import { existsSync } from "node:fs";
import { mkdir, rename, rm, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import type { NativeGenerated, NativeModel, NativeSession } from "../../bindings/node/index";
import type { Message } from "../data";
import { argumentError } from "../data/messages";
import { fromNative, ModelError, throwIfAborted } from "../errors";
import { modelPath } from "../hub/model-files";
import { isRepositoryId } from "../hub/repository";
import { type ChosenDevice, chooseDevice } from "../native/devices";
import { native } from "../native/load";
import { type LoraOptions, loraSettings } from "../train/config";
import { abortable } from "./abortable";
import { CallersFunction } from "./callers-function";
import { checkBatch, checkGenerateOptions, checkScoreOptions, promptIds, seedOf, stopsOf } from "./generate-options";
import { decodingOf, type Generated, type GenerateOptions, generatedOf, type ScoredChat, streamed } from "./generation";
import { type GgufExport, type GgufOptions, modelName } from "./gguf-export";
import { refuseInTraining } from "./in-training";
import {
  type BatchOptions,
  isConversation,
  type LanguageModel,
  type ModelConfig,
  type Prompt,
  type ScoreOptions,
  scoredChat,
  type WeightStorage,
} from "./language-model";
import { checkLoading, type LoadOptions, storageOf } from "./loading";
import { type EncodeOptions, folderTokenizer, Tokenizer } from "./tokenizer";

export type { AnswerLogprob, FinishReason, Generated, GenerateOptions, ScoredChat, TokenLogprob } from "./generation";
export type { GgufExport, GgufOptions, GgufType } from "./gguf-export";
export type { LanguageModel, ModelConfig, Prompt, ScoreOptions } from "./language-model";
export type { LoadOptions } from "./loading";

/** Handles whose weights were given back. Models under several templates share one. */
const disposed = new WeakSet<NativeModel>();

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
export class Mistral implements LanguageModel {
  readonly #handle: NativeModel;
  readonly tokenizer: Tokenizer;
  /** Path it was loaded from, or what it was made of. */
  readonly source: string;
  /** Parameters that training has changed no more: see {@link Mistral.frozenCopy}. */
  readonly frozen: boolean;

  /**
   * Where it generates, scores and is trained; for the CPU with what kept it from a card, if it was left to choose. On a card
   * it is copied at the first use, and stays until it is given back, or something is trained or evaluated there.
   */
  readonly device: ChosenDevice;

  /** @internal Use {@link Mistral.fromPretrained}. */
  constructor(handle: NativeModel, tokenizer: Tokenizer, source: string, device: ChosenDevice, frozen = false) {
    this.#handle = handle;
    this.tokenizer = tokenizer;
    this.source = source;
    this.device = device;
    this.frozen = frozen;
  }

  /** @internal @throws ModelError `ZA_MODEL_DISPOSED` */
  get native(): NativeModel {
    if (!disposed.has(this.#handle)) return this.#handle;
    throw new ModelError("ZA_MODEL_DISPOSED", `the model of ${this.source} was given back by dispose()`, {
      remedy: "Load it again, or dispose() of it later.",
    });
  }

  /**
   * Gives the memory of the weights back now, instead of when the garbage collector finds them. What shares them (a
   * snapshot, a model under an adapter, a running call) keeps them; any other use of this model, under
   * whatever template, is an error.
   *
   * @throws ModelError `ZA_MODEL_IN_TRAINING`
   */
  dispose(): void {
    refuseInTraining(this.#handle, this.source, "given back");
    disposed.add(this.#handle);
    this.#handle.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /**
   * Loads a folder in Hugging Face's layout (config.json, safetensors, tokenizer.json) or a GGUF file (dequantised, unless
   * `quantization` keeps it as it is). A folder of a LoRA adapter is loaded together with the base that its configuration
   * names. What is neither may be the id of a model at the Hub (`org/name` or `hf:org/name`; `hf:org/name:Q4_K_M` is its GGUF
   * file of that quantisation), whose files are downloaded into the Hub's cache.
   *
   * @throws ModelError, TokenizerError, TemplateError that name file, field or tensor; HubError.
   */
  static async fromPretrained(source: string, options: LoadOptions = {}): Promise<Mistral> {
    checkLoading(source, options);
    try {
      const addon = native();
      // Before anything is fetched or read.
      const device = await chooseDevice(options.device);
      const path = await modelPath(source, options);
      const adapter = addon.NativeModel.adapterBase(path);
      if (adapter) return await Mistral.#ofAdapter(path, adapter.base, options);
      if (options.adapter !== undefined) {
        const { adapter: folder, ...rest } = options;
        return await (await Mistral.fromPretrained(source, rest)).withAdapter(folder);
      }
      const handle = await addon.NativeModel.load(path, storageOf(path, options));
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
        remedy:
          "Load its base model and give this folder as the adapter over it: Mistral.fromPretrained(base, { adapter }).",
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

  /** How the weights are kept: "float32", or frozen as "bfloat16", "nf4", or as in their GGUF file. */
  get storage(): WeightStorage {
    return this.native.storage as WeightStorage;
  }

  /** Bytes of the weights in memory. */
  get weightBytes(): number {
    return this.native.weightBytes;
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

  /** @internal The card's number; undefined on the CPU. */
  get card(): number | undefined {
    return this.device.kind === "cuda" ? this.device.index : undefined;
  }

  /** @internal The same weights, not copied, to be used elsewhere. */
  on(device: ChosenDevice): Mistral {
    return new Mistral(this.native, this.tokenizer, this.source, device, this.frozen);
  }

  /** Answers a conversation, or continues plain text (a string) or tokens. What `onToken` throws ends it, and is thrown. */
  async generate(prompt: Prompt, options: GenerateOptions = {}): Promise<Generated> {
    checkGenerateOptions(options);
    const ids = promptIds(this.tokenizer, prompt, options);
    const { signal, onToken, stop } = options;
    const caller = new CallersFunction(onToken);
    const answering = abortable(caller.signalWith(signal), async (abort) => {
      const { tokenizer, card } = this;
      const decoding = decodingOf(options, this.stopTokenIds);
      const texts = stopsOf(stop);
      const answer = await this.native.generate(tokenizer.native, ids, decoding, texts, abort, caller.call, card);
      const { promptMs = 0, answerMs = 0 } = answer;
      const timing = { promptTokens: ids.length, promptMs, answerMs };
      return { ...generatedOf(answer, answer.text, tokenizer, options), timing };
    });
    return caller.during(answering);
  }

  /** The answer as a stream of text pieces. Leaving the loop stops the generation. */
  stream(prompt: Prompt, options: GenerateOptions = {}): AsyncGenerator<string, void> {
    return streamed((options) => this.generate(prompt, options), options);
  }

  /**
   * Answers or continues many prompts at once: the weights are read once a step for all of them.
   * Sequence `i` is sampled with `seed + i`, or with `seeds[i]`.
   */
  async generateBatch(prompts: readonly Prompt[], options: BatchOptions = {}): Promise<Generated[]> {
    return this.#answers(prompts, options, (...asked) => this.native.generateBatch(...asked, this.card));
  }

  /** @internal The same with what a session on this model has trained so far, where it trains. */
  async generateBatchIn(
    session: NativeSession,
    prompts: readonly Prompt[],
    options: BatchOptions,
  ): Promise<Generated[]> {
    return this.#answers(prompts, options, (...asked) => session.generateBatch(...asked));
  }

  async #answers(
    prompts: readonly Prompt[],
    options: BatchOptions,
    ask: (...asked: Parameters<NativeSession["generateBatch"]>) => Promise<NativeGenerated[]>,
  ): Promise<Generated[]> {
    checkBatch(prompts, options);
    const { signal, batchSize: size = 256 } = options;
    const decoding = decodingOf(options, this.stopTokenIds);
    return abortable(signal, async (abort) => {
      const answers: Generated[] = [];
      for (let start = 0; start < prompts.length; start += size) {
        throwIfAborted(signal);
        const ids = prompts.slice(start, start + size).map((prompt) => promptIds(this.tokenizer, prompt, options));
        const seeds = ids.map((_, i) => seedOf(options.seeds?.[start + i] ?? (options.seed ?? 0) + start + i));
        for (const answer of await ask(ids, seeds, decoding, abort)) {
          const text = this.tokenizer.decode(answer.ids, { skipSpecialTokens: true });
          answers.push(generatedOf(answer, text, this.tokenizer, options));
        }
      }
      return answers;
    });
  }

  /** Log-probability of each token of a conversation, and which of them are the assistant's. */
  score(messages: readonly Message[], options?: EncodeOptions & ScoreOptions): Promise<ScoredChat>;
  /** Log-probability of each token after the first, in nats: `[length − 1]`. */
  score(ids: Uint32Array | readonly number[], options?: ScoreOptions): Promise<Float32Array>;
  async score(
    input: readonly Message[] | Uint32Array | readonly number[],
    options: EncodeOptions & ScoreOptions = {},
  ): Promise<ScoredChat | Float32Array> {
    checkScoreOptions(options);
    const { signal, exact = true } = options;
    return abortable(signal, async (abort) => {
      const score = (ids: Uint32Array) => this.native.score(ids, exact, abort, this.card);
      if (!isConversation(input)) return await score(Uint32Array.from(input));
      const chat = this.tokenizer.encodeChat(input, options);
      return scoredChat(chat, await score(chat.ids));
    });
  }

  /** The logits after each token, row by row: `[length × vocabulary]`. Large; for inspection. */
  async logits(ids: Uint32Array | readonly number[], options: ScoreOptions = {}): Promise<Float32Array> {
    checkScoreOptions(options);
    const { signal, exact = true } = options;
    return abortable(signal, (abort) => this.native.logits(Uint32Array.from(ids), exact, abort, this.card));
  }

  /** Writes a folder that transformers, and {@link Mistral.fromPretrained}, load. */
  async save(folder: string, options: SaveOptions = {}): Promise<void> {
    if (typeof folder !== "string") throw argumentError("folder", "a path", folder, "Give the folder to write into.");
    const { dtype = "float32", maxShardBytes = 5_000_000_000 } = options;
    await this.#saveWithTokenizer(folder, () => this.native.save(folder, dtype, maxShardBytes));
  }

  /**
   * Writes one GGUF file, with tokenizer and chat template, that llama.cpp and {@link Mistral.fromPretrained} load. The same
   * model gives the same bytes; the file has its name when it is whole.
   *
   * @throws TokenizerError `ZA_TOKENIZER_EXPORT` for a tokenizer that llama.cpp does not have; ModelError
   * `ZA_MODEL_INVALID` for a model with an adapter (merge() first), `ZA_MODEL_UNSUPPORTED` for a value that the type cannot
   * hold; IoError.
   */
  async exportGguf(
    file: string,
    { type = "F16", name = modelName(this.source) }: GgufOptions = {},
  ): Promise<GgufExport> {
    try {
      const { bytes, types, notes } = await this.native.exportGguf(file, type, name, this.tokenizer.native);
      return { file, bytes, type, tensors: Object.fromEntries(types.map((one) => [one.name, one.tensors])), notes };
    } catch (error) {
      throw fromNative(error, { file });
    }
  }

  async #saveWithTokenizer(folder: string, save: () => Promise<unknown>): Promise<void> {
    const files = {
      "tokenizer.json": this.tokenizer.toJson(),
      "tokenizer_config.json": this.tokenizer.configJson(),
      // Readers of this file take it before the template in tokenizer_config.json, which is for older ones.
      "chat_template.jinja": this.tokenizer.chatTemplate,
    };
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
