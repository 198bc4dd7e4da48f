import { createHash } from "node:crypto";
import { DataError, type Place, type ZephyrError } from "../errors";
import { dataset } from "./dataset";
import { type Dataset, isDataset, type Row, rowValue, rowValues } from "./dataset-type";
import { checkIndex } from "./file-bytes";
import {
  type ConvertCounts,
  type ConvertOptions,
  checkSamePurpose,
  describeFormat,
  type FormatName,
  type PairRow,
  type Purpose,
  recogniseFormat,
  type SftRow,
  toPair,
  toSft,
  toUnpaired,
  type UnpairedRow,
} from "./formats";

/** What the trainers accept as data. */
export type DatasetInput = string | readonly unknown[] | Dataset<unknown>;

/** Options of {@link sftDataset} and {@link pairDataset}. */
export interface ConvertedOptions extends Omit<ConvertOptions, "counts"> {
  /**
   * `"error"` throws at the first row that cannot be used, before training starts; `"skip"` leaves such rows out and
   * lists them in the report. A file that breaks off then ends at the break.
   * @default "error"
   */
  onBadRow?: "error" | "skip";
}

/** What one pass over the data found. */
export interface DataReport extends ConvertCounts {
  source: string;
  format: FormatName;
  /** One sentence for the user: how the rows are read. */
  description: string;
  /** Rows read. */
  rows: number;
  /** Rows that can be used. */
  kept: number;
  /** Rows left out. */
  skipped: number;
  /** The first {@link listedRows} rows left out, with the reason. */
  skippedRows: { place: Place; code: string; problem: string }[];
  /** Rows equal to an earlier one; they are kept. Counted over the first {@link duplicateWindow} rows. */
  duplicates: number;
}

/** How many rows left out are listed; all are counted. */
export const listedRows = 1000;

/** Up to this many rows are compared for duplicates (16 MB or so of hashes per million rows). */
export const duplicateWindow = 2_000_000;

/** Rows of a known kind. `length()`, `at()` and `report()` check every row once, so that faults come before training. */
export interface ConvertedDataset<T> extends Dataset<T> {
  /** One pass over the rows: checks each and counts. Done once; later calls give the same report. */
  report(): Promise<DataReport>;
}

/** Rows for supervised fine-tuning, each checked and converted (see `formats.ts`). */
export function sftDataset(input: DatasetInput, options: ConvertedOptions = {}): ConvertedDataset<SftRow> {
  return converted(input, "sft", toSft, options);
}

/** Preference pairs, each checked and converted (see `formats.ts`). */
export function pairDataset(input: DatasetInput, options: ConvertedOptions = {}): ConvertedDataset<PairRow> {
  return converted(input, "pair", toPair, options);
}

/** Single answers with a label, or pairs, each checked and converted (see `formats.ts`). */
export function unpairedDataset(
  input: DatasetInput,
  options: ConvertedOptions = {},
): ConvertedDataset<UnpairedRow | PairRow> {
  return converted(input, "unpaired", toUnpaired, options);
}

type Convert<T> = (row: unknown, place: Place, options: ConvertOptions) => T;

function converted<T>(
  input: DatasetInput,
  purpose: Purpose,
  convert: Convert<T>,
  options: ConvertedOptions,
): ConvertedDataset<T> {
  const data = isDataset(input) ? input : dataset(input);
  const skip = options.onBadRow === "skip";
  /** The format of each file: that of its first usable row. Files of a mix may differ, the rows of one are read alike. */
  const formats = new Map<string, FormatName>();
  let scanned: Promise<Scan> | undefined;

  const scan = () => {
    scanned ??= scanAll().catch((error) => {
      scanned = undefined;
      throw error;
    });
    return scanned;
  };

  const formatOf = ({ place, value }: Row<unknown>): FormatName => {
    if (options.format) return options.format;
    const file = place.file ?? "";
    const known = formats.get(file);
    if (known) return known;
    const found = recogniseFormat(columnsOf(value), purpose, place);
    const [first] = formats.values();
    if (first) checkSamePurpose(first, found, place);
    formats.set(file, found);
    return found;
  };
  /** Wrong columns are a fault of the whole file, not of one row. */
  const isFaultOfFile = ({ code, place }: ZephyrError) =>
    isWholeFileFault(code) && options.format === undefined && !formats.has(place?.file ?? "");

  function convertRow(row: Row<unknown>, counts?: ConvertCounts): Row<T> {
    const { index, place } = row;
    if (row.error) return { index, place, error: row.error };
    try {
      const format = formatOf(row);
      const value = convert(row.value, place, { ...options, format, ...(counts ? { counts } : {}) });
      return { index, place, value };
    } catch (error) {
      if (error instanceof DataError) return { index, place, error };
      throw error;
    }
  }

  async function scanAll(): Promise<Scan> {
    const counts: ConvertCounts = { droppedLeadingAssistant: 0, equalPairs: 0 };
    const skippedRows: DataReport["skippedRows"] = [];
    const skipped: number[] = [];
    const seen = new Set<number>();
    let rows = 0;
    let duplicates = 0;
    /** Columns of the first row of each format. */
    const columns = new Map<FormatName, string[]>();
    for await (const row of data.rows()) {
      rows++;
      const result = convertRow(row, counts);
      if (result.error) {
        if (!skip || isFaultOfFile(result.error)) throw result.error;
        skipped.push(row.index);
        if (skippedRows.length < listedRows) {
          skippedRows.push({
            place: result.error.place ?? row.place,
            code: result.error.code,
            problem: result.error.problem,
          });
        }
        continue;
      }
      const format = formatOf(row);
      if (!columns.has(format)) columns.set(format, columnsOf(row.value));
      if (seen.size < duplicateWindow) {
        const before = seen.size;
        seen.add(fingerprint(result.value));
        if (seen.size === before) duplicates++;
      }
    }
    const kept = rows - skipped.length;
    const [format] = columns.keys();
    if (kept === 0 || format === undefined) {
      const problem = rows === 0 ? "the data set has no rows" : `none of the ${rows} rows can be used`;
      const first = skippedRows[0];
      throw new DataError("ZA_DATA_EMPTY", first ? `${problem}; the first: ${first.problem}` : problem, {
        place: first?.place ?? { file: data.source },
        remedy: "Check that this is the right file.",
      });
    }
    const descriptions = [...columns].map(([each, names]) => describeFormat(names, purpose, each));
    const description = descriptions.join(" Of another part: ");
    return {
      report: {
        source: data.source,
        format,
        description,
        rows,
        kept,
        skipped: skipped.length,
        skippedRows,
        duplicates,
        ...counts,
      },
      indices: skipped.length === 0 ? undefined : without(rows, skipped),
    };
  }

  async function* rows(): AsyncGenerator<Row<T>> {
    let index = 0;
    for await (const row of data.rows()) {
      const result = convertRow(row);
      if (result.error && skip && !isFaultOfFile(result.error)) continue;
      yield { ...result, index: index++ };
    }
  }

  const row = async (index: number): Promise<Row<T>> => {
    const { report, indices } = await scan();
    checkIndex(index, report.kept, data.source);
    return { ...convertRow(await data.row(indices ? (indices[index] as number) : index)), index };
  };

  return {
    source: data.source,
    [Symbol.asyncIterator]: () => rowValues(rows()),
    rows,
    row,
    at: async (index) => rowValue(await row(index)),
    length: async () => (await scan()).report.kept,
    report: async () => (await scan()).report,
    close: () => data.close(),
  };
}

interface Scan {
  report: DataReport;
  /** Source index of each kept row; undefined when all are kept. */
  indices: Uint32Array | undefined;
}

function isWholeFileFault(code: string): boolean {
  return code === "ZA_DATA_FORMAT" || code === "ZA_DATA_UNPAIRED";
}

function columnsOf(row: unknown): string[] {
  return typeof row === "object" && row !== null && !Array.isArray(row) ? Object.keys(row) : [];
}

/** `[0, rows)` without the sorted indices left out. */
function without(rows: number, skipped: readonly number[]): Uint32Array {
  const indices = new Uint32Array(rows - skipped.length);
  for (let row = 0, next = 0, to = 0; row < rows; row++) {
    if (row === skipped[next]) next++;
    else indices[to++] = row;
  }
  return indices;
}

/** 48 bits of a hash: among a million different rows a false match is unlikely (one in 560), and only a count is shown. */
function fingerprint(value: unknown): number {
  return createHash("sha1").update(JSON.stringify(value)).digest().readUIntBE(0, 6);
}
