/** Which commit a revision is, and which files it holds. */
import { HubError } from "../errors";
import { type HubFile, hubFile, RepositoryCache, type TreeEntry } from "./cache";
import { hubRequest } from "./hub-request";
import { apiUrl, checkedPath, checkedRevision, isCommit, type Repository, shownPath } from "./repository";
import type { HubSettings } from "./settings";

/** A commit and its files. */
export interface Listing {
  commit: string;
  files: HubFile[];
  /** False: offline, and only what was downloaded is known. */
  complete: boolean;
}

/**
 * Asks the Hub for a revision's commit and files. A commit's files are kept in the cache, where they never change: a
 * revision given as a commit that was listed before needs no network.
 *
 * @throws HubError
 */
export async function listFiles(repository: Repository, revision: string, settings: HubSettings): Promise<Listing> {
  checkedRevision(revision);
  const cache = new RepositoryCache(repository, settings);
  const commit = await commitOf(repository, revision, cache);
  const known = await cache.knownFiles(commit);
  if (known) return { commit, files: checked(known, repository, commit), complete: true };
  if (settings.offline) {
    const files = await cache.filesPresent(commit);
    if (files.length > 0) return { commit, files, complete: false };
    throw notInCache(repository, revision, "none of its files is in the cache");
  }
  const files = checked(await fetchTree(repository, commit, settings), repository, commit);
  await cache.rememberFiles(commit, files);
  return { commit, files, complete: true };
}

async function commitOf(repository: Repository, revision: string, cache: RepositoryCache): Promise<string> {
  if (isCommit(revision)) return revision;
  const { settings } = cache;
  if (settings.offline) {
    const known = await cache.knownCommit(revision);
    if (known) return known;
    throw notInCache(repository, revision, `its revision ${revision} is not in the cache`);
  }
  const url = apiUrl(settings.endpoint, repository, `revision/${encodeURIComponent(revision)}`);
  const response = await hubRequest(url, { repository, revision, settings });
  const { sha } = (await json(response, repository, revision)) as { sha?: unknown };
  if (typeof sha !== "string" || !isCommit(sha)) throw nonsense(repository, revision, "it names no commit");
  await cache.rememberCommit(revision, sha);
  return sha;
}

/** An entry of the Hub's tree API. */
interface ApiEntry {
  type?: string;
  path?: unknown;
  size?: unknown;
  oid?: unknown;
  lfs?: { oid?: unknown; size?: unknown };
  xetHash?: unknown;
}

async function fetchTree(repository: Repository, commit: string, settings: HubSettings): Promise<HubFile[]> {
  const files: HubFile[] = [];
  const start = apiUrl(settings.endpoint, repository, `tree/${commit}?recursive=true&expand=false`);
  for (let url: string | undefined = start; url !== undefined; ) {
    const response: Response = await hubRequest(url, { repository, revision: commit, settings });
    const page = await json(response, repository, commit);
    if (!Array.isArray(page)) throw nonsense(repository, commit, "its list of files is no list");
    for (const entry of page as ApiEntry[]) {
      if (entry?.type === "file") files.push(fileOf(entry, repository, commit));
    }
    url = nextPage(response, url, repository, commit);
  }
  return files;
}

function fileOf({ path, size, oid, lfs, xetHash }: ApiEntry, repository: Repository, commit: string): HubFile {
  const isHash = (value: unknown, length: number): value is string =>
    typeof value === "string" && value.length === length && /^[0-9a-f]+$/.test(value);
  const isSize = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
  if (
    typeof path !== "string" ||
    !isSize(size) ||
    !isHash(oid, 40) ||
    (lfs && !(isHash(lfs.oid, 64) && isSize(lfs.size)))
  ) {
    throw nonsense(repository, commit, "an entry of its list of files has no path, size or hash");
  }
  const tree: TreeEntry = { size, blob_id: oid };
  if (lfs) Object.assign(tree, { lfs_sha256: lfs.oid, lfs_size: lfs.size });
  if (isHash(xetHash, 64)) tree.xet_hash = xetHash;
  return hubFile(path, tree);
}

/** The address of the next page in a Link header. It must be the Hub's own: the token goes with it. */
function nextPage(response: Response, current: string, repository: Repository, commit: string): string | undefined {
  const link = /<([^>]+)>\s*;[^,]*\brel="?next"?/.exec(response.headers.get("link") ?? "")?.[1];
  if (link === undefined) return undefined;
  const next = new URL(link, current);
  if (next.origin === new URL(current).origin && next.href !== current) return next.href;
  throw nonsense(repository, commit, "the next page of its list of files lies on another host, or is the same page");
}

async function json(response: Response, repository: Repository, revision: string): Promise<unknown> {
  try {
    return await response.json();
  } catch (cause) {
    throw nonsense(repository, revision, "the answer is no JSON", cause);
  }
}

function checked(files: HubFile[], repository: Repository, commit: string): HubFile[] {
  const place = { file: shownPath(repository, commit) };
  for (const { path } of files) checkedPath(path, place);
  return files;
}

function nonsense(repository: Repository, revision: string, problem: string, cause?: unknown): HubError {
  return new HubError("ZA_HUB_RESPONSE", `the Hub's answer cannot be used: ${problem}`, {
    place: { file: shownPath(repository, revision) },
    remedy: "Check the address of the Hub (HF_ENDPOINT) and any proxy before it.",
    cause,
  });
}

/** The refusal of what would need the network. */
export function notInCache(repository: Repository, revision: string, problem: string): HubError {
  return new HubError("ZA_HUB_OFFLINE", `${problem}, and asking the Hub is switched off`, {
    place: { file: shownPath(repository, revision) },
    remedy: "Download it once with HF_HUB_OFFLINE unset and without offline: true; the revision must be the same.",
  });
}
