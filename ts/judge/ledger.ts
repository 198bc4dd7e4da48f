/** What the judge took, counted while it answers. */
import type { ChatResponse } from "../client";
import type { JudgeCost, JudgeIdentity } from "./result";

/** Counts calls, tokens, dollars, and the ids under which the judge answered. */
export class Ledger {
  readonly #cost: JudgeCost = { calls: 0, reused: 0, promptTokens: 0, completionTokens: 0, dollars: 0 };
  readonly #returned = new Map<string, number>();

  /** An answer that came from the judge, or from the journal. */
  add({ journalled, usage, cost, model }: ChatResponse): void {
    this.#count(model);
    if (journalled) {
      this.#cost.reused++;
      return;
    }
    this.#cost.calls++;
    this.#cost.promptTokens += usage?.promptTokens ?? 0;
    this.#cost.completionTokens += usage?.completionTokens ?? 0;
    // A call without a price makes the whole sum unknown.
    this.#cost.dollars = cost === null || this.#cost.dollars === null ? null : this.#cost.dollars + cost;
  }

  /** A finished judgment out of a file. */
  reuse(model: string): void {
    this.#cost.reused++;
    this.#count(model);
  }

  get cost(): JudgeCost {
    return { ...this.#cost };
  }

  /** The most frequent first. */
  get returned(): JudgeIdentity["returned"] {
    return [...this.#returned]
      .map(([id, answers]) => ({ id, answers }))
      .sort((a, b) => b.answers - a.answers || (a.id < b.id ? -1 : 1));
  }

  #count(model: string): void {
    this.#returned.set(model, (this.#returned.get(model) ?? 0) + 1);
  }
}
