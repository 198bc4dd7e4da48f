/** Rows that the command line names: a file, a folder, an address, or a data set of the Hub. */
import { type Dataset, dataset, type HubProgress } from "../data";

/** Which part of it, and what is shown. */
export interface RowsInputOptions {
  split?: string | undefined;
  /** The first rows only. */
  limit?: number | undefined;
  /** Read what is asked for instead of downloading whole files. */
  stream?: boolean | undefined;
  signal?: AbortSignal | undefined;
  /** Say nothing while files are downloaded. */
  quiet?: boolean | undefined;
}

/** What `--data` and the like take, for help texts. */
export const rowsInputHelp =
  "JSONL, JSON or Parquet (also .gz, .zst), a folder, an address, or the id of a data set of the Hub";

/** Opens what the command line names; what is downloaded is shown on stderr. */
export function openRows(
  source: string,
  { split, limit, stream, signal, quiet }: RowsInputOptions = {},
): Dataset<unknown> {
  return dataset(source, {
    ...(split === undefined ? {} : { split }),
    ...(limit === undefined ? {} : { limit }),
    ...(stream === undefined ? {} : { stream }),
    hub: { ...(signal ? { signal } : {}), ...(quiet ? {} : { onProgress: showDownload() }) },
  });
}

/** One line that is written over on a terminal, else one line a file. */
function showDownload(): (progress: HubProgress) => void {
  const stream = process.stderr;
  let shown = "";
  let last = 0;
  return ({ repository, file, loaded, total, loadedInAll, totalInAll }) => {
    const done = loadedInAll >= totalInAll;
    if (!stream.isTTY) {
      if (file === shown) return;
      shown = file;
      stream.write(`downloading ${repository}/${file} (${size(total)})\n`);
      return;
    }
    if (!done && loaded < total && performance.now() - last < 100) return;
    last = performance.now();
    const line = `${repository}/${file}  ${size(loadedInAll)} of ${size(totalInAll)}`;
    stream.write(`\r\x1b[2K${line.slice(-(stream.columns || 80) + 1)}${done ? "\n" : ""}`);
  };
}

function size(bytes: number): string {
  if (bytes < 1e6) return `${(bytes / 1e3).toFixed(1)} kB`;
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(2)} GB`;
}
