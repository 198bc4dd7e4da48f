import { version } from "../../package.json";
import type { Message } from "../data/messages";
import { messagesJson, wholeText } from "../model/given-text";
import type { TextTokenizer } from "../model/language-model";
import type { EncodedChat, EncodeOptions, TokenizerFiles } from "../model/tokenizer";
import type { WasmSource } from "./runtime";
import { type Thread, thisThread } from "./thread";
import type { TokenizerFacts } from "./work";

/** A tokenizer with its chat template: that of a model, which is where the model is, or one of its own. */
export class Tokenizer implements TextTokenizer {
  readonly vocabularySize: number;
  readonly eosTokenId: number | undefined;
  readonly bosTokenId: number | undefined;
  readonly chatTemplate: string;
  readonly #thread: Thread;

  /** @internal Use {@link Tokenizer.fromFiles} or `Mistral.fromPretrained`. */
  constructor(thread: Thread, facts: TokenizerFacts) {
    this.#thread = thread;
    this.vocabularySize = facts.vocabularySize;
    this.eosTokenId = facts.eosTokenId;
    this.bosTokenId = facts.bosTokenId;
    this.chatTemplate = facts.chatTemplate;
  }

  /** Reads tokenizer files, in this thread; throws a `TokenizerError` or `TemplateError` that names the place. */
  static async fromFiles(files: TokenizerFiles, options: { wasm?: WasmSource } = {}): Promise<Tokenizer> {
    const thread = thisThread();
    return new Tokenizer(thread, await thread.call("loadTokenizer", [{ files, version, ...options }]));
  }

  async encode(
    text: string,
    options: { addSpecialTokens?: boolean; specials?: "text" | "parse" } = {},
  ): Promise<Uint32Array> {
    return this.#thread.call("encode", [
      wholeText(text, "text"),
      options.addSpecialTokens ?? false,
      options.specials === "parse",
    ]);
  }

  decode(ids: Uint32Array | readonly number[], options: { skipSpecialTokens?: boolean } = {}): Promise<string> {
    return this.#thread.call("decode", [Uint32Array.from(ids), options.skipSpecialTokens ?? false]);
  }

  /** The text that the template makes of a conversation. */
  async render(messages: readonly Message[], options: { addGenerationPrompt?: boolean } = {}): Promise<string> {
    return this.#thread.call("render", [messagesJson(messages), options.addGenerationPrompt ?? false]);
  }

  /** The ids of a conversation, ready for the assistant to answer. */
  async encodePrompt(messages: readonly Message[], options: EncodeOptions = {}): Promise<Uint32Array> {
    return this.#thread.call("encodePrompt", [messagesJson(messages), options.specialsInContent === "parse"]);
  }

  /** A conversation with its mask: assistant contents and their end tokens are supervised, nothing else. */
  async encodeChat(messages: readonly Message[], options: EncodeOptions = {}): Promise<EncodedChat> {
    const [parse, wholeTurn] = [options.specialsInContent === "parse", options.answerEnd === "turn"];
    return this.#thread.call("encodeChat", [messagesJson(messages), parse, wholeTurn]);
  }
}
