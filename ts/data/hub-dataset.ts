/** Data sets of the Hub: found by id, revision, configuration and split; downloaded into the Hub's cache, or read in ranges. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { HubFile } from "../hub/cache";
import { hubRequest, notHereEither } from "../hub/hub-request";
import { type Listing, listFiles } from "../hub/listing";
import { checkedRevision, fileUrl, isRepositoryId, type Repository, repository, shownPath } from "../hub/repository";
import { type HubOptions, type HubSettings, hubSettings } from "../hub/settings";
import { download } from "../hub/snapshot";
import { ofFiles } from "./concatenated";
import type { Dataset } from "./dataset-type";
import { deferred } from "./deferred";
import { FileBytes } from "./file-bytes";
import { globMatcher } from "./glob";
import { HttpBytes } from "./http-bytes";
import type { ReaderName } from "./open-file";
import { checkShards, findSplit } from "./splits";

/** Which part of which revision, and how it is read. */
export interface HubDatasetOptions {
  split?: string | undefined;
  config?: string | undefined;
  revision?: string | undefined;
  stream?: boolean | undefined;
  reader?: ReaderName | undefined;
  hub?: HubOptions | undefined;
}

/** A repository, and what an `hf://` address may say besides. */
export interface HubAddress {
  id: string;
  revision?: string;
  /** A file or a pattern of files. */
  path?: string;
}

/** A revision with slashes is one of the Hub's own refs, or written with %2F, as in Python. */
const addressForm = /^hf:\/\/datasets\/([^/@]+\/[^/@]+)(?:@(refs\/(?:convert|pr)\/[^/]+|[^/]+))?(?:\/(.+))?$/;

/**
 * The Hub's address in a text: `org/name`, or as in Python `hf://datasets/org/name@revision/path`. Undefined when it is
 * none; whether a file is called so is for the caller to see.
 */
export function hubAddress(text: string): HubAddress | undefined {
  const [, repositoryId, revision, path] = addressForm.exec(text) ?? [];
  if (repositoryId !== undefined) {
    return {
      id: repositoryId,
      ...(revision ? { revision: decodeURIComponent(revision) } : {}),
      ...(path ? { path } : {}),
    };
  }
  return isRepositoryId(text) ? { id: text } : undefined;
}

/** Opens a data set of the Hub. Nobody is asked before the first use. */
export function hubDataset(address: HubAddress, options: HubDatasetOptions): Dataset<unknown> {
  const repo = repository("datasets", address.id);
  const revision = checkedRevision(options.revision ?? address.revision ?? "main");
  const what = address.path ? `/${address.path}` : options.split ? ` (${options.split})` : "";
  const name = `${shownPath(repo, revision)}${what}`;
  return deferred(name, async () => {
    const settings = hubSettings(options.hub);
    const listing = await listFiles(repo, revision, settings).catch((error) => {
      throw notHereEither(error, address.id);
    });
    const paths = await chosenPaths(repo, listing, address.path, options, settings);
    const parts = options.stream
      ? streamed(repo, listing, paths, settings)
      : await downloaded(repo, listing, paths, settings);
    return ofFiles(parts, name, options.reader);
  });
}

async function chosenPaths(
  repo: Repository,
  listing: Listing,
  pattern: string | undefined,
  { split, config }: HubDatasetOptions,
  settings: HubSettings,
): Promise<string[]> {
  const source = shownPath(repo, listing.commit);
  const paths = listing.files.map(({ path }) => path);
  if (pattern !== undefined) {
    const files = paths.filter(globMatcher(pattern)).sort();
    return findSplit({ source: `${source}/${pattern}`, paths: files, split, ...(split ? {} : { card: onePart }) })
      .files;
  }
  const hasCard = paths.includes("README.md");
  const { folder } = await download(repo, listing, (path) => path === "README.md", settings);
  const card = hasCard ? await readFile(join(folder, "README.md"), "utf8") : undefined;
  const found = findSplit({ source, paths, card, config, split });
  if (!listing.complete) checkShards(source, found);
  return found.files;
}

/** A card that makes all files one split: a pattern has chosen them already. */
const onePart = '---\nconfigs:\n- config_name: default\n  data_files: "**"\n---\n';

async function downloaded(repo: Repository, listing: Listing, paths: string[], settings: HubSettings) {
  const wanted = new Set(paths);
  const { folder, commit } = await download(repo, listing, (path) => wanted.has(path), settings);
  return paths.map((path) => new FileBytes(join(folder, ...path.split("/")), shownPath(repo, commit, path)));
}

function streamed(repo: Repository, listing: Listing, paths: string[], settings: HubSettings) {
  const files = new Map(listing.files.map((file) => [file.path, file]));
  return paths.map((path) => httpBytes(repo, listing.commit, files.get(path)!, settings));
}

function httpBytes(repo: Repository, commit: string, { path, size, etag }: HubFile, settings: HubSettings): HttpBytes {
  const url = fileUrl(settings.endpoint, repo, commit, path);
  const subject = { repository: repo, revision: commit, path, settings };
  return new HttpBytes(url, {
    name: shownPath(repo, commit, path),
    size,
    identity: etag,
    get: (headers) => hubRequest(url, { ...subject, headers }),
    signal: settings.signal,
  });
}
