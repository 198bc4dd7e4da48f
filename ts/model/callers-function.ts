/**
 * A function that the caller gave, and that is called from outside of any call: what it throws would end the process. It
 * ends the work instead, which then throws the same.
 */
export class CallersFunction<Value> {
  readonly #given: ((value: Value) => unknown) | undefined;
  readonly #stop = new AbortController();
  #failure: { thrown: unknown } | undefined;

  constructor(given: ((value: Value) => unknown) | undefined) {
    this.#given = given;
  }

  /** What ends the work: its own signal, or a failure of the function. */
  signalWith(own: AbortSignal | undefined): AbortSignal {
    return own ? AbortSignal.any([own, this.#stop.signal]) : this.#stop.signal;
  }

  readonly call = (value: Value): void => {
    if (this.#failure) return;
    try {
      const made = this.#given?.(value);
      // An async function's failure as well.
      if (made instanceof Promise) made.catch(this.#fail);
    } catch (error) {
      this.#fail(error);
    }
  };

  readonly #fail = (thrown: unknown): void => {
    this.#failure ??= { thrown };
    this.#stop.abort();
  };

  /** The work's outcome, unless the function has failed: then what it threw is thrown. */
  async during<T>(work: Promise<T>): Promise<T> {
    try {
      const made = await work;
      if (!this.#failure) return made;
    } catch (error) {
      if (!this.#failure) throw error;
    }
    throw this.#failure.thrown;
  }
}
