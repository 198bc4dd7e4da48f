import type { NativeGroup, NativeSettled, NativeSummary } from "../../bindings/node/index";
import type { Worst } from "./settlement";

/** What was spent for one purpose with one model. */
export interface LedgerLine {
  purpose: string;
  model: string;
  /** Calls with an answer, failed calls, answers that could not be used, calls without an end. */
  done: number;
  failed: number;
  invalid: number;
  open: number;
  promptTokens: number;
  completionTokens: number;
  /** Dollars that are known. */
  dollars: number;
  /** Calls whose cost nobody knows, and the most that they can have cost. */
  possiblyBilled: number;
  possibleDollars: number;
  /** Billed calls of a model without a price: their dollars are not in the sums. */
  unpriced: number;
}

/** What was spent on what. */
export interface Ledger {
  lines: readonly LedgerLine[];
  /** Sums over the lines; purpose and model are empty. */
  total: LedgerLine;
}

const nothing: Omit<LedgerLine, "purpose" | "model"> = {
  done: 0,
  failed: 0,
  invalid: 0,
  open: 0,
  promptTokens: 0,
  completionTokens: 0,
  dollars: 0,
  possiblyBilled: 0,
  possibleDollars: 0,
  unpriced: 0,
};

/** The ledger of a journal. */
export function ledgerOf({ groups }: NativeSummary): Ledger {
  return summed(groups.map(lineOf));
}

function lineOf({ intent, cost, possibleCost, ...group }: NativeGroup): LedgerLine {
  return { ...group, open: intent, dollars: cost, possibleDollars: possibleCost };
}

function summed(lines: readonly LedgerLine[]): Ledger {
  const total = { purpose: "", model: "", ...nothing };
  for (const line of lines) {
    for (const key of Object.keys(nothing) as (keyof typeof nothing)[]) total[key] += line[key];
  }
  return { lines, total };
}

/** A ledger of one process, where there is no journal. */
export class MemoryLedger {
  readonly #lines = new Map<string, LedgerLine>();

  /** Adds a call that ended. */
  add(purpose: string, model: string, settled: NativeSettled, worst: Worst): void {
    const key = JSON.stringify([purpose, model]);
    const line = this.#lines.get(key) ?? { purpose, model, ...nothing };
    this.#lines.set(key, line);
    if (settled.done) line.done++;
    else line.failed++;
    if (settled.billed) {
      line.promptTokens += settled.promptTokens ?? 0;
      line.completionTokens += settled.completionTokens ?? 0;
      if (settled.cost === undefined) line.unpriced++;
      else line.dollars += settled.cost;
    } else if (settled.billed === undefined) {
      line.possiblyBilled++;
      line.possibleDollars += worst.dollars ?? 0;
    }
  }

  ledger(): Ledger {
    return summed([...this.#lines.values()]);
  }
}
