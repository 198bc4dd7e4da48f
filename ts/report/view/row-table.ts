import { createHash } from "node:crypto";
import type { Role } from "../../data";
import { throwIfAborted } from "../../errors";
import { breaks } from "./breaks";
import { allSaid, type BrowsedData, type BrowsedRow, marginOf, promptOf } from "./browsed-data";
import { promptRuns, signatureLength, writeSignature } from "./minhash";

/** Roles that are counted; texts without roles count as what they stand for. */
export const countedRoles = ["system", "user", "assistant"] as const;

/** Prompts of so many rows are compared (128 bytes of signature each). */
export const mostCompared = 1_000_000;

/**
 * What is known of every row without its text: some 40 bytes and a signature each. Filled by one pass over the data in
 * the background; `read` says how far it is.
 */
export class RowTable {
  /** Rows read so far. */
  read = 0;
  /** Index into `codes` plus 1 of a row that cannot be used; 0 of a good one. */
  readonly code: Uint8Array;
  readonly codes: string[] = [];
  /** 1 where chosen and rejected are the same. */
  readonly equal: Uint8Array;
  /** Messages by role, at most 65,535. */
  readonly counts: Readonly<Record<Role, Uint16Array>>;
  /** Characters (UTF-16 units) of all that is said. */
  readonly length: Uint32Array;
  /** NaN where there is none. */
  readonly margin: Float32Array;
  /** 48 bits of a hash of what the row says; NaN where it says nothing. */
  readonly fingerprint: Float64Array;
  /** Of the prompt of each row, see `minhash.ts`; all zero where there is none. */
  readonly signatures: Uint16Array;
  /** Rows that have a signature. */
  readonly prompted: Uint8Array;

  constructor(readonly rows: number) {
    this.code = new Uint8Array(rows);
    this.equal = new Uint8Array(rows);
    this.counts = { system: new Uint16Array(rows), user: new Uint16Array(rows), assistant: new Uint16Array(rows) };
    this.length = new Uint32Array(rows);
    this.margin = new Float32Array(rows).fill(Number.NaN);
    this.fingerprint = new Float64Array(rows).fill(Number.NaN);
    const compared = Math.min(rows, mostCompared);
    this.signatures = new Uint16Array(compared * signatureLength);
    this.prompted = new Uint8Array(compared);
  }

  get complete(): boolean {
    return this.read >= this.rows;
  }

  /** Reads all rows, letting others work in between. */
  async fill(data: BrowsedData, signal: AbortSignal): Promise<void> {
    const pause = breaks();
    for await (const row of data.data.rows()) {
      throwIfAborted(signal);
      if (row.index >= this.rows) break;
      this.#take(data.read(row));
      this.read = row.index + 1;
      await pause();
    }
    // A file that became shorter in the meantime.
    this.read = this.rows;
  }

  #take(row: BrowsedRow): void {
    const { index, content } = row;
    if (!content) {
      this.code[index] = this.#codeOf(row.error?.code ?? "");
      return;
    }
    this.equal[index] = row.equal ? 1 : 0;
    const hash = createHash("sha1");
    for (const { by, text } of allSaid(content)) {
      const role = by === "prompt" || by === "text" ? "user" : by === "completion" ? "assistant" : by;
      this.counts[role][index]! += 1;
      this.length[index]! += text.length;
      hash.update(`${by}\0${text}\0`);
    }
    const margin = marginOf(row);
    if (margin !== null) this.margin[index] = margin;
    this.fingerprint[index] = hash.digest().readUIntBE(0, 6);
    if (index >= this.prompted.length) return;
    const prompt = promptOf(content);
    if (prompt.trim() === "") return;
    writeSignature(promptRuns(prompt), this.signatures, index * signatureLength);
    this.prompted[index] = 1;
  }

  #codeOf(code: string): number {
    const known = this.codes.indexOf(code);
    if (known >= 0) return known + 1;
    this.codes.push(code);
    return this.codes.length;
  }
}
