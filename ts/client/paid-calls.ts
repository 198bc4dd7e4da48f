import type { NativeSettled } from "../../bindings/node/index";
import { ClientError, fromNative, throwIfAborted, ZephyrError } from "../errors";
import { BatchDesk, type BatchOptions } from "./batch-desk";
import { Breaker, type BreakerOptions } from "./breaker";
import { Budget, type Caps, type Use } from "./budget";
import { CallJournal } from "./call-journal";
import { type CallKey, callKey } from "./call-key";
import type { ChatCapabilities, ChatModel, ChatRequest, ChatResponse } from "./chat-model";
import { type Completion, readCompletion } from "./completion";
import { type Ledger, ledgerOf, MemoryLedger } from "./ledger";
import { factsOf, type ModelFacts, type ModelTable, priceOf } from "./model-facts";
import { OpenAiChat } from "./openai-chat";
import { Pace, type PaceOptions } from "./pace";
import { type RawAnswer, rawAnswer } from "./raw-chat-model";
import { backoff } from "./retry";
import { amountOf, settledAnswer, settledFailure, usualTokens, type Worst, worstOf } from "./settlement";
import { ofOneCall, unlessAborted, wait } from "./wait";

/** How calls are made safe. */
export interface PaidCallsOptions extends Caps, PaceOptions {
  /** File of the journal. Without one nothing is remembered: a second run pays again. */
  journal?: string | undefined;
  /** Prices of one's own, over our table. */
  prices?: ModelTable;
  /** How often a call is tried in all. @default 10 */
  maxAttempts?: number;
  /** When to stop because nearly everything fails; `false`: never. */
  breaker?: BreakerOptions | false;
  /** Hand calls to models of servers over in batches: half the price, within a day. Needs a journal. @default false */
  batch?: boolean | BatchOptions;
  /**
   * Answers that were rejected in an earlier run are given once more before the model is asked: for a parser that can
   * read them now. @default false
   */
  reparse?: boolean;
  /** Calls that all the work will make, for messages about what is left. */
  planned?: number;
  /** Stops everything that was not sent yet. What is under way is still written down; {@link PaidCalls.close} waits for it. */
  signal?: AbortSignal | undefined;
  /** Gets what a person wants to know meanwhile: long waits, calls that may have been billed, full disks. */
  onNotice?: (text: string) => void;
}

/** Waits shorter than this are nobody's concern, in milliseconds. */
const noticeable = 5_000;

/**
 * What makes calls safe, for any number of models with one journal and one purse. A guarded model is a {@link ChatModel}
 * again: an answer that is in the journal comes from there, another is asked for within caps and rates, tried again when
 * that can help, and written down before anyone sees it.
 */
export class PaidCalls {
  readonly options: PaidCallsOptions;
  readonly journal: CallJournal | undefined;
  readonly budget: Budget;
  /** What was used when there is no journal. */
  readonly memory = new MemoryLedger();
  readonly #running = new Map<string, Promise<unknown>>();
  readonly #gates = new Map<string, Gate>();
  readonly #counts = { fresh: 0, journalled: 0, failed: 0 };
  #unnamed = 0;
  #closed: Promise<void> | undefined;

  private constructor(options: PaidCallsOptions, journal: CallJournal | undefined, spent: Use) {
    this.options = options;
    this.journal = journal;
    this.budget = new Budget(options, spent, () => this.standing());
  }

  /**
   * Opens the journal and counts what earlier runs used.
   *
   * @throws ClientError `ZA_JOURNAL_…`; `ZA_CLIENT_PRICE` when dollars are capped and the journal holds calls of a model
   * without a price
   */
  static async open(options: PaidCallsOptions = {}): Promise<PaidCalls> {
    if (options.batch && options.journal === undefined) {
      throw new ZephyrError("ZA_CONFIG_INVALID", "batches need a journal, since a batch outlives the process", {
        place: { field: "batch" },
        remedy: "Name a journal.",
      });
    }
    if (options.journal === undefined) return new PaidCalls(options, undefined, { calls: 0, dollars: 0, tokens: 0 });
    const journal = await CallJournal.open(options.journal);
    try {
      const totals = await journal.totals();
      let spent = totals.cost + totals.possibleCost;
      for (const { model, promptTokens, completionTokens, possibleTokens } of totals.unpriced) {
        const facts = factsOf(model, options.prices);
        if (facts) {
          spent += priceOf(facts, { promptTokens, completionTokens });
          spent += (possibleTokens * Math.max(facts.input, facts.output)) / 1e6;
        } else if (options.maxDollars !== undefined) throw withoutPrice(model, "the journal holds calls of it");
      }
      if (journal.orphans > 0) {
        options.onNotice?.(
          `${journal.orphans} calls of a run that was killed have no answer: they may have been billed, and count at their worst`,
        );
      }
      const tokens = totals.tokens + totals.possibleTokens;
      return new PaidCalls(options, journal, { calls: totals.calls, dollars: spent, tokens });
    } catch (error) {
      await journal.close();
      throw error;
    }
  }

  /** Calls that whoever asks should keep going at once, so that neither slots nor batches stay empty. */
  get concurrency(): number {
    const { batch, concurrency = 8 } = this.options;
    if (!batch) return concurrency;
    return (batch === true ? undefined : batch.maxRequests) ?? 10_000;
  }

  /**
   * Guards a model. Its text comes to `onToken` in one piece, when it is written down.
   *
   * @throws ClientError `ZA_CLIENT_PRICE` when dollars are capped and the model has no price
   */
  guard(model: ChatModel): ChatModel {
    const facts =
      this.options.prices && Object.hasOwn(this.options.prices, model.name)
        ? factsOf(model.name, this.options.prices)
        : (model.facts ?? factsOf(model.name));
    if (!facts && this.options.maxDollars !== undefined) throw withoutPrice(model.name, "it has none in the table");
    // A server counts what comes from all sides: who asks it for the same model shares the queue, and its batches.
    const place = JSON.stringify([model.endpoint, model.name]);
    const gate = this.#gates.get(place) ?? this.#gateOf(model, facts);
    this.#gates.set(place, gate);
    return new GuardedModel(this, model, facts, gate);
  }

  #gateOf(model: ChatModel, facts: ModelFacts | undefined): Gate {
    const { batch, breaker, signal } = this.options;
    const gate: Gate = { pace: new Pace(this.options) };
    if (breaker !== false) gate.breaker = new Breaker(breaker);
    if (batch && this.journal && model instanceof OpenAiChat) {
      const options = batch === true ? {} : batch;
      gate.desk = new BatchDesk(model, facts, this.journal, options, signal, (text) => this.notice(text));
    }
    return gate;
  }

  get #desks(): BatchDesk[] {
    return [...this.#gates.values()].flatMap(({ desk }) => desk ?? []);
  }

  /** What was spent, by purpose and model; with a journal over all its runs. */
  async ledger(): Promise<Ledger> {
    return this.journal ? ledgerOf(await this.journal.summary()) : this.memory.ledger();
  }

  /** Ends the work: waits for calls under way, whose answers are paid for, and closes the journal. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    const paid = this.budget.underWay.calls;
    if (paid > 0 && this.journal && this.options.signal?.aborted && this.#desks.length === 0) {
      this.notice(`waiting for ${paid} answers that are paid for`);
    }
    await Promise.all(this.#desks.map((desk) => desk.close()));
    while (this.#running.size > 0) await Promise.allSettled(this.#running.values());
    await this.journal?.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** What is done and what is left, in a sentence. */
  standing(): string {
    const { fresh, journalled, failed } = this.#counts;
    const done = fresh + journalled;
    const planned = this.options.planned;
    const parts = [
      planned === undefined ? `${done} calls are answered` : `${done} of ${planned} calls are answered`,
      ...(journalled > 0 ? [`${journalled} of them in earlier runs`] : []),
      ...(failed > 0 ? [`${failed} failed`] : []),
      ...(this.#running.size > 1 ? [`${this.#running.size - 1} others are under way or wait`] : []),
    ];
    return `${parts.join(", ")}${this.journal ? `; all answers are in ${this.journal.path}` : ""}.`;
  }

  notice(text: string): void {
    this.options.onNotice?.(text);
  }

  /** @internal */
  count(what: "fresh" | "journalled" | "failed"): void {
    this.#counts[what]++;
  }

  /**
   * Runs the work on a request, one at a time for each key: who asks the same meanwhile waits, and then finds the answer
   * in the journal.
   *
   * @internal
   */
  async single<T>(key: string, signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T> {
    if (this.#closed) throw new ZephyrError("ZA_INTERNAL", "a call was made after PaidCalls was closed");
    const name = this.journal ? key : `${key} ${this.#unnamed++}`;
    for (let same = this.#running.get(name); same; same = this.#running.get(name)) {
      await unlessAborted(
        same.then(
          () => {},
          () => {},
        ),
        signal,
      );
    }
    const running = work().finally(() => this.#running.delete(name));
    this.#running.set(name, running);
    return unlessAborted(running, signal);
  }

  /** Writes an answer down; a full disk is waited for, since the answer is paid for. @internal */
  async persist(write: () => Promise<void>): Promise<void> {
    for (let tries = 0; ; tries++) {
      try {
        return await write();
      } catch (error) {
        if (!(error instanceof ZephyrError) || error.code !== "ZA_DISK_FULL" || tries >= 60) throw error;
        if (tries === 0) this.notice("the disk is full: an answer that is paid for waits in memory; free some space");
        await wait(1000);
      }
    }
  }
}

function withoutPrice(model: string, why: string): ClientError {
  return new ClientError("ZA_CLIENT_PRICE", `the model ${model} has no price (${why}), but dollars are capped`, {
    place: { field: "maxDollars" },
    remedy: `Give its price in dollars per million tokens: {"${model}": {"input": 0, "output": 0}} (0 for a server of your own).`,
  });
}

/** What stands before a model of a server. */
interface Gate {
  pace: Pace;
  breaker?: Breaker;
  desk?: BatchDesk;
}

/** How one try ended. */
type Tried =
  | { settled: NativeSettled; raw: RawAnswer; completion: Completion; failure?: undefined }
  | { settled: NativeSettled; failure: ZephyrError };

/** A model with everything around it. */
class GuardedModel implements ChatModel {
  readonly name: string;
  readonly endpoint?: string;
  readonly facts?: ModelFacts;
  readonly #calls: PaidCalls;
  readonly #model: ChatModel;
  readonly #gate: Gate;
  /** Rejected answers that were given once more. */
  readonly #offered = new Set<number>();

  constructor(calls: PaidCalls, model: ChatModel, facts: ModelFacts | undefined, gate: Gate) {
    this.name = model.name;
    if (model.endpoint !== undefined) this.endpoint = model.endpoint;
    if (facts) this.facts = facts;
    this.#calls = calls;
    this.#model = model;
    this.#gate = gate;
  }

  get capabilities(): ChatCapabilities {
    return this.#model.capabilities;
  }

  async complete(request: ChatRequest): Promise<ChatResponse> {
    const signals = [request.signal, this.#calls.options.signal].filter((signal) => signal !== undefined);
    const signal = signals.length > 0 ? ofOneCall(...signals) : undefined;
    throwIfAborted(signal);
    const key = callKey(this, request);
    const response = await this.#calls.single(key.key, signal, () => this.#answer(key, request, signal));
    request.onToken?.(response.text);
    return response;
  }

  async #answer(key: CallKey, request: ChatRequest, signal: AbortSignal | undefined): Promise<ChatResponse> {
    const earlier = await this.#earlier(key.key);
    if (earlier) {
      this.#calls.count("journalled");
      return earlier;
    }
    const { context } = this.facts ?? {};
    if (context !== undefined && request.sampling.maxTokens > context) {
      const problem = `the longest answer is ${request.sampling.maxTokens} tokens, the context of ${this.name} ${context}`;
      throw new ClientError("ZA_CLIENT_CONTEXT", problem, { remedy: "Lower the answer's length." });
    }
    try {
      const response = await this.#ask(key, request, signal);
      this.#calls.count("fresh");
      return response;
    } catch (error) {
      this.#calls.count("failed");
      throw error;
    }
  }

  /** The answer that is in the journal, or is on its way in a batch of an earlier run. */
  async #earlier(key: string): Promise<ChatResponse | undefined> {
    const { journal, options } = this.#calls;
    if (!journal) return undefined;
    await this.#gate.desk?.resumed();
    if (this.#gate.desk?.waitsFor(key)) return undefined;
    const found = await journal.find(key);
    if (found) return this.#response(found.call, found.response, found.cost ?? null, true);
    if (!options.reparse) return undefined;
    const again = (await journal.rejected(key)).find(({ call }) => !this.#offered.has(call));
    if (!again) return undefined;
    this.#offered.add(again.call);
    await journal.reinstate(again.call);
    const { usage } = readCompletion(again.response);
    const cost = this.facts && usage ? priceOf(this.facts, usage) : null;
    return this.#response(again.call, again.response, cost, true);
  }

  /** Asks until there is an answer, or no hope of one. */
  async #ask(key: CallKey, request: ChatRequest, signal: AbortSignal | undefined): Promise<ChatResponse> {
    const { maxAttempts = 10 } = this.#calls.options;
    for (let attempt = 1; ; attempt++) {
      this.#gate.breaker?.check(() => this.#calls.standing());
      try {
        const response = await (this.#gate.desk
          ? this.#inBatch(this.#gate.desk, key, request, signal)
          : this.#once(key, request, signal));
        this.#gate.breaker?.answered();
        return response;
      } catch (error) {
        if (!(error instanceof ClientError) || !error.call) throw error;
        // A batch that expired says nothing about the requests in it.
        if (error.code !== "ZA_CLIENT_BATCH") this.#gate.breaker?.failed(error.problem);
        if (!error.call.retry) throw error;
        if (attempt >= maxAttempts) throw gaveUp(error, attempt);
        const delay = backoff(attempt, error.call.retryAfter, Math.random());
        if (delay >= noticeable) this.#calls.notice(`waiting ${Math.round(delay / 1000)} s: ${error.problem}`);
        await wait(delay, signal);
      }
    }
  }

  /** One try: paced, within the caps, written down before and after. */
  async #once(key: CallKey, request: ChatRequest, signal: AbortSignal | undefined): Promise<ChatResponse> {
    const { journal, budget, memory } = this.#calls;
    const worst = worstOf(request, this.facts, 1);
    const purpose = request.purpose ?? "call";
    const turn = await this.#gate.pace.enter(usualTokens(request), signal);
    try {
      const reservation = await budget.reserve({ tokens: worst.tokens, dollars: worst.dollars ?? 0 }, signal);
      let used: ReturnType<typeof amountOf> = "nothing";
      try {
        throwIfAborted(signal);
        const call = journal ? (await journal.intend([intentOf(key, this.name, purpose, worst)]))[0]! : 0;
        // From here on the worst is assumed until the end is written down.
        used = { tokens: worst.tokens, dollars: worst.dollars ?? 0 };
        const tried = await this.#try(key, request, call);
        const { settled, failure } = tried;
        used = amountOf(settled, worst);
        if (journal) await this.#calls.persist(() => journal.settle([settled]));
        else memory.add(purpose, this.name, settled, worst);
        if (failure) {
          const { status, retryAfter } = (failure instanceof ClientError && failure.call) || {};
          if (retryAfter !== undefined) this.#gate.pace.close(retryAfter);
          turn.leave(status === 429 ? "limited" : "other", settled.billed === false ? 0 : undefined);
          throw failure;
        }
        const { usage } = tried.completion;
        turn.leave("fine", usage ? usage.promptTokens + usage.completionTokens : undefined);
        return this.#response(call, tried.raw.body, settled.cost ?? null, false);
      } finally {
        reservation.settle(used);
      }
    } finally {
      turn.leave("other");
    }
  }

  /** Sends the request. What is paid for is not broken off: with a journal, the signal stops only those who wait. */
  async #try(key: CallKey, request: ChatRequest, call: number): Promise<Tried> {
    const { signal, onToken: _, ...kept } = request;
    const sent = this.#calls.journal || !signal ? kept : { ...kept, signal };
    try {
      const raw = await rawAnswer(this.#model, sent, `${key.key.slice(0, 40)}-${call}`);
      const completion = readCompletion(raw.body);
      return { raw, completion, settled: settledAnswer(call, raw, completion, this.facts, 1) };
    } catch (thrown) {
      const failure = fromNative(thrown);
      // What is no ClientError is an abort, or a local model's own refusal.
      const local = { retry: false, billed: this.#model instanceof OpenAiChat ? "possibly" : "no" } as const;
      const facts = (failure instanceof ClientError && failure.call) || local;
      return { failure, settled: settledFailure(call, failure.problem, facts) };
    }
  }

  /** The same through a batch, which may be one of an earlier run. */
  async #inBatch(
    desk: BatchDesk,
    key: CallKey,
    request: ChatRequest,
    signal: AbortSignal | undefined,
  ): Promise<ChatResponse> {
    const worst = worstOf(request, this.facts, desk.share);
    const most = { tokens: worst.tokens, dollars: worst.dollars ?? 0 };
    const { budget } = this.#calls;
    const joined = desk.waitsFor(key.key);
    const reservation = joined ? budget.adopt(most) : await budget.reserve(most, signal);
    // What is handed over and not settled when the process ends stays counted at its worst.
    let used: ReturnType<typeof amountOf> = most;
    try {
      const intent = intentOf(key, this.name, request.purpose ?? "call", worst);
      const { call, settled, failure } = await desk.ask(intent, request);
      if (settled) used = amountOf(settled, worst);
      else if (call === undefined) used = "nothing";
      if (failure) throw failure;
      return this.#response(call!, settled!.response!, settled!.cost ?? null, false);
    } finally {
      reservation.settle(used);
    }
  }

  #response(call: number, body: string, cost: number | null, journalled: boolean): ChatResponse {
    const completion = readCompletion(body);
    const { journal } = this.#calls;
    return {
      ...completion,
      model: completion.model || this.name,
      cost,
      journalled,
      reject: async (reason) => {
        if (!journalled) this.#gate.breaker?.rejected(reason);
        await journal?.reject(call, reason);
      },
    };
  }
}

function intentOf({ key, request }: CallKey, model: string, purpose: string, worst: Worst) {
  return {
    key,
    request,
    model,
    purpose,
    worstTokens: worst.tokens,
    ...(worst.dollars === undefined ? {} : { worstCost: worst.dollars }),
  };
}

function gaveUp(last: ClientError, attempts: number): ClientError {
  return new ClientError(
    "ZA_CLIENT_GAVE_UP",
    `the call failed ${attempts === 1 ? "once" : `${attempts} times, the last time`}: ${last.problem}`,
    {
      ...(last.remedy ? { remedy: last.remedy } : {}),
      call: { ...last.call!, retry: false },
      cause: last,
    },
  );
}
