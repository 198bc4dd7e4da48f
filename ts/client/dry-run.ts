import { existsSync } from "node:fs";
import { CallJournal } from "./call-journal";
import { callKey } from "./call-key";
import type { ChatModel, ChatRequest, ChatResponse } from "./chat-model";
import { readCompletion } from "./completion";
import { factsOf, type ModelTable, priceOf } from "./model-facts";
import { questionBytes, worstOf } from "./settlement";

/** What the calls of a model would cost. */
export interface EstimateLine {
  model: string;
  /** Calls that would be sent. */
  calls: number;
  /** Calls that the journal answers. */
  journalled: number;
  /** By rule of thumb, four bytes a token. */
  promptTokens: number;
  completionTokens: number;
  /** undefined without a price. */
  dollars: number | undefined;
  /** The most that they can cost: what a cap must hold, so that it stops nothing. */
  worstTokens: number;
  worstDollars: number | undefined;
}

/** How an estimate is made. */
export interface DryRunOptions {
  /** Answers in the model's place, so that the work goes on as it would: the offline teacher, for example. */
  standIn: ChatModel;
  /** The journal that the work would use; what it holds costs nothing. */
  journal?: string | undefined;
  prices?: ModelTable;
  /** Count with the price of batches. @default false */
  batch?: boolean;
}

/**
 * Finds out what work will cost without paying: its models are asked nothing, a stand-in answers for them, and what they
 * would have been asked is counted.
 */
export class DryRun {
  readonly #options: DryRunOptions;
  readonly #journal: CallJournal | undefined;
  readonly #lines = new Map<string, EstimateLine>();
  readonly #seen = new Set<string>();

  private constructor(options: DryRunOptions, journal: CallJournal | undefined) {
    this.#options = options;
    this.#journal = journal;
  }

  /** Opens the journal for reading, when there is one. */
  static async open(options: DryRunOptions): Promise<DryRun> {
    const { journal } = options;
    return new DryRun(
      options,
      journal !== undefined && existsSync(journal) ? await CallJournal.read(journal) : undefined,
    );
  }

  /** A model in whose place the stand-in answers. */
  guard(model: ChatModel): ChatModel {
    const complete = (request: ChatRequest) => this.#answer(model, request);
    const { name, endpoint, facts } = model;
    return {
      name,
      ...(endpoint === undefined ? {} : { endpoint }),
      ...(facts ? { facts } : {}),
      capabilities: model.capabilities,
      complete,
    };
  }

  /** What would be asked, by model. */
  estimate(): EstimateLine[] {
    return [...this.#lines.values()];
  }

  /** Closes the journal. */
  async close(): Promise<void> {
    await this.#journal?.close();
  }

  async #answer(model: ChatModel, request: ChatRequest): Promise<ChatResponse> {
    const line = this.#lineOf(model.name);
    const { key } = callKey(model, request);
    const found = await this.#journal?.find(key);
    if (found) {
      line.journalled++;
      const completion = readCompletion(found.response);
      return { ...completion, cost: found.cost ?? null, journalled: true };
    }
    const answer = await this.#options.standIn.complete(request);
    // The same request is paid once.
    if (!this.#seen.has(key)) this.#count(line, model, request, answer.text);
    this.#seen.add(key);
    return { ...answer, cost: 0 };
  }

  #count(line: EstimateLine, model: ChatModel, request: ChatRequest, text: string): void {
    const { prices, batch } = this.#options;
    const own = prices && Object.hasOwn(prices, model.name);
    const facts = own ? factsOf(model.name, prices) : (model.facts ?? factsOf(model.name));
    const share = batch ? (facts?.batch ?? 0.5) : 1;
    const usage = {
      promptTokens: Math.ceil(questionBytes(request) / 4),
      completionTokens: Math.min(request.sampling.maxTokens, Math.ceil(Buffer.byteLength(text) / 4)),
    };
    const worst = worstOf(request, facts, share);
    line.calls++;
    line.promptTokens += usage.promptTokens;
    line.completionTokens += usage.completionTokens;
    line.worstTokens += worst.tokens;
    line.dollars = facts && line.dollars !== undefined ? line.dollars + share * priceOf(facts, usage) : undefined;
    line.worstDollars =
      worst.dollars !== undefined && line.worstDollars !== undefined ? line.worstDollars + worst.dollars : undefined;
  }

  #lineOf(model: string): EstimateLine {
    const empty: EstimateLine = {
      model,
      calls: 0,
      journalled: 0,
      promptTokens: 0,
      completionTokens: 0,
      dollars: 0,
      worstTokens: 0,
      worstDollars: 0,
    };
    const line = this.#lines.get(model) ?? empty;
    this.#lines.set(model, line);
    return line;
  }
}
