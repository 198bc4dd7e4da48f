import { type SlotOutcome, Slots } from "./slots";
import { TokenBucket } from "./token-bucket";
import { wait } from "./wait";

/** How fast a model is asked. */
export interface PaceOptions {
  /** Calls at once, at most; it falls when the server says that it is too much, and recovers. @default 8 */
  concurrency?: number;
  /** Calls a minute. @default unlimited */
  rpm?: number;
  /** Tokens a minute, question and longest answer. @default unlimited */
  tpm?: number;
}

/** A place at the server. */
export interface Turn {
  /** Gives the place back; `tokens` is what was really used, when that is known. */
  leave(outcome: SlotOutcome, tokens?: number): void;
}

/** The queue before one model: slots, calls a minute, tokens a minute, and the waits that the server asks for. */
export class Pace {
  readonly #slots: Slots;
  readonly #calls: TokenBucket | undefined;
  readonly #tokens: TokenBucket | undefined;
  #closedUntil = 0;

  constructor({ concurrency = 8, rpm, tpm }: PaceOptions) {
    const now = performance.now();
    this.#slots = new Slots(concurrency);
    this.#calls = rpm === undefined ? undefined : new TokenBucket(rpm, now);
    this.#tokens = tpm === undefined ? undefined : new TokenBucket(tpm, now);
  }

  /** Calls that may be under way now. */
  get concurrency(): number {
    return this.#slots.limit;
  }

  /**
   * Waits until a call of so many tokens may be sent.
   *
   * @throws AbortedError; then nothing is used up
   */
  async enter(tokens: number, signal?: AbortSignal): Promise<Turn> {
    const give = await this.#slots.take(signal);
    const now = performance.now();
    const delay = Math.max(this.#calls?.take(1, now) ?? 0, this.#tokens?.take(tokens, now) ?? 0);
    try {
      await wait(delay, signal);
      for (let left = this.#closed(); left > 0; left = this.#closed()) await wait(left, signal);
    } catch (error) {
      this.#calls?.give(1, performance.now());
      this.#tokens?.give(tokens, performance.now());
      give("other");
      throw error;
    }
    return {
      leave: (outcome, used) => {
        if (used !== undefined) this.#tokens?.give(tokens - used, performance.now());
        give(outcome);
      },
    };
  }

  /** Nobody is let in for so many milliseconds: the server asks for it. */
  close(milliseconds: number): void {
    this.#closedUntil = Math.max(this.#closedUntil, performance.now() + milliseconds);
  }

  #closed(): number {
    return this.#closedUntil - performance.now();
  }
}
