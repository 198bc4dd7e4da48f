/** What a caller's own function threw, on its way through code that knows only its own errors. */
export class CallersError extends Error {
  constructor(readonly thrown: unknown) {
    super("a function of the caller threw");
  }
}

/**
 * A function that the caller gave, and that the core calls from outside of any call: what it throws would end the process.
 * It ends the work instead, which then throws the same.
 */
export class CallersFunction<Value> {
  readonly #given: ((value: Value) => unknown) | undefined;
  readonly #stop: () => void;
  #failure: CallersError | undefined;

  constructor(given: ((value: Value) => unknown) | undefined, stop: () => void) {
    this.#given = given;
    this.#stop = stop;
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

  readonly #fail = (error: unknown): void => {
    this.#failure ??= new CallersError(error);
    this.#stop();
  };

  /** @throws CallersError */
  async during<T>(work: Promise<T>): Promise<T> {
    try {
      const made = await work;
      if (!this.#failure) return made;
    } catch (error) {
      if (!this.#failure) throw error;
    }
    throw this.#failure;
  }
}
