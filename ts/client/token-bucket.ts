/**
 * A rate per minute, as a bucket that fills steadily. Whoever takes more than is there leaves a debt that the next one
 * waits for; at most one second's worth is saved up. So in any stretch of t seconds no more is taken than
 * rate · t / 60, one second's worth, and the last taking.
 */
export class TokenBucket {
  /** Per millisecond. */
  readonly #rate: number;
  #level: number;
  #at: number;

  /** @param now milliseconds of any clock that only goes on; the same for every call */
  constructor(perMinute: number, now: number) {
    this.#rate = perMinute / 60_000;
    this.#level = 0;
    this.#at = now;
  }

  /** Takes an amount; returns the milliseconds after which it may be used. First come, first served. */
  take(amount: number, now: number): number {
    this.#fill(now);
    const wait = this.#level >= 0 ? 0 : -this.#level / this.#rate;
    this.#level -= amount;
    return wait;
  }

  /** Gives back what was not used, or takes (negative) what was used on top. Nobody waits for it here. */
  give(amount: number, now: number): void {
    this.#fill(now);
    this.#level = Math.min(this.#level + amount, this.#most);
  }

  get #most(): number {
    return this.#rate * 1000;
  }

  #fill(now: number): void {
    this.#level = Math.min(this.#level + Math.max(0, now - this.#at) * this.#rate, this.#most);
    this.#at = Math.max(this.#at, now);
  }
}
