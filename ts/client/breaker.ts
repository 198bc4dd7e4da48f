import { ClientError } from "../errors";

/** When to stop asking. */
export interface BreakerOptions {
  /** The latest calls that are looked at. @default 40 */
  window?: number;
  /** So many must be there before anything is concluded. @default 20 */
  least?: number;
  /** Share of failed tries that stops the work. @default 0.75 */
  failedShare?: number;
  /** Share of answers that could not be used that stops the work. @default 0.5 */
  invalidShare?: number;
}

/** The latest outcomes, and how many of them were bad. */
class Window {
  readonly #outcomes: boolean[] = [];

  constructor(readonly size: number) {}

  add(good: boolean): void {
    this.#outcomes.push(good);
    if (this.#outcomes.length > this.size) this.#outcomes.shift();
  }

  /** The newest good outcome turned out to be bad. */
  spoil(): void {
    const at = this.#outcomes.lastIndexOf(true);
    if (at >= 0) this.#outcomes[at] = false;
  }

  get length(): number {
    return this.#outcomes.length;
  }

  get bad(): number {
    return this.#outcomes.filter((good) => !good).length;
  }
}

/**
 * A circuit breaker: a server that fails nearly always, or a prompt that hardly ever gives a usable answer, costs money and
 * time for nothing. Once open it stays open: what is wrong has to be looked at.
 */
export class Breaker {
  readonly #options: Required<BreakerOptions>;
  readonly #tries: Window;
  readonly #answers: Window;
  #last = "";
  #problem: string | undefined;

  constructor(options: BreakerOptions = {}) {
    this.#options = { window: 40, least: 20, failedShare: 0.75, invalidShare: 0.5, ...options };
    this.#tries = new Window(this.#options.window);
    this.#answers = new Window(this.#options.window);
  }

  /** An answer came. */
  answered(): void {
    this.#tries.add(true);
    this.#answers.add(true);
  }

  /** A try failed. */
  failed(why: string): void {
    this.#last = why;
    this.#tries.add(false);
    const { bad, length } = this.#tries;
    if (length >= this.#options.least && bad / length >= this.#options.failedShare) {
      this.#problem ??= `${bad} of the latest ${length} tries failed`;
    }
  }

  /** An answer was rejected. */
  rejected(why: string): void {
    this.#last = why;
    this.#answers.spoil();
    const { bad, length } = this.#answers;
    if (length >= this.#options.least && bad / length >= this.#options.invalidShare) {
      this.#problem ??= `${bad} of the latest ${length} answers could not be used`;
    }
  }

  /**
   * @param standing what is done and what is left, for the message
   * @throws ClientError `ZA_CLIENT_BREAKER` once too much went wrong.
   */
  check(standing: () => string): void {
    if (this.#problem === undefined) return;
    throw new ClientError("ZA_CLIENT_BREAKER", `${this.#problem}, the last one: ${this.#last}. ${standing()}`, {
      remedy: "Look at the last failure; the same command goes on where it stopped.",
    });
  }
}
