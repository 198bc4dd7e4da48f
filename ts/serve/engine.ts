/** Who is answered when: admission, turns, and answers that are made together. */
import { ofAllCalls, ofOneCall } from "../client/wait";
import { aborted, throwIfAborted } from "../errors";
import type { Generated, GenerateOptions } from "../model/generation";
import type { Mistral } from "../model/mistral";
import { ApiError } from "./api-error";
import type { Metrics } from "./metrics";

/** A request that was taken in. */
export interface Ticket {
  /** Answers of it that had their turn. */
  served: number;
  leave(): void;
}

/** An answer to be made. */
export interface Answer {
  /** What the metrics call the model. */
  name: string;
  model: Mistral;
  prompt: Uint32Array;
  options: GenerateOptions & { seed: number; signal: AbortSignal };
}

/** Something that waits for its turn. */
interface Waiting {
  ticket: Ticket;
  /** undefined: work that is not like any other's. */
  answer: Answer | undefined;
  signal: AbortSignal;
  since: number;
  /** Does it alone. */
  run: () => Promise<unknown>;
  resolve: (value: never) => void;
  reject: (error: unknown) => void;
}

/** Answers made together; the core decodes so many at once. */
const batchSize = 32;

/**
 * One answer at a time, as the core has one engine thread; but answers that nobody watches coming and that are sampled in
 * the same way are made together, in one batch. Turns go to the request that has had the fewest, of these to the one that
 * came first: a request for a hundred answers does not keep out one for a single answer.
 */
export class Engine {
  readonly #metrics: Metrics;
  readonly #most: number;
  #inside = 0;
  #waiting: Waiting[] = [];
  #working = false;
  /** A moving mean of how long a request is inside, in seconds. */
  #usual = 1;

  /** @param queue requests that may wait while another is answered */
  constructor(queue: number, metrics: Metrics) {
    this.#most = queue + 1;
    this.#metrics = metrics;
    metrics.limit.set(this.#most);
  }

  /** Requests inside. */
  get underway(): number {
    return this.#inside;
  }

  /**
   * Takes a request in.
   *
   * @throws ApiError 429 when there is no room
   */
  enter(): Ticket {
    if (this.#inside >= this.#most) {
      const wait = Math.min(Math.max(Math.ceil((this.#usual * this.#inside) / 2), 1), 60);
      throw new ApiError(
        429,
        `This server is answering ${this.#inside} requests, which is all that it takes at once. Try again in ${wait} s.`,
        {
          type: "rate_limit_error",
          code: "queue_full",
          headers: { "retry-after": String(wait) },
        },
      );
    }
    const since = performance.now();
    this.#metrics.house.set(++this.#inside);
    let left = false;
    const leave = () => {
      if (left) return;
      left = true;
      this.#metrics.house.set(--this.#inside);
      this.#usual += 0.2 * ((performance.now() - since) / 1000 - this.#usual);
    };
    return { served: 0, leave };
  }

  /** Generates an answer when its turn has come. */
  async answer(ticket: Ticket, answer: Answer): Promise<Generated> {
    const { model, prompt, options, name } = answer;
    return this.#counted(name, () =>
      this.#turn<Generated>(ticket, answer, options.signal, () => model.generate(prompt, options)),
    );
  }

  /** Generates an answer in a way of its own when its turn has come. */
  async answerBy(ticket: Ticket, name: string, signal: AbortSignal, run: () => Promise<Generated>): Promise<Generated> {
    return this.#counted(name, () => this.#turn(ticket, undefined, signal, run));
  }

  /** Does other work with a model when its turn has come. */
  async work<T>(ticket: Ticket, signal: AbortSignal, run: () => Promise<T>): Promise<T> {
    return this.#turn(ticket, undefined, signal, run);
  }

  async #counted(model: string, run: () => Promise<Generated>): Promise<Generated> {
    try {
      const made = await run();
      this.#metrics.answers.add(1, { model, end: made.finishReason });
      this.#metrics.completionTokens.add(made.ids.length, { model });
      return made;
    } catch (error) {
      this.#metrics.answers.add(1, {
        model,
        end: (error as { code?: unknown }).code === "ZA_ABORTED" ? "aborted" : "error",
      });
      throw error;
    }
  }

  #turn<T>(ticket: Ticket, answer: Answer | undefined, given: AbortSignal, run: () => Promise<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      throwIfAborted(given);
      const signal = ofOneCall(given);
      const since = performance.now();
      const waiting: Waiting = { ticket, answer, signal, since, run, resolve, reject };
      signal.addEventListener("abort", () => this.#abandon(waiting), { once: true });
      this.#waiting.push(waiting);
      this.#show();
      // Those who ask in the same turn of the event loop are looked at together.
      if (!this.#working) setImmediate(() => void this.#work());
    });
  }

  /** Somebody who waits has left; who is being answered is stopped by the model. */
  #abandon(waiting: Waiting): void {
    if (!this.#waiting.includes(waiting)) return;
    this.#waiting = this.#waiting.filter((each) => each !== waiting);
    this.#show();
    waiting.reject(aborted(waiting.signal.reason));
  }

  async #work(): Promise<void> {
    if (this.#working) return;
    this.#working = true;
    while (this.#waiting.length > 0) {
      const group = this.#next();
      for (const { ticket, since } of group) {
        ticket.served++;
        this.#metrics.waitSeconds.observe((performance.now() - since) / 1000);
      }
      this.#metrics.running.set(group.length);
      this.#show();
      await this.#run(group);
      this.#metrics.running.set(0);
    }
    this.#working = false;
  }

  /** Whose turn it is, and who can be answered together with it. */
  #next(): Waiting[] {
    const first = this.#waiting.reduce((best, each) => (each.ticket.served < best.ticket.served ? each : best));
    const alike = this.#waiting.filter((each) => each === first || together(each.answer, first.answer));
    const group = alike.slice(0, batchSize);
    if (!group.includes(first)) group[group.length - 1] = first;
    this.#waiting = this.#waiting.filter((each) => !group.includes(each));
    return group;
  }

  async #run(group: readonly Waiting[]): Promise<void> {
    const [first] = group;
    if (group.length > 1 && first?.answer) {
      try {
        const answers = await batch(group.map(({ answer }) => answer as Answer));
        for (const [index, { resolve }] of group.entries()) resolve(answers[index] as never);
        return;
      } catch {
        // All have left, or one of them cannot be answered: each on its own, so that the others are.
      }
    }
    for (const { signal, run, resolve, reject } of group) {
      if (signal.aborted) reject(aborted(signal.reason));
      else await run().then(resolve as (value: unknown) => void, reject);
    }
  }

  #show(): void {
    this.#metrics.waiting.set(this.#waiting.length);
  }
}

/** Answers that can be made by one batch: it knows neither stop texts nor pieces, and samples all in one way. */
function together(a: Answer | undefined, b: Answer | undefined): boolean {
  if (!a || !b || a.model !== b.model) return false;
  const plain = ({ options }: Answer) => !options.onToken && !options.reuse && (options.stop ?? []).length === 0;
  const keys = ["maxTokens", "temperature", "topK", "topP", "minP", "repetitionPenalty", "logprobs"] as const;
  return plain(a) && plain(b) && keys.every((key) => a.options[key] === b.options[key]);
}

/** Makes answers together. It ends early only when nobody waits for any of it. */
async function batch(answers: readonly Answer[]): Promise<(Generated | undefined)[]> {
  const { model, options } = answers[0] as Answer;
  const { signal: _, onToken: __, ...sampling } = options;
  const signal = ofAllCalls(answers.map((each) => each.options.signal));
  const seeds = answers.map((each) => each.options.seed);
  return model.generateBatch(
    answers.map(({ prompt }) => prompt),
    { ...sampling, seeds, ...(signal ? { signal } : {}) },
  );
}
