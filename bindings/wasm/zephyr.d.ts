/* tslint:disable */
/* eslint-disable */

/**
 * A conversation as tokens, with the mask of supervised ones.
 */
export class WasmEncoded {
    private constructor();
    free(): void;
    [Symbol.dispose](): void;
    get ids(): Uint32Array;
    set ids(value: Uint32Array | number[]);
    /**
     * Index of the message whose content the token belongs to; −1: the template's.
     */
    get owners(): Int32Array;
    /**
     * Index of the message whose content the token belongs to; −1: the template's.
     */
    set owners(value: Int32Array | number[]);
    straddling: number;
    /**
     * 1 where the token is learned.
     */
    get supervised(): Uint8Array;
    /**
     * 1 where the token is learned.
     */
    set supervised(value: Uint8Array | number[]);
}

/**
 * A generated answer.
 */
export class WasmGenerated {
    private constructor();
    free(): void;
    [Symbol.dispose](): void;
    /**
     * `stop`, `length` or `aborted`.
     */
    finishReason: string;
    get ids(): Uint32Array;
    set ids(value: Uint32Array | number[]);
    /**
     * Log-probability of each id.
     */
    get logps(): Float32Array;
    /**
     * Log-probability of each id.
     */
    set logps(value: Float32Array | number[]);
    text: string;
    /**
     * The most probable ids at each place, and theirs: `[ids, topLogprobs]`.
     */
    get topIds(): Uint32Array;
    /**
     * The most probable ids at each place, and theirs: `[ids, topLogprobs]`.
     */
    set topIds(value: Uint32Array | number[]);
    get topLogps(): Float32Array;
    set topLogps(value: Float32Array | number[]);
}

/**
 * A generation in work. Dropping it is the end of it.
 */
export class WasmGeneration {
    private constructor();
    free(): void;
    [Symbol.dispose](): void;
    /**
     * The answers, in the order of the prompts; `on_text` gets what was held back of their ends.
     */
    finish(on_text: Function): WasmGenerated[];
    /**
     * One step: 128 tokens of the prompts, or one token of every answer. `on_text` gets an answer's number and a finished
     * piece of its text. Gives whether there is more to do.
     */
    step(on_text: Function): boolean;
    /**
     * Tokens chosen so far, of all answers.
     */
    readonly tokens: number;
}

/**
 * A model that arrives.
 */
export class WasmLoader {
    private constructor();
    free(): void;
    [Symbol.dispose](): void;
    /**
     * The next file, with its length in bytes.
     */
    begin(name: string, bytes: number): void;
    /**
     * The model, when all is there.
     */
    finish(): WasmModel;
    /**
     * A GGUF file. `form`: how its weights are kept; with `keep` they stay as they are where that can be.
     */
    static ofGguf(form: string, keep: boolean): WasmLoader;
    /**
     * The safetensors of a folder in Hugging Face's layout, after the texts of config.json, generation_config.json and
     * model.safetensors.index.json. With an index its shards come under their names.
     */
    static ofSafetensors(config: string, generation: string | null | undefined, index: string | null | undefined, form: string): WasmLoader;
    /**
     * The next bytes of the file. Give large ones in parts: they are copied.
     */
    push(bytes: Uint8Array): void;
    /**
     * The shards that the index names.
     */
    shards(): string[];
    /**
     * The tokenizer of a GGUF file, once, as soon as its header is there: before the weights, which then use the memory
     * that making it took.
     */
    tokenizer(template?: string | null): WasmTokenizer | undefined;
}

/**
 * A decoder's weights and configuration.
 */
export class WasmModel {
    private constructor();
    free(): void;
    [Symbol.dispose](): void;
    /**
     * config.json as transformers reads it.
     */
    configJson(): string;
    /**
     * Begins to continue several prompts together (ids one behind the other, `lengths` of each); sequence `i` is sampled with
     * `seeds[i]`, not with the options'. `decoding` are options as JSON, `stop` texts that end an answer.
     */
    generate(tokenizer: WasmTokenizer, prompts: Uint32Array | number[], lengths: Uint32Array | number[], seeds: Float64Array | number[], decoding: string, stop: string[]): WasmGeneration;
    /**
     * Begins to compute the logits after each id, `[ids, vocabulary]`, row by row; `exact` as of [`Self::score`].
     */
    logits(ids: Uint32Array | number[], exact: boolean): WasmScoring;
    /**
     * Begins to compute the log-probability of each id after the first; `exact`: nothing is rounded for speed.
     */
    score(ids: Uint32Array | number[], exact: boolean): WasmScoring;
    readonly eosTokenIds: Uint32Array;
    readonly parameters: number;
    /**
     * How the weights are kept: float32, or frozen as bfloat16, nf4 or gguf.
     */
    readonly storage: string;
    /**
     * Tensors of the files that this architecture does not use.
     */
    readonly unusedTensors: string[];
    /**
     * Bytes of the weights in memory.
     */
    readonly weightBytes: number;
}

/**
 * Log-probabilities, or logits, in work. Dropping it is the end of it.
 */
export class WasmScoring {
    private constructor();
    free(): void;
    [Symbol.dispose](): void;
    /**
     * What was asked for, when no step is left.
     */
    finish(): Float32Array;
    /**
     * One step: 128 tokens. Gives whether there is more to do.
     */
    step(): boolean;
}

/**
 * A tokenizer with its chat template.
 */
export class WasmTokenizer {
    private constructor();
    free(): void;
    [Symbol.dispose](): void;
    decode(ids: Uint32Array | number[], skip_special: boolean): string;
    /**
     * A conversation with its mask.
     */
    encodeChat(conversation: string, parse_specials: boolean, whole_turn: boolean): WasmEncoded;
    /**
     * A conversation that the assistant is to answer.
     */
    encodePrompt(conversation: string, parse_specials: boolean): Uint32Array;
    encode(text: string, add_special: boolean, parse_specials: boolean): Uint32Array;
    /**
     * From the bytes of tokenizer.json and, if there is one, tokenizer_config.json. `template`: Jinja source, `"zephyr"`,
     * or left out for the tokenizer's own (Zephyr's when it has none).
     */
    static fromJson(json: Uint8Array | number[], config?: string | null, template?: string | null): WasmTokenizer;
    /**
     * The rendering of a conversation (JSON list of messages).
     */
    render(conversation: string, add_generation_prompt: boolean): string;
    readonly bosTokenId: number | undefined;
    readonly chatTemplate: string;
    readonly eosTokenId: number | undefined;
    readonly vocabularySize: number;
}

/**
 * Bytes that the instance has taken from the system: the peak of its use.
 */
export function memoryBytes(): number;

export function start(): void;

/**
 * The package's version, which must be that of the TypeScript around it.
 */
export function wasmVersion(): string;

export type InitInput = RequestInfo | URL | Response | BufferSource | WebAssembly.Module;

export interface InitOutput {
    readonly memory: WebAssembly.Memory;
    readonly __wbg_get_wasmencoded_ids: (a: number) => [number, number];
    readonly __wbg_get_wasmencoded_owners: (a: number) => [number, number];
    readonly __wbg_get_wasmencoded_straddling: (a: number) => number;
    readonly __wbg_get_wasmencoded_supervised: (a: number) => [number, number];
    readonly __wbg_get_wasmgenerated_finishReason: (a: number) => [number, number];
    readonly __wbg_get_wasmgenerated_ids: (a: number) => [number, number];
    readonly __wbg_get_wasmgenerated_logps: (a: number) => [number, number];
    readonly __wbg_get_wasmgenerated_text: (a: number) => [number, number];
    readonly __wbg_get_wasmgenerated_topIds: (a: number) => [number, number];
    readonly __wbg_get_wasmgenerated_topLogps: (a: number) => [number, number];
    readonly __wbg_set_wasmencoded_ids: (a: number, b: number, c: number) => void;
    readonly __wbg_set_wasmencoded_owners: (a: number, b: number, c: number) => void;
    readonly __wbg_set_wasmencoded_straddling: (a: number, b: number) => void;
    readonly __wbg_set_wasmencoded_supervised: (a: number, b: number, c: number) => void;
    readonly __wbg_set_wasmgenerated_finishReason: (a: number, b: number, c: number) => void;
    readonly __wbg_set_wasmgenerated_ids: (a: number, b: number, c: number) => void;
    readonly __wbg_set_wasmgenerated_logps: (a: number, b: number, c: number) => void;
    readonly __wbg_set_wasmgenerated_text: (a: number, b: number, c: number) => void;
    readonly __wbg_set_wasmgenerated_topIds: (a: number, b: number, c: number) => void;
    readonly __wbg_set_wasmgenerated_topLogps: (a: number, b: number, c: number) => void;
    readonly __wbg_wasmencoded_free: (a: number, b: number) => void;
    readonly __wbg_wasmgenerated_free: (a: number, b: number) => void;
    readonly __wbg_wasmgeneration_free: (a: number, b: number) => void;
    readonly __wbg_wasmloader_free: (a: number, b: number) => void;
    readonly __wbg_wasmmodel_free: (a: number, b: number) => void;
    readonly __wbg_wasmscoring_free: (a: number, b: number) => void;
    readonly __wbg_wasmtokenizer_free: (a: number, b: number) => void;
    readonly memoryBytes: () => number;
    readonly start: () => void;
    readonly wasmVersion: () => [number, number];
    readonly wasmgeneration_finish: (a: number, b: any) => [number, number, number, number];
    readonly wasmgeneration_step: (a: number, b: any) => [number, number, number];
    readonly wasmgeneration_tokens: (a: number) => number;
    readonly wasmloader_begin: (a: number, b: number, c: number, d: number) => [number, number];
    readonly wasmloader_finish: (a: number) => [number, number, number];
    readonly wasmloader_ofGguf: (a: number, b: number, c: number) => [number, number, number];
    readonly wasmloader_ofSafetensors: (a: number, b: number, c: number, d: number, e: number, f: number, g: number, h: number) => [number, number, number];
    readonly wasmloader_push: (a: number, b: any) => [number, number];
    readonly wasmloader_shards: (a: number) => [number, number, number, number];
    readonly wasmloader_tokenizer: (a: number, b: number, c: number) => [number, number, number];
    readonly wasmmodel_configJson: (a: number) => [number, number];
    readonly wasmmodel_eosTokenIds: (a: number) => [number, number];
    readonly wasmmodel_generate: (a: number, b: number, c: number, d: number, e: number, f: number, g: number, h: number, i: number, j: number, k: number, l: number) => [number, number, number];
    readonly wasmmodel_logits: (a: number, b: number, c: number, d: number) => [number, number, number];
    readonly wasmmodel_parameters: (a: number) => number;
    readonly wasmmodel_score: (a: number, b: number, c: number, d: number) => [number, number, number];
    readonly wasmmodel_storage: (a: number) => [number, number];
    readonly wasmmodel_unusedTensors: (a: number) => [number, number];
    readonly wasmmodel_weightBytes: (a: number) => number;
    readonly wasmscoring_finish: (a: number) => [number, number, number, number];
    readonly wasmscoring_step: (a: number) => [number, number, number];
    readonly wasmtokenizer_bosTokenId: (a: number) => number;
    readonly wasmtokenizer_chatTemplate: (a: number) => [number, number];
    readonly wasmtokenizer_decode: (a: number, b: number, c: number, d: number) => [number, number, number, number];
    readonly wasmtokenizer_encode: (a: number, b: number, c: number, d: number, e: number) => [number, number, number, number];
    readonly wasmtokenizer_encodeChat: (a: number, b: number, c: number, d: number, e: number) => [number, number, number];
    readonly wasmtokenizer_encodePrompt: (a: number, b: number, c: number, d: number) => [number, number, number, number];
    readonly wasmtokenizer_eosTokenId: (a: number) => number;
    readonly wasmtokenizer_fromJson: (a: number, b: number, c: number, d: number, e: number, f: number) => [number, number, number];
    readonly wasmtokenizer_render: (a: number, b: number, c: number, d: number) => [number, number, number, number];
    readonly wasmtokenizer_vocabularySize: (a: number) => number;
    readonly __wbindgen_malloc: (a: number, b: number) => number;
    readonly __wbindgen_realloc: (a: number, b: number, c: number, d: number) => number;
    readonly __wbindgen_free: (a: number, b: number, c: number) => void;
    readonly __wbindgen_exn_store: (a: number) => void;
    readonly __externref_table_alloc: () => number;
    readonly __wbindgen_externrefs: WebAssembly.Table;
    readonly __externref_table_dealloc: (a: number) => void;
    readonly __externref_drop_slice: (a: number, b: number) => void;
    readonly __wbindgen_start: () => void;
}

export type SyncInitInput = BufferSource | WebAssembly.Module;

/**
 * Instantiates the given `module`, which can either be bytes or
 * a precompiled `WebAssembly.Module`.
 *
 * @param {{ module: SyncInitInput }} module - Passing `SyncInitInput` directly is deprecated.
 *
 * @returns {InitOutput}
 */
export function initSync(module: { module: SyncInitInput } | SyncInitInput): InitOutput;

/**
 * If `module_or_path` is {RequestInfo} or {URL}, makes a request and
 * for everything else, calls `WebAssembly.instantiate` directly.
 *
 * @param {{ module_or_path: InitInput | Promise<InitInput> }} module_or_path - Passing `InitInput` directly is deprecated.
 *
 * @returns {Promise<InitOutput>}
 */
export default function __wbg_init (module_or_path?: { module_or_path: InitInput | Promise<InitInput> } | InitInput | Promise<InitInput>): Promise<InitOutput>;
