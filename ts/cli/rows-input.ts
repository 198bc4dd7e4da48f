/** Rows that the command line names: a file, a folder, an address, or a data set of the Hub. */
import { type Dataset, dataset } from "../data";
import { showDownload } from "./show-download";

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
