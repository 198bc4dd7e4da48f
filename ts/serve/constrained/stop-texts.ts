/** Texts that end an answer, as the core looks for them: neither they nor what follows is part of it. */
export class StopTexts {
  readonly #stops: readonly string[];
  /** What may be the beginning of one. */
  #held = "";

  constructor(stops: readonly string[]) {
    this.#stops = stops;
  }

  /** Adds a piece: gives the text that is now certain to belong to the answer, and whether it ends here. */
  push(piece: string): { text: string; stopped: boolean } {
    const whole = this.#held + piece;
    const found = this.#stops.map((stop) => whole.indexOf(stop)).filter((at) => at >= 0);
    if (found.length > 0) {
      this.#held = "";
      return { text: whole.slice(0, Math.min(...found)), stopped: true };
    }
    const kept = Math.max(0, ...this.#stops.map((stop) => begun(whole, stop)));
    this.#held = whole.slice(whole.length - kept);
    return { text: whole.slice(0, whole.length - kept), stopped: false };
  }

  /** The answer ends by itself: what was held belongs to it. */
  end(): string {
    return this.#held;
  }
}

/** Length of the longest end of a text that begins a stop text. */
function begun(text: string, stop: string): number {
  let length = Math.min(stop.length - 1, text.length);
  while (length > 0 && !text.endsWith(stop.slice(0, length))) length--;
  return length;
}
