import { createHash } from "node:crypto";
import { argumentError, type Message } from "../data/messages";
import { throwIfAborted } from "../errors";
import type { Generated, Mistral } from "../model/mistral";
import { canonicalJson } from "./canonical-json";
import type { ChatCapabilities, ChatModel, ChatRequest, ChatResponse } from "./chat-model";
import { ofAllCalls, unlessAborted } from "./wait";

/** How a loaded model answers. */
export interface MistralChatOptions {
  /** Name for people and files. @default where it was loaded from */
  name?: string;
  /**
   * Answers made together. What an answer says depends on its own request and seed; the others can move it by rounding
   * only. 1 makes it the same to the last bit, and slower. @default 32
   */
  batchSize?: number;
}

/** A question that waits for its turn. */
interface Waiting {
  request: ChatRequest;
  seed: number;
  resolve: (answer: Generated) => void;
  reject: (error: unknown) => void;
}

/**
 * A model in memory as a {@link ChatModel}. Calls that are made at the same time and sampled in the same way are answered
 * together. Each draw of a request has a seed of its own that follows from the request, so that a repeated run repeats it.
 */
export async function mistralChat(model: Mistral, options: MistralChatOptions = {}): Promise<ChatModel> {
  if (typeof model?.native?.fingerprint !== "function") {
    throw argumentError("model", "a model", model, "Give one that is loaded: await Mistral.fromPretrained(path).");
  }
  // The weights, not their path: another training may have written to the same place. The template is part of it too.
  const weights = await model.native.fingerprint();
  const template = createHash("sha256").update(model.tokenizer.chatTemplate).digest("hex");
  return new MistralChat(model, `weights ${weights} template ${template.slice(0, 16)}`, options);
}

class MistralChat implements ChatModel {
  readonly name: string;
  readonly endpoint: string;
  readonly facts;
  readonly capabilities: ChatCapabilities;
  readonly #model: Mistral;
  readonly #batchSize: number;
  #waiting: Waiting[] = [];
  #working = false;

  constructor(model: Mistral, endpoint: string, options: MistralChatOptions) {
    this.#model = model;
    this.name = options.name ?? model.source;
    this.endpoint = endpoint;
    this.facts = { input: 0, output: 0, context: model.config.max_position_embeddings };
    this.capabilities = { topLogprobs: 0, schema: false, system: rendersSystem(model) };
    this.#batchSize = options.batchSize ?? 32;
  }

  async complete(request: ChatRequest): Promise<ChatResponse> {
    throwIfAborted(request.signal);
    const answer = await unlessAborted(this.#queue(request), request.signal);
    const promptTokens = this.#model.tokenizer.encodePrompt(request.messages).length;
    return {
      text: answer.text,
      finishReason: answer.finishReason,
      model: this.name,
      usage: { promptTokens, completionTokens: answer.ids.length },
      cost: 0,
      journalled: false,
    };
  }

  #queue(request: ChatRequest): Promise<Generated> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ request, seed: seedOf(request), resolve, reject });
      // Those who ask in the same turn are answered together.
      if (!this.#working) setImmediate(() => void this.#work());
    });
  }

  async #work(): Promise<void> {
    if (this.#working) return;
    this.#working = true;
    while (this.#waiting.length > 0) {
      const group = this.#nextGroup();
      try {
        const answers = await this.#answer(group);
        for (const [index, { resolve }] of group.entries()) resolve(answers[index]!);
      } catch (error) {
        if (group.length === 1) group[0]!.reject(error);
        // One of them cannot be answered: each on its own, so that the others are.
        else
          for (const each of group) await this.#answer([each]).then(([answer]) => each.resolve(answer!), each.reject);
      }
    }
    this.#working = false;
  }

  /** The first that waits, and others that can be answered with it. Who has left is not answered. */
  #nextGroup(): Waiting[] {
    const here = this.#waiting.filter(({ request }) => !request.signal?.aborted);
    const first = here[0];
    if (!first) {
      this.#waiting = [];
      return [];
    }
    const alike = here.filter((each) => together(each.request, first.request)).slice(0, this.#batchSize);
    this.#waiting = here.filter((each) => !alike.includes(each));
    return alike;
  }

  async #answer(group: readonly Waiting[]): Promise<Generated[]> {
    const first = group[0];
    if (!first) return [];
    const { temperature = 1, topP = 1, maxTokens, stop } = first.request.sampling;
    const sampling = { temperature, topP, maxTokens };
    if (group.length > 1) {
      // It ends only when nobody waits for any of it.
      const signal = ofAllCalls(group.map(({ request }) => request.signal));
      const seeds = group.map(({ seed }) => seed);
      const prompts = group.map(({ request }) => request.messages);
      return this.#model.generateBatch(prompts, { ...sampling, seeds, ...(signal ? { signal } : {}) });
    }
    const { messages, signal, onToken } = first.request;
    const answer = await this.#model.generate(messages, {
      ...sampling,
      seed: first.seed,
      ...(stop ? { stop } : {}),
      ...(signal ? { signal } : {}),
      ...(onToken ? { onToken } : {}),
    });
    return [answer];
  }
}

/** Whether two requests can be answered by one batch, which knows neither stop texts nor pieces. */
function together(a: ChatRequest, b: ChatRequest): boolean {
  const plain = ({ onToken, sampling }: ChatRequest) => !onToken && (sampling.stop ?? []).length === 0;
  if (a === b) return true;
  const same = (["temperature", "topP", "maxTokens"] as const).every((key) => a.sampling[key] === b.sampling[key]);
  return same && plain(a) && plain(b);
}

/** 48 bits that follow from the request and the number of the draw. */
function seedOf({ messages, sampling, sampleIndex = 0 }: ChatRequest): number {
  const text = canonicalJson({
    messages: messages.map(({ role, content }) => ({ role, content })),
    sampling,
    sampleIndex,
  });
  return createHash("sha256").update(text).digest().readUIntBE(0, 6);
}

/** Whether the template writes a system message; some leave it out, some refuse it. */
function rendersSystem(model: Mistral): boolean {
  const probe = "5f1d system probe";
  const messages: Message[] = [
    { role: "system", content: probe },
    { role: "user", content: "?" },
  ];
  try {
    return model.tokenizer.render(messages, { addGenerationPrompt: true }).includes(probe);
  } catch {
    return false;
  }
}
