/** Files of a repository as a local folder. */
import { RepositoryCache } from "./cache";
import { downloadFile } from "./download";
import { type Listing, listFiles, notInCache } from "./listing";
import { type Repository, repository } from "./repository";
import { type HubOptions, type HubSettings, hubSettings } from "./settings";

/** Which files of which revision. */
export interface SnapshotOptions extends HubOptions {
  /** Branch, tag or commit. @default "main" */
  revision?: string;
  /** Whether a file is wanted. @default all */
  files?: (path: string) => boolean;
}

/** A folder that holds files of a commit. */
export interface Snapshot {
  folder: string;
  commit: string;
  /** Paths in the folder. */
  files: string[];
}

/**
 * Makes files of a repository present in the Hub's cache and gives their folder. What is there is not downloaded again;
 * offline, all wanted files must be there.
 *
 * @throws HubError, IoError, AbortedError
 */
export async function snapshot(repository: Repository, options: SnapshotOptions = {}): Promise<Snapshot> {
  const settings = hubSettings(options);
  const listing = await listFiles(repository, options.revision ?? "main", settings);
  return download(repository, listing, options.files ?? (() => true), settings);
}

/**
 * Downloads a model's files, or with `kind: "datasets"` a data set's, into the Hub's cache.
 *
 * @example
 * const { folder } = await snapshotDownload("mistralai/Mistral-7B-v0.1", { files: (path) => !path.endsWith(".bin") });
 */
export function snapshotDownload(
  id: string,
  options: SnapshotOptions & { kind?: "models" | "datasets" } = {},
): Promise<Snapshot> {
  return snapshot(repository(options.kind ?? "models", id), options);
}

/** Downloads those files of a listing that are wanted and not in the cache. */
export async function download(
  repository: Repository,
  { commit, files }: Listing,
  wanted: (path: string) => boolean,
  settings: HubSettings,
): Promise<Snapshot> {
  const cache = new RepositoryCache(repository, settings);
  const chosen = files.filter(({ path }) => wanted(path));
  const missing: typeof chosen = [];
  for (const file of chosen) if (!(await cache.has(commit, file))) missing.push(file);
  if (settings.offline && missing.length > 0) {
    const names = missing.slice(0, 3).map(({ path }) => path);
    throw notInCache(repository, commit, `${missing.length} of its files are not in the cache (${names.join(", ")} …)`);
  }
  const totalInAll = chosen.reduce((sum, { size }) => sum + size, 0);
  let done = totalInAll - missing.reduce((sum, { size }) => sum + size, 0);
  for (const file of missing) {
    await downloadFile(repository, commit, file, cache, (loaded) =>
      settings.onProgress?.({
        repository: repository.id,
        file: file.path,
        loaded,
        total: file.size,
        loadedInAll: done + loaded,
        totalInAll,
      }),
    );
    done += file.size;
  }
  return { folder: cache.snapshot(commit), commit, files: chosen.map(({ path }) => path) };
}
