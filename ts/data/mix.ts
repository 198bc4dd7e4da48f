import { DataError } from "../errors";
import { concatenated } from "./concatenated";
import type { DatasetInput } from "./converted";
import { dataset } from "./dataset";
import { type Dataset, isDataset, type Row, rowValue, rowValues } from "./dataset-type";
import { deferred } from "./deferred";
import { checkIndex } from "./file-bytes";
import { fromArray } from "./in-memory";
import { argumentError } from "./messages";
import { hash32 } from "./shuffle";
import { limited } from "./subset";

/** One of the data sets of a {@link mix}. */
export interface MixPart {
  data: DatasetInput;
  /** Its share of the rows, against the other parts' weights; under `rule: "first-fraction"` the part of it that is taken. @default 1 */
  weight?: number;
}

/** Options of {@link mix}. */
export interface MixOptions {
  /** Decides which rows of a part are taken. @default 42 */
  seed?: number;
  /**
   * Rows of the mix. More than a part can give repeats its rows evenly.
   * @default as many as the proportions allow without repeating a row
   */
  rows?: number;
  /**
   * `"proportions"`: the rows of each part are in exact proportion to its weight, spread evenly over the whole.
   * `"first-fraction"`: the first `weight` (0 to 1) of each part, one part behind the other: the alignment handbook's
   * `dataset_mixer` of 2023.
   * @default "proportions"
   */
  rule?: "proportions" | "first-fraction";
}

/**
 * Rows of several data sets, which may be of different formats, in one; every row keeps its place. What stands where is a
 * pure function of seed, weights and lengths: nothing is held in memory, and any row can be asked for alone.
 *
 * Of a part that gives `k` of its `n` rows, one row is taken out of each `k`-th of it, so that the rows stay in order and
 * iterating reads every part once from its start to its end. Trainers shuffle what they are given.
 *
 * @example
 * mix([{ data: "chats.parquet", weight: 3 }, { data: "org/code-chats", weight: 1 }], { seed: 7 })
 */
export function mix(parts: readonly MixPart[], options: MixOptions = {}): Dataset<unknown> {
  checkOptions(parts, options);
  const sources = parts.map(({ data, weight = 1 }, index) => ({ data: opened(data, index), weight }));
  const source = `mix of ${sources.map(({ data, weight }) => `${data.source} (${weight})`).join(", ")}`;
  const close = async () => void (await Promise.all(sources.map(({ data }) => data.close())));
  const make = options.rule === "first-fraction" ? firstFractions : interleaved;
  return { ...deferred(source, () => make(sources, options, source)), close };
}

interface Source {
  data: Dataset<unknown>;
  weight: number;
}

function checkOptions(parts: readonly MixPart[], { rows, rule }: MixOptions): void {
  const fault = (field: string, problem: string, remedy: string) => {
    throw new DataError("ZA_DATA_INDEX", problem, { place: { field }, remedy });
  };
  const remedy = "Give a list of parts: mix([{ data, weight }]).";
  if (!Array.isArray(parts)) throw argumentError("parts", "parts", parts, remedy);
  for (const [index, part] of parts.entries()) {
    if (typeof part !== "object" || part === null) throw argumentError(`parts[${index}]`, "a part", part, remedy);
  }
  if (parts.length === 0) fault("parts", "a mix needs at least one data set", "Give {data, weight}.");
  for (const [index, { weight = 1 }] of parts.entries()) {
    const most = rule === "first-fraction" ? 1 : Number.MAX_VALUE;
    if (weight > 0 && weight <= most) continue;
    const range = rule === "first-fraction" ? "above 0 and at most 1" : "a number above 0";
    fault(`parts[${index}].weight`, `the weight is ${weight}`, `Give ${range}, or leave the part out.`);
  }
  if (rows === undefined) return;
  if (rule === "first-fraction") fault("rows", "the rule first-fraction takes no number of rows", "Leave it out.");
  if (!Number.isSafeInteger(rows) || rows < 1) fault("rows", `rows is ${rows}`, "Give a whole number of at least 1.");
}

/** Rows in memory get a name of their own: places must tell two such parts apart. */
function opened(data: DatasetInput, index: number): Dataset<unknown> {
  if (isDataset(data)) return data;
  return typeof data === "string" ? dataset(data) : fromArray(data, `rows of part ${index + 1}`);
}

async function firstFractions(sources: readonly Source[], _: MixOptions, name: string): Promise<Dataset<unknown>> {
  const parts: Dataset<unknown>[] = [];
  for (const { data, weight } of sources) {
    const count = Math.floor(weight * (await data.length()));
    if (count > 0) parts.push(weight === 1 ? data : limited(data, count));
  }
  return concatenated(parts, name);
}

async function interleaved(sources: readonly Source[], options: MixOptions, name: string): Promise<Dataset<unknown>> {
  const lengths: number[] = [];
  for (const { data } of sources) lengths.push(await data.length());
  const counts = countsOf(sources, lengths, options.rows);
  const total = counts.reduce((sum, count) => sum + count, 0);
  const taken = counts.map((count, part) => selection(options.seed ?? 42, part, count, lengths[part]!));

  const row = async (index: number): Promise<Row<unknown>> => {
    checkIndex(index, total, name);
    const { part, ordinal } = placeInMix(counts, index);
    return { ...(await sources[part]!.data.row(taken[part]!(ordinal))), index };
  };
  async function* rows(): AsyncGenerator<Row<unknown>> {
    const readers = sources.map(({ data }, part) => takenRows(data, counts[part]!, taken[part]!));
    const ordinals = counts.map(() => 0);
    try {
      for (let index = 0; index < total; index++) {
        const part = nextPart(counts, ordinals);
        ordinals[part]!++;
        const { value } = await readers[part]!.next();
        // A file that lost rows since it was counted.
        if (!value) throw changed(sources[part]!.data.source);
        yield { ...value, index };
      }
    } finally {
      for (const reader of readers) await reader.return(undefined);
    }
  }
  return {
    source: name,
    [Symbol.asyncIterator]: () => rowValues(rows()),
    length: async () => total,
    rows,
    row,
    at: async (index) => rowValue(await row(index)),
    close: async () => {},
  };
}

/** Rows of each part: exact shares of the whole, rounded to the largest remainders. */
function countsOf(sources: readonly Source[], lengths: readonly number[], wanted: number | undefined): number[] {
  const weights = sources.reduce((sum, { weight }) => sum + weight, 0);
  const shares = sources.map(({ weight }) => weight / weights);
  // The tolerance: 30 / 0.3 is a little below 100 in floating point.
  const fitting = Math.min(...shares.map((share, part) => Math.floor(lengths[part]! / share + 1e-9)));
  const total = wanted ?? fitting;
  const empty = lengths.indexOf(0);
  if (empty >= 0 || total === 0) {
    throw new DataError("ZA_DATA_EMPTY", empty >= 0 ? "a part of the mix has no rows" : "the mix would have no rows", {
      place: { file: sources[Math.max(0, empty)]!.data.source },
      remedy: "Leave the part out, or give it more rows or less weight.",
    });
  }
  const exact = shares.map((share) => share * total);
  const counts = exact.map((count) => Math.floor(count + 1e-9));
  const byRemainder = exact.map((count, part) => ({ part, remainder: count - counts[part]! }));
  byRemainder.sort((a, b) => b.remainder - a.remainder || a.part - b.part);
  const missing = total - counts.reduce((sum, count) => sum + count, 0);
  for (const { part } of byRemainder.slice(0, missing)) counts[part]!++;
  return counts;
}

/** The row that stands at each place of a part: one out of each of `count` stretches, in order. */
function selection(seed: number, part: number, count: number, length: number): (ordinal: number) => number {
  return (ordinal) => {
    const start = floorOf(ordinal, length, count);
    const size = Math.max(1, floorOf(ordinal + 1, length, count) - start);
    return start + (size === 1 ? 0 : hash32(seed, part, ordinal) % size);
  };
}

/** ⌊a·b/c⌋, exact. */
function floorOf(a: number, b: number, c: number): number {
  return a * b <= Number.MAX_SAFE_INTEGER ? Math.floor((a * b) / c) : Number((BigInt(a) * BigInt(b)) / BigInt(c));
}

/** The chosen rows of a part, read from its start to its end. */
async function* takenRows(
  data: Dataset<unknown>,
  count: number,
  taken: (ordinal: number) => number,
): AsyncGenerator<Row<unknown>> {
  let ordinal = 0;
  for await (const row of data.rows()) {
    while (ordinal < count && taken(ordinal) === row.index) {
      ordinal++;
      yield row;
    }
    if (ordinal === count) return;
  }
}

/**
 * The rows of a part that gives `k` stand at the times (2j + 1) / 2k for j = 0 … k − 1: evenly over the whole. The next row
 * is that of the part whose next time is the earliest; of equal times, of the first part.
 */
function nextPart(counts: readonly number[], ordinals: readonly number[]): number {
  let next = -1;
  for (let part = 0; part < counts.length; part++) {
    if (ordinals[part]! >= counts[part]!) continue;
    if (next < 0 || compareTimes(ordinals[part]!, counts[part]!, ordinals[next]!, counts[next]!) < 0) next = part;
  }
  return next;
}

/** Sign of (2i + 1) / k − (2j + 1) / l. */
function compareTimes(i: number, k: number, j: number, l: number): number {
  const left = (2 * i + 1) * l;
  const right = (2 * j + 1) * k;
  if (Math.max(left, right) <= Number.MAX_SAFE_INTEGER) return Math.sign(left - right);
  const exact = BigInt(2 * i + 1) * BigInt(l) - BigInt(2 * j + 1) * BigInt(k);
  return exact < 0n ? -1 : exact > 0n ? 1 : 0;
}

/** Which row of which part stands at an index; the same as counting with {@link nextPart} up to there. */
function placeInMix(counts: readonly number[], index: number): { part: number; ordinal: number } {
  for (let part = 0; part < counts.length; part++) {
    // How many rows stand before the part's j-th grows with j.
    const ordinal = firstWhere(counts[part]!, (j) => rowsBefore(counts, part, j) >= index);
    if (ordinal < counts[part]! && rowsBefore(counts, part, ordinal) === index) return { part, ordinal };
  }
  throw new RangeError(`no part of the mix has row ${index}`);
}

/** Rows of all parts that stand before row j of a part. */
function rowsBefore(counts: readonly number[], part: number, j: number): number {
  let before = j;
  for (let other = 0; other < counts.length; other++) {
    if (other === part) continue;
    before += firstWhere(counts[other]!, (i) => {
      const order = compareTimes(i, counts[other]!, j, counts[part]!);
      return order > 0 || (order === 0 && other > part);
    });
  }
  return before;
}

/** The first number in `[0, end)` of which a condition holds that then holds of all larger ones; `end` when there is none. */
function firstWhere(end: number, holds: (value: number) => boolean): number {
  let low = 0;
  let high = end;
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    if (holds(middle)) high = middle;
    else low = middle + 1;
  }
  return low;
}

function changed(source: string): DataError {
  return new DataError("ZA_DATA_CHANGED", "the data set has fewer rows than when they were counted", {
    place: { file: source },
    remedy: "Start again; files must not change while they are read.",
  });
}
