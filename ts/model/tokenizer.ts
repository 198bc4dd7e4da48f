import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import type { NativeTokenizer } from "../../bindings/node/index";
import type { Message } from "../data";
import { fromNative, ZephyrError } from "../errors";
import { native } from "../native/load";
import { messagesJson, wholeText } from "./given-text";
import { mostSmallBytes, tooLargeToBeSmall } from "./small-file";

/** Token ids with the mask of supervised tokens, of equal length. */
export interface EncodedRow {
  ids: Uint32Array;
  /** 1 where the token is learnt, else 0. */
  supervised: Uint8Array;
}

/** A conversation as tokens, each with its owner. */
export interface EncodedChat extends EncodedRow {
  /** Index of the message whose content the token belongs to, −1 for the template's own tokens. */
  owners: Int32Array;
  /** Tokens that hold the end of one owner's text and the start of the next. */
  straddling: number;
}

/** A preference pair as tokens: `chosen` and `rejected` are whole sequences, prompt included. */
export interface EncodedPair {
  promptLength: number;
  chosen: EncodedRow;
  rejected: EncodedRow;
}

/** How conversations become tokens. */
export interface EncodeOptions {
  /**
   * What a special token spelled in *content* becomes: `"text"` keeps it text, `"parse"` turns it into that token as
   * transformers does.
   * @default "text"
   */
  specialsInContent?: "text" | "parse";
  /**
   * Where an answer ends: `"eos"` at its end token, `"turn"` at all that the template writes for the turn (TRL: the
   * newline after `</s>` belongs to the answer).
   * @default "eos"
   */
  answerEnd?: "eos" | "turn";
}

/** The files that make a tokenizer. */
export interface TokenizerFiles {
  /** tokenizer.json */
  tokenizer: Uint8Array;
  /** tokenizer_config.json */
  config?: string;
  /** A chat template that replaces the tokenizer's own: Jinja source, or `"zephyr"` for the built-in one. */
  template?: string;
}

function guarded<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw fromNative(error);
  }
}

/** A tokenizer with its chat template. */
export class Tokenizer {
  /** @internal */
  readonly native: NativeTokenizer;
  /** What it was read from, to be saved beside a trained model. */
  readonly files: TokenizerFiles | undefined;

  /** @internal Use {@link Tokenizer.fromFiles} or `Mistral.fromPretrained`. */
  constructor(handle: NativeTokenizer, files?: TokenizerFiles) {
    this.native = handle;
    this.files = files;
  }

  /** Reads tokenizer files; throws a `TokenizerError` or `TemplateError` that names the place. */
  static fromFiles(files: TokenizerFiles): Tokenizer {
    const { tokenizer, config, template } = files;
    return guarded(() => new Tokenizer(native().NativeTokenizer.fromJson(tokenizer, config, template), files));
  }

  /** Trains a byte-level BPE tokenizer; the same texts give the same file. Returns tokenizer.json's text. */
  static train(texts: string[], vocabularySize: number, specialTokens: string[]): string {
    return guarded(() => native().trainTokenizer(texts, vocabularySize, specialTokens));
  }

  /**
   * The same tokenizer with another chat template: Jinja source, `"zephyr"` for the built-in one, `"model"` for the one
   * it has.
   */
  withTemplate(template: string): Tokenizer {
    if (template === "model") return this;
    return guarded(() => new Tokenizer(this.native.withChatTemplate(template), this.files));
  }

  /** Entries, added tokens included. */
  get vocabularySize(): number {
    return this.native.vocabularySize;
  }

  get eosTokenId(): number | undefined {
    return this.native.eosTokenId ?? undefined;
  }

  get bosTokenId(): number | undefined {
    return this.native.bosTokenId ?? undefined;
  }

  /** Jinja source of the chat template in use. */
  get chatTemplate(): string {
    return this.native.chatTemplate;
  }

  /** The tokenizer as tokenizer.json, also when it came out of a GGUF file. */
  toJson(): string {
    return guarded(() => this.native.toJson());
  }

  /** The special tokens and the template as tokenizer_config.json, as transformers reads it. */
  configJson(): string {
    return guarded(() => this.native.configJson());
  }

  encode(text: string, options: { addSpecialTokens?: boolean; specials?: "text" | "parse" } = {}): Uint32Array {
    return guarded(() =>
      this.native.encode(wholeText(text, "text"), options.addSpecialTokens ?? false, options.specials === "parse"),
    );
  }

  /** Encodes several texts at once, on all compute threads and beside the JavaScript of this process. */
  async encodeBatch(
    texts: readonly string[],
    options: { addSpecialTokens?: boolean; specials?: "text" | "parse" } = {},
  ): Promise<Uint32Array[]> {
    try {
      for (const [i, text] of texts.entries()) wholeText(text, `texts[${i}]`);
      return await this.native.encodeBatch([...texts], options.addSpecialTokens ?? false, options.specials === "parse");
    } catch (error) {
      throw fromNative(error);
    }
  }

  decode(ids: Uint32Array | readonly number[], options: { skipSpecialTokens?: boolean } = {}): string {
    const tokens = ids instanceof Uint32Array ? ids : Uint32Array.from(ids);
    return guarded(() => this.native.decode(tokens, options.skipSpecialTokens ?? false));
  }

  /** The text that the template makes of a conversation. */
  render(messages: readonly Message[], options: { addGenerationPrompt?: boolean } = {}): string {
    return guarded(() => this.native.render(messagesJson(messages), options.addGenerationPrompt ?? false));
  }

  /** The ids of a conversation, ready for the assistant to answer. */
  encodePrompt(messages: readonly Message[], options: EncodeOptions = {}): Uint32Array {
    return guarded(() => this.native.encodePrompt(messagesJson(messages), options.specialsInContent === "parse"));
  }

  /** A conversation with its mask: assistant contents and their end tokens are supervised, nothing else. */
  encodeChat(messages: readonly Message[], options: EncodeOptions = {}): EncodedChat {
    return guarded(() => this.native.encodeChat(messagesJson(messages), ...flags(options)));
  }

  /** A conversational preference pair. */
  encodePair(
    pair: { prompt: readonly Message[]; chosen: readonly Message[]; rejected: readonly Message[] },
    options: EncodeOptions = {},
  ): EncodedPair {
    const { prompt, chosen, rejected } = pair;
    return this.#pair(() =>
      this.native.encodePair(
        messagesJson(prompt, "prompt"),
        messagesJson(chosen, "chosen"),
        messagesJson(rejected, "rejected"),
        ...flags(options),
      ),
    );
  }

  /** A preference pair of plain strings; the end token is appended to both answers, as TRL does. */
  encodePairText(pair: { prompt: string; chosen: string; rejected: string }, options: EncodeOptions = {}): EncodedPair {
    const parse = options.specialsInContent === "parse";
    const [prompt, chosen, rejected] = (["prompt", "chosen", "rejected"] as const).map((field) =>
      wholeText(pair[field], field),
    ) as [string, string, string];
    return this.#pair(() => this.native.encodePairText(prompt, chosen, rejected, parse));
  }

  /** Plain text, every token of it supervised; the end token is appended. */
  encodeText(text: string, options: EncodeOptions = {}): EncodedRow {
    return guarded(() => this.native.encodeText(wholeText(text, "text"), options.specialsInContent === "parse"));
  }

  /** A plain prompt with its completion, of which only the completion is supervised. */
  encodePromptCompletion(prompt: string, completion: string, options: EncodeOptions = {}): EncodedRow {
    const parse = options.specialsInContent === "parse";
    return guarded(() =>
      this.native.encodePromptCompletion(wholeText(prompt, "prompt"), wholeText(completion, "completion"), parse),
    );
  }

  #pair(encode: () => { prompt: Uint32Array; chosen: Uint32Array; rejected: Uint32Array }): EncodedPair {
    const { prompt, chosen, rejected } = guarded(encode);
    const whole = (completion: Uint32Array): EncodedRow => {
      const ids = new Uint32Array(prompt.length + completion.length);
      ids.set(prompt);
      ids.set(completion, prompt.length);
      return { ids, supervised: new Uint8Array(ids.length).fill(1, prompt.length) };
    };
    return { promptLength: prompt.length, chosen: whole(chosen), rejected: whole(rejected) };
  }
}

function flags(options: EncodeOptions): [parseSpecials: boolean, wholeTurn: boolean] {
  return [options.specialsInContent === "parse", options.answerEnd === "turn"];
}

/** The tokenizer of a folder that holds tokenizer.json, and tokenizer_config.json or chat_template.jinja when it has them. */
export async function folderTokenizer(path: string, template?: string): Promise<Tokenizer> {
  const bytes = async (name: string): Promise<Buffer | undefined> => {
    const file = join(path, name);
    try {
      const { size } = await stat(file);
      if (size > mostSmallBytes) throw tooLargeToBeSmall("ZA_TOKENIZER_FILE", file, size);
      return await readFile(file);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
      throw error;
    }
  };
  const text = async (name: string) => (await bytes(name))?.toString("utf8");
  const tokenizer = await bytes("tokenizer.json");
  if (!tokenizer) {
    throw new ZephyrError("ZA_TOKENIZER_INVALID", "the model's folder has no tokenizer.json", {
      place: { file: join(path, "tokenizer.json") },
      remedy: "Put the tokenizer.json of the model into its folder.",
    });
  }
  const config = await text("tokenizer_config.json");
  const chosen = template ?? (await text("chat_template.jinja"));
  return Tokenizer.fromFiles({
    tokenizer,
    ...(config === undefined ? {} : { config }),
    ...(chosen === undefined ? {} : { template: chosen }),
  });
}
