import { mix } from "../../data/shuffle";
import { breaks } from "./breaks";
import { signatureLength, similarity } from "./minhash";
import type { RowTable } from "./row-table";

/** From this similarity on, prompts are near duplicates. */
export const nearSimilarity = 0.7;

/** Rows that belong together. */
export class Groups {
  /** Rows in groups of two or more. */
  readonly rows: number;
  /** Groups of two or more. */
  readonly groups: number;
  readonly #group: Int32Array;
  readonly #starts: Uint32Array;
  readonly #members: Uint32Array;

  /** @param root of each row the smallest row of its group; −1 of one that is in none */
  constructor(root: Int32Array) {
    const sizes = new Uint32Array(root.length);
    for (const each of root) if (each >= 0) sizes[each]!++;
    this.#group = new Int32Array(root.length).fill(-1);
    const starts: number[] = [];
    let end = 0;
    for (let row = 0; row < root.length; row++) {
      if (sizes[row]! < 2) continue;
      this.#group[row] = starts.length;
      starts.push(end);
      end += sizes[row]!;
    }
    this.rows = end;
    this.groups = starts.length;
    this.#starts = Uint32Array.from([...starts, end]);
    this.#members = new Uint32Array(end);
    const next = this.#starts.slice();
    for (let row = 0; row < root.length; row++) {
      const group = root[row]! < 0 ? -1 : this.#group[root[row]!]!;
      if (group < 0) continue;
      this.#group[row] = group;
      this.#members[next[group]!++] = row;
    }
  }

  has(row: number): boolean {
    return (this.#group[row] ?? -1) >= 0;
  }

  /** The rows of a row's group in order, itself included; empty when it is in none. */
  of(row: number): Uint32Array {
    const group = this.#group[row] ?? -1;
    return group < 0 ? new Uint32Array() : this.#members.subarray(this.#starts[group], this.#starts[group + 1]);
  }

  /** The rows of every group. */
  *all(): Generator<Uint32Array> {
    for (let group = 0; group < this.groups; group++) {
      yield this.#members.subarray(this.#starts[group], this.#starts[group + 1]);
    }
  }
}

/** Rows that say the same, by their hashes. */
export function exactDuplicates(table: RowTable): Groups {
  const first = new Map<number, number>();
  const root = new Int32Array(table.rows).fill(-1);
  for (let row = 0; row < table.rows; row++) {
    const print = table.fingerprint[row]!;
    if (Number.isNaN(print)) continue;
    const known = first.get(print);
    if (known === undefined) first.set(print, row);
    root[row] = known ?? row;
  }
  return new Groups(root);
}

/** Signature numbers that must agree for two rows to be compared, and how often this is tried with others. */
const bandLength = 4;
const bands = signatureLength / bandLength;

/** Bits of a band's hash: with the row behind it, it must fit the 53 of a number. */
const bandBits = 26;
const rowFactor = 2 ** (53 - bandBits);

/** A row is compared with so many of those before it in a bucket; groups join up all the same. */
const neighbours = 8;

/**
 * Rows whose prompts are alike: locality-sensitive hashing (two prompts of similarity 0.7 meet with probability 0.99), then
 * the similarity by the whole signatures, then groups of all that are connected.
 *
 * @param progress told the share that is done
 */
export async function nearDuplicates(
  table: RowTable,
  signal: AbortSignal,
  progress: (share: number) => void,
): Promise<Groups> {
  const { signatures, prompted } = table;
  const parent = Int32Array.from({ length: prompted.length }, (_, row) => row);
  const find = (row: number): number => {
    let root = row;
    while (parent[root] !== root) root = parent[root]!;
    for (let at = row; at !== root; ) {
      const next = parent[at]!;
      parent[at] = root;
      at = next;
    }
    return root;
  };
  const rows = prompted.reduce((sum, each) => sum + each, 0);
  const keys = new Float64Array(rows);
  const pause = breaks();
  for (let band = 0; band < bands && !signal.aborted; band++) {
    let count = 0;
    for (let row = 0; row < prompted.length; row++) {
      if (prompted[row]) keys[count++] = bandHash(signatures, row, band) * rowFactor + row;
    }
    keys.sort();
    for (let at = 1; at < count; at++) {
      if (at % 256 === 0) await pause();
      const row = keys[at]! % rowFactor;
      const bucket = Math.floor(keys[at]! / rowFactor);
      for (let before = at - 1; before >= Math.max(0, at - neighbours); before--) {
        if (Math.floor(keys[before]! / rowFactor) !== bucket) break;
        const [a, b] = [find(row), find(keys[before]! % rowFactor)];
        if (a === b) continue;
        const alike = similarity(signatures, row * signatureLength, (keys[before]! % rowFactor) * signatureLength);
        // The smaller row is the root, so that groups keep the order of the data.
        if (alike >= nearSimilarity) parent[Math.max(a, b)] = Math.min(a, b);
      }
    }
    progress((band + 1) / bands);
    await pause();
  }
  const root = new Int32Array(table.rows).fill(-1);
  for (let row = 0; row < prompted.length; row++) if (prompted[row]) root[row] = find(row);
  return new Groups(root);
}

function bandHash(signatures: Uint16Array, row: number, band: number): number {
  let hash = band;
  const start = row * signatureLength + band * bandLength;
  for (let at = start; at < start + bandLength; at++) hash = mix(Math.imul(hash, 31) + signatures[at]!);
  return hash >>> (32 - bandBits);
}
