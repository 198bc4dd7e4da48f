import { aborted, throwIfAborted } from "../errors";

/** How a call ended, as far as the server's load is concerned. */
export type SlotOutcome = "fine" | "limited" | "other";

interface Waiting {
  take: () => void;
}

/**
 * How many calls a server gets at once: halved when it says that it is too much (429), one more after as many good answers
 * as there are slots (additive increase, multiplicative decrease). First come, first served.
 */
export class Slots {
  readonly #most: number;
  #limit: number;
  #taken = 0;
  #good = 0;
  /** Counts the halvings: calls that were under way at one do not cause the next. */
  #halvings = 0;
  readonly #waiting: Waiting[] = [];

  constructor(most: number) {
    this.#most = most;
    this.#limit = most;
  }

  /** Calls that may be under way now. */
  get limit(): number {
    return this.#limit;
  }

  /** Calls under way. */
  get taken(): number {
    return this.#taken;
  }

  /**
   * Waits for a slot. The result gives it back, once.
   *
   * @throws AbortedError
   */
  async take(signal?: AbortSignal): Promise<(outcome: SlotOutcome) => void> {
    throwIfAborted(signal);
    if (this.#taken < this.#limit && this.#waiting.length === 0) this.#taken++;
    else await this.#turn(signal);
    const halvings = this.#halvings;
    let given = false;
    return (outcome) => {
      if (given) return;
      given = true;
      this.#taken--;
      if (outcome === "limited" && halvings === this.#halvings) {
        this.#limit = Math.max(1, Math.floor(this.#limit / 2));
        this.#good = 0;
        this.#halvings++;
      } else if (outcome === "fine" && ++this.#good >= this.#limit) {
        this.#limit = Math.min(this.#most, this.#limit + 1);
        this.#good = 0;
      }
      this.#call();
    };
  }

  #turn(signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const entry: Waiting = {
        take: () => {
          signal?.removeEventListener("abort", leave);
          resolve();
        },
      };
      const leave = () => {
        this.#waiting.splice(this.#waiting.indexOf(entry), 1);
        reject(aborted(signal?.reason));
      };
      signal?.addEventListener("abort", leave, { once: true });
      this.#waiting.push(entry);
    });
  }

  #call(): void {
    while (this.#taken < this.#limit) {
      const next = this.#waiting.shift();
      if (!next) return;
      this.#taken++;
      next.take();
    }
  }
}
