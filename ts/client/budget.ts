import { aborted, ClientError, throwIfAborted } from "../errors";

/** The most that may be used, over all runs with the same journal. */
export interface Caps {
  /** Dollars. @default unlimited */
  maxDollars?: number;
  /** Tokens, questions and answers together. @default unlimited */
  maxTotalTokens?: number;
  /** Calls. @default unlimited */
  maxCalls?: number;
}

/** What calls use: one call, or a sum of them. */
export interface Use {
  calls: number;
  dollars: number;
  tokens: number;
}

/** Room that is kept for a call until it is known what it used. */
export interface Reservation {
  /** Puts what the call used in the place of the room that was kept. */
  settle(used: Omit<Use, "calls"> | "nothing"): void;
}

const none: Use = { calls: 0, dollars: 0, tokens: 0 };

/**
 * Hard caps: a call is sent only when, at its very worst and with all calls under way at theirs, no cap is exceeded. Calls
 * that do not fit wait as long as others are under way, since these mostly use less; then they are refused.
 */
export class Budget {
  readonly #caps: Caps;
  #spent: Use;
  #underWay: Use = none;
  /** Only the first one is looked at: a small call does not overtake a large one. */
  readonly #waiting: { worst: Use; take: () => void; refuse: (error: unknown) => void }[] = [];
  readonly #standing: () => string;

  /** @param standing what is done and what is left, for the message of a refusal */
  constructor(caps: Caps, spent: Use, standing: () => string) {
    this.#caps = caps;
    this.#spent = spent;
    this.#standing = standing;
  }

  /** What is known to be used, calls of unknown fate at their worst. */
  get spent(): Use {
    return this.#spent;
  }

  /** The most that calls under way can use. */
  get underWay(): Use {
    return this.#underWay;
  }

  /**
   * Keeps room for a call.
   *
   * @throws ClientError `ZA_CLIENT_CAP`, AbortedError
   */
  async reserve(worst: Omit<Use, "calls">, signal?: AbortSignal): Promise<Reservation> {
    throwIfAborted(signal);
    const use = { calls: 1, ...worst };
    if (this.#waiting.length > 0 || !this.#take(use)) await this.#turn(use, signal);
    return this.#reservation(use);
  }

  /** Keeps the room of a call of an earlier run that goes on: it is among what was spent, at its worst. */
  adopt(worst: Omit<Use, "calls">): Reservation {
    const use = { calls: 1, ...worst };
    const { calls, dollars, tokens } = this.#spent;
    this.#spent = { calls: calls - 1, dollars: Math.max(0, dollars - use.dollars), tokens: tokens - use.tokens };
    this.#underWay = plus(this.#underWay, use);
    return this.#reservation(use);
  }

  #reservation(use: Use): Reservation {
    let settled = false;
    return {
      settle: (used) => {
        if (settled) return;
        settled = true;
        this.#underWay = minus(this.#underWay, use);
        if (used !== "nothing") this.#spent = plus(this.#spent, { calls: 1, ...used });
        this.#serve();
      },
    };
  }

  #take(use: Use): boolean {
    if (this.#exceeded(use) !== undefined) return false;
    this.#underWay = plus(this.#underWay, use);
    return true;
  }

  #turn(worst: Use, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const leave = () => {
        this.#waiting.splice(this.#waiting.indexOf(entry), 1);
        reject(aborted(signal?.reason));
        this.#serve();
      };
      const entry = {
        worst,
        take: () => {
          signal?.removeEventListener("abort", leave);
          resolve();
        },
        refuse: (error: unknown) => {
          signal?.removeEventListener("abort", leave);
          reject(error);
        },
      };
      signal?.addEventListener("abort", leave, { once: true });
      this.#waiting.push(entry);
      this.#serve();
    });
  }

  #serve(): void {
    for (let first = this.#waiting[0]; first; first = this.#waiting[0]) {
      if (this.#take(first.worst)) first.take();
      else if (this.#underWay.calls === 0) first.refuse(this.#refusal(first.worst));
      else return;
      this.#waiting.shift();
    }
  }

  /** The cap that a call would break, if it were sent now. */
  #exceeded(use: Use): keyof Caps | undefined {
    const { maxDollars, maxTotalTokens, maxCalls } = this.#caps;
    const then = plus(plus(this.#spent, this.#underWay), use);
    // Sums of dollars carry rounding: 0.1 + 0.2 is above 0.3 by 5e-17.
    if (maxDollars !== undefined && then.dollars > maxDollars * (1 + 1e-12)) return "maxDollars";
    if (maxTotalTokens !== undefined && then.tokens > maxTotalTokens) return "maxTotalTokens";
    return maxCalls !== undefined && then.calls > maxCalls ? "maxCalls" : undefined;
  }

  #refusal(worst: Use): ClientError {
    const cap = this.#exceeded(worst) ?? "maxDollars";
    const spent = this.#spent;
    const texts = {
      maxDollars: `${dollars(spent.dollars)} of ${dollars(this.#caps.maxDollars)} are used, and the next call can cost ${dollars(worst.dollars)}`,
      maxTotalTokens: `${spent.tokens} of ${this.#caps.maxTotalTokens} tokens are used, and the next call can use ${worst.tokens}`,
      maxCalls: `${spent.calls} of ${this.#caps.maxCalls} calls are made`,
    };
    return new ClientError("ZA_CLIENT_CAP", `the cap is reached: ${texts[cap]}. ${this.#standing()}`, {
      place: { field: cap },
      remedy: "Raise the cap and start the same command again: it goes on where it stopped, and pays nothing twice.",
    });
  }
}

/** `$0.0123`: dollars with four significant digits, or two decimals. */
export function dollars(amount: number | undefined): string {
  const value = amount ?? 0;
  return `$${value === 0 || value >= 1 ? value.toFixed(2) : Number(value.toPrecision(4))}`;
}

function plus(a: Use, b: Use): Use {
  return { calls: a.calls + b.calls, dollars: a.dollars + b.dollars, tokens: a.tokens + b.tokens };
}

function minus(a: Use, b: Use): Use {
  // The last one to leave takes the rounding along.
  if (a.calls === b.calls) return none;
  return { calls: a.calls - b.calls, dollars: a.dollars - b.dollars, tokens: a.tokens - b.tokens };
}
