import type { Metrics } from "../events";
import type { LoggedRun, Logger } from "./logger";

/** Lines that may wait for a slow logger. */
const mostWaiting = 4096;

/** How long the end of a run waits for its loggers, in milliseconds. */
const lastWords = 10_000;

interface Attached {
  logger: Logger;
  /** All calls so far, one after another. */
  calls: Promise<void>;
  waiting: number;
  broken: boolean;
}

/** The loggers of one run: each gets its calls in order, and a fault of one touches neither the others nor the run. */
export class AttachedLoggers {
  readonly #attached: Attached[];
  readonly #warn: (message: string) => void;

  /** @param warn told once of each logger that is switched off */
  constructor(loggers: readonly Logger[], warn: (message: string) => void) {
    this.#attached = loggers.map((logger) => ({ logger, calls: Promise.resolve(), waiting: 0, broken: false }));
    this.#warn = warn;
  }

  start(run: LoggedRun): void {
    this.#each((logger) => logger.start(run));
  }

  log(step: number, metrics: Metrics): void {
    this.#each((logger) => logger.log(step, metrics));
  }

  /** Ends all loggers and waits for them, ten seconds at most. */
  async end(): Promise<void> {
    this.#each((logger) => logger.end());
    await Promise.all(this.#attached.map((each) => this.#finish(each)));
    this.#attached.length = 0;
  }

  async #finish(attached: Attached): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<true>((resolve) => {
      timer = setTimeout(() => resolve(true), lastWords);
    });
    const tooLate = await Promise.race([attached.calls, late]);
    clearTimeout(timer);
    if (tooLate) this.#switchOff(attached, `it has ${attached.waiting} lines to write after ${lastWords / 1000} s`);
  }

  #each(call: (logger: Logger) => unknown): void {
    for (const attached of this.#attached) {
      if (attached.broken) continue;
      if (attached.waiting >= mostWaiting) {
        this.#switchOff(attached, `${mostWaiting} lines wait for it`);
        continue;
      }
      attached.waiting++;
      attached.calls = attached.calls
        .then(async () => {
          if (!attached.broken) await call(attached.logger);
        })
        .catch((error: unknown) => this.#switchOff(attached, error instanceof Error ? error.message : String(error)))
        .finally(() => attached.waiting--);
    }
  }

  #switchOff(attached: Attached, reason: string): void {
    if (attached.broken) return;
    attached.broken = true;
    this.#warn(`the logger ${attached.logger.name} is switched off: ${reason}`);
  }
}
