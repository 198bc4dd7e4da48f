/**
 * A model in this thread's WebAssembly memory, and what is asked of it. Long work is done in pieces, between which this
 * thread's messages come in: that is how a worker hears that it shall stop.
 */

import type { NativeDecoding } from "../../bindings/node/index";
import type { WasmEncoded, WasmLoader, WasmModel, WasmScoring, WasmTokenizer } from "../../bindings/wasm/zephyr";
import { aborted, ModelError, throwIfAborted } from "../errors";
import { type Generated, generatedOf } from "../model/generation";
import type { ModelConfig, WeightStorage } from "../model/language-model";
import type { EncodedChat, TokenizerFiles } from "../model/tokenizer";
import {
  absolute,
  type FolderFiles,
  filesOfFolder,
  isGguf,
  type LoadProgress,
  type ModelFiles,
  type ModelSource,
  type Opening,
  openFile,
  wholeFile,
} from "./model-source";
import { turn } from "./platform";
import {
  guarded,
  isStopped,
  loadShared,
  memoryBytes,
  type Runtime,
  runtime,
  type Shared,
  startThreads,
  type WasmSource,
} from "./runtime";

/** What is loaded, and how. */
export interface LoadRequest {
  source: ModelSource;
  /** The package's version. */
  version: string;
  wasm?: WasmSource;
  /** How many compute; the others of them join after {@link Work.loadShared}. */
  threads: number;
  template?: string;
  storage: WeightStorage;
  /** Whether a quantised GGUF file stays as it is where all its types can be kept. */
  keep: boolean;
  cache: boolean;
}

/** What is known of a tokenizer without asking again. */
export interface TokenizerFacts {
  vocabularySize: number;
  bosTokenId: number | undefined;
  eosTokenId: number | undefined;
  chatTemplate: string;
}

/** What is known of a loaded model without asking again. */
export interface ModelFacts extends TokenizerFacts {
  config: ModelConfig;
  parameters: number;
  storage: WeightStorage;
  weightBytes: number;
  stopTokenIds: number[];
}

/** Prompts that are continued together. */
export interface GenerateRequest {
  prompts: readonly Uint32Array[];
  seeds: readonly number[];
  decoding: NativeDecoding;
  stop: readonly string[];
  logprobs?: boolean | number;
}

/** What is scored. */
export interface GivenText {
  ids: Uint32Array;
  /** Nothing is rounded for speed. */
  exact: boolean;
}

/** What a call may report while it runs, and how it is stopped. */
export interface Hooks<Event> {
  signal?: AbortSignal;
  onEvent?: (event: Event) => void;
}

/** Milliseconds of work after which messages come in. */
const patience = 12;

/** Runs pieces of work, and lets messages in between. */
class Pace {
  #last = performance.now();

  async breathe(signal: AbortSignal | undefined): Promise<void> {
    if (performance.now() - this.#last >= patience) {
      await turn();
      this.#last = performance.now();
    }
    if (signal?.aborted) throw aborted(signal.reason);
  }
}

/** The calls; arguments and results can be sent between threads. */
export class Work {
  #runtime: Runtime | undefined;
  #model: WasmModel | undefined;
  #tokenizer: WasmTokenizer | undefined;

  /** Loads the module with threads; what the others need to join. */
  loadShared({ wasm, version }: Pick<LoadRequest, "version" | "wasm">): Promise<Shared> {
    return loadShared(wasm, version);
  }

  /** Loads the model, once. */
  async load(request: LoadRequest, hooks: Hooks<LoadProgress> = {}): Promise<ModelFacts> {
    throwIfAborted(hooks.signal);
    this.#runtime = await runtime(request.wasm, request.version);
    if (request.threads > 1) startThreads(request.threads);
    const opening: Opening = { cache: request.cache, signal: hooks.signal };
    const source = isFiles(request.source) ? request.source : absolute(request.source);
    if (isGguf(source)) await this.#loadGguf(source as string, request, opening, hooks);
    else {
      const files = isFiles(source) ? source : await filesOfFolder(source as string, opening);
      await this.#loadFolder(files, request, opening, hooks);
    }
    const facts = this.#facts();
    const rows = facts.config.vocab_size;
    if (facts.vocabularySize <= rows) return facts;
    const problem = `the tokenizer has ${facts.vocabularySize} entries, but the model's vocabulary is ${rows}`;
    throw new ModelError("ZA_MODEL_INVALID", problem, { remedy: "Take the tokenizer that belongs to this model." });
  }

  /** Loads a tokenizer without a model. */
  async loadTokenizer(
    request: Pick<LoadRequest, "version" | "wasm"> & { files: TokenizerFiles },
  ): Promise<TokenizerFacts> {
    const { files, version, wasm } = request;
    const { tokenizer, config, template } = files;
    this.#runtime = await runtime(wasm, version);
    const { WasmTokenizer } = this.#runtime;
    this.#tokenizer = guarded(() => WasmTokenizer.fromJson(tokenizer, config, template));
    return tokenizerFacts(this.#tokenizer);
  }

  async #loadGguf(
    source: string,
    { storage, keep, template }: LoadRequest,
    opening: Opening,
    hooks: Hooks<LoadProgress>,
  ): Promise<void> {
    const { WasmLoader } = this.#runtime!;
    const loader = guarded(() => WasmLoader.ofGguf(storage, keep));
    const onPiece = () => {
      this.#tokenizer ??= guarded(() => loader.tokenizer(template));
    };
    await this.#take(loader, [source], opening, hooks, { onPiece });
  }

  async #loadFolder(
    files: ModelFiles | FolderFiles,
    { storage, template }: LoadRequest,
    opening: Opening,
    hooks: Hooks<LoadProgress>,
  ): Promise<void> {
    const { WasmLoader, WasmTokenizer } = this.#runtime!;
    const bytes = async (name: keyof ModelFiles) => {
      const source = files[name] as ModelFiles["config"] | undefined;
      return source === undefined ? undefined : await wholeFile(source, opening);
    };
    const text = async (name: keyof ModelFiles) => {
      const found = await bytes(name);
      return found && new TextDecoder().decode(found);
    };
    const tokenizer = await bytes("tokenizer");
    const settings = await text("tokenizerConfig");
    const jinja = template ?? (await text("chatTemplate"));
    // Before the weights, which are large.
    this.#tokenizer = guarded(() => WasmTokenizer.fromJson(tokenizer!, settings, jinja));
    const [config, generation] = [await text("config"), await text("generationConfig")];
    const index = await text("index");
    const loader = guarded(() => WasmLoader.ofSafetensors(config!, generation, index, storage));
    const { weights } = files;
    const sharded = typeof weights === "function";
    const sources = sharded ? guarded(() => loader.shards()).map(weights) : [weights].flat();
    await this.#take(loader, sources, opening, hooks, { sharded });
  }

  /** Reads the files into the loader. */
  async #take(
    loader: WasmLoader,
    sources: readonly ModelFiles["config"][],
    opening: Opening,
    { signal, onEvent }: Hooks<LoadProgress>,
    { onPiece = () => {}, sharded = false } = {},
  ): Promise<void> {
    const pace = new Pace();
    try {
      for (const source of sources) {
        const file = await openFile(source, opening, sharded);
        // The loader knows what the index has in it.
        if (!file) break;
        const { name, bytes: total, cached } = file;
        guarded(() => loader.begin(name, total));
        let loaded = 0;
        for await (const piece of file.pieces()) {
          guarded(() => loader.push(piece));
          onPiece();
          loaded += piece.length;
          onEvent?.({ file: name, loaded, total, cached });
          await pace.breathe(signal);
        }
      }
      this.#model = guarded(() => loader.finish());
    } finally {
      release(loader);
    }
  }

  #facts(): ModelFacts {
    const [model, tokenizer] = [this.#heldModel(), tokenizerFacts(this.#heldTokenizer())];
    return guarded(() => {
      const stops = new Set(model.eosTokenIds);
      if (tokenizer.eosTokenId !== undefined) stops.add(tokenizer.eosTokenId);
      return {
        config: JSON.parse(model.configJson()) as ModelConfig,
        parameters: model.parameters,
        storage: model.storage as WeightStorage,
        weightBytes: model.weightBytes,
        stopTokenIds: [...stops],
        ...tokenizer,
      };
    });
  }

  #heldModel(): WasmModel {
    if (this.#model) return this.#model;
    throw disposed();
  }

  #heldTokenizer(): WasmTokenizer {
    if (this.#tokenizer) return this.#tokenizer;
    throw disposed();
  }

  encode(text: string, addSpecial: boolean, parseSpecials: boolean): Uint32Array {
    const tokenizer = this.#heldTokenizer();
    return guarded(() => tokenizer.encode(text, addSpecial, parseSpecials));
  }

  decode(ids: Uint32Array, skipSpecial: boolean): string {
    const tokenizer = this.#heldTokenizer();
    return guarded(() => tokenizer.decode(ids, skipSpecial));
  }

  render(messages: string, addGenerationPrompt: boolean): string {
    const tokenizer = this.#heldTokenizer();
    return guarded(() => tokenizer.render(messages, addGenerationPrompt));
  }

  encodePrompt(messages: string, parseSpecials: boolean): Uint32Array {
    const tokenizer = this.#heldTokenizer();
    return guarded(() => tokenizer.encodePrompt(messages, parseSpecials));
  }

  encodeChat(messages: string, parseSpecials: boolean, wholeTurn: boolean): EncodedChat {
    const tokenizer = this.#heldTokenizer();
    return guarded(() => {
      const encoded: WasmEncoded = tokenizer.encodeChat(messages, parseSpecials, wholeTurn);
      const { ids, supervised, owners, straddling } = encoded;
      encoded.free();
      return { ids, supervised, owners, straddling };
    });
  }

  /** Continues prompts together; an event is the number of a prompt and a piece of its answer. */
  async generate(
    { prompts, seeds, decoding, stop, logprobs }: GenerateRequest,
    { signal, onEvent }: Hooks<readonly [number, string]> = {},
  ): Promise<Generated[]> {
    const [model, tokenizer] = [this.#heldModel(), this.#heldTokenizer()];
    const lengths = Uint32Array.from(prompts, (prompt) => prompt.length);
    const ids = new Uint32Array(lengths.reduce((sum, length) => sum + length, 0));
    let at = 0;
    for (const prompt of prompts) {
      ids.set(prompt, at);
      at += prompt.length;
    }
    const started = performance.now();
    const generation = guarded(() =>
      model.generate(tokenizer, ids, lengths, Float64Array.from(seeds), JSON.stringify(decoding), [...stop]),
    );
    const onText = (place: number, piece: string) => onEvent?.([place, piece]);
    const pace = new Pace();
    let first: number | undefined;
    try {
      while (guarded(() => generation.step(onText))) {
        if (first === undefined && generation.tokens > 0) first = performance.now();
        await pace.breathe(signal);
      }
      const found = guarded(() => generation.finish(onText));
      const ended = performance.now();
      const answers = found.map((answer) => {
        const { text, ids, logps, topIds, topLogps, finishReason } = answer;
        answer.free();
        const spelling = {
          decode: (ids: Uint32Array | readonly number[]) => this.decode(Uint32Array.from(ids), false),
        };
        const asked = logprobs === undefined ? {} : { logprobs };
        return generatedOf({ ids, logps, topIds, topLogps, finishReason }, text, spelling, asked);
      });
      if (answers.length !== 1) return answers;
      const [promptMs, answerMs] = [(first ?? ended) - started, ended - (first ?? ended)];
      return [{ ...answers[0]!, timing: { promptTokens: ids.length, promptMs, answerMs } }];
    } finally {
      release(generation);
    }
  }

  score({ ids, exact }: GivenText, { signal }: Hooks<never> = {}): Promise<Float32Array> {
    const model = this.#heldModel();
    return scored(() => model.score(ids, exact), signal);
  }

  logits({ ids, exact }: GivenText, { signal }: Hooks<never> = {}): Promise<Float32Array> {
    const model = this.#heldModel();
    return scored(() => model.logits(ids, exact), signal);
  }

  /** Bytes that the module's memory has taken: the peak of all models of this thread. */
  memoryBytes(): number {
    return memoryBytes();
  }

  dispose(): void {
    for (const each of [this.#model, this.#tokenizer]) if (each) release(each);
    this.#model = undefined;
    this.#tokenizer = undefined;
  }
}

async function scored(begin: () => WasmScoring, signal: AbortSignal | undefined): Promise<Float32Array> {
  const scoring = guarded(begin);
  const pace = new Pace();
  try {
    while (guarded(() => scoring.step())) await pace.breathe(signal);
    return guarded(() => scoring.finish());
  } finally {
    release(scoring);
  }
}

function tokenizerFacts(tokenizer: WasmTokenizer): TokenizerFacts {
  return guarded(() => ({
    vocabularySize: tokenizer.vocabularySize,
    bosTokenId: tokenizer.bosTokenId,
    eosTokenId: tokenizer.eosTokenId,
    chatTemplate: tokenizer.chatTemplate,
  }));
}

function disposed(): ModelError {
  return new ModelError("ZA_MODEL_DISPOSED", "the model was given back by dispose()", {
    remedy: "Load it again, or dispose() of it later.",
  });
}

/** Frees an object of the module; in a stopped instance it is only forgotten. */
function release(held: { free(): void }): void {
  if (isStopped()) (held as unknown as { __destroy_into_raw(): void }).__destroy_into_raw();
  else guarded(() => held.free());
}

function isFiles(source: ModelSource): source is ModelFiles {
  return typeof source === "object" && "weights" in source;
}
