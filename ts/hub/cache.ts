/**
 * The Hub's cache as huggingface_hub lays it out, so that Python and this package share what each has downloaded:
 *
 *     <cache>/datasets--org--name/refs/<revision>             the commit that a branch or tag was last seen at
 *                                 blobs/<etag>                contents: SHA-256 of large files, git's SHA-1 of others
 *                                 snapshots/<commit>/<path>   links to blobs; the files themselves where links cannot be made
 *                                 trees/<commit>.json         the files of a commit
 */
import { randomBytes } from "node:crypto";
import { copyFile, mkdir, readdir, readFile, readlink, rename, rm, stat, symlink, writeFile } from "node:fs/promises";
import { dirname, join, relative, sep } from "node:path";
import { folderName, isCommit, type Repository } from "./repository";
import type { HubSettings } from "./settings";

/** A file of a commit. */
export interface HubFile {
  path: string;
  size: number;
  /** Name of the blob: the SHA-256 of a large file's content, else git's object id. */
  etag: string;
  /** Of large files (64 hexadecimal digits), else git's SHA-1 (40). */
  algorithm: "sha256" | "git-sha1";
  /** Kept for huggingface_hub. */
  tree: TreeEntry;
}

/** A file in `trees/<commit>.json`. */
export interface TreeEntry {
  size: number;
  blob_id: string;
  lfs_sha256?: string;
  lfs_size?: number;
  xet_hash?: string;
}

const treeVersion = 1;

/** A repository's folder in the cache. */
export class RepositoryCache {
  readonly folder: string;
  /** Beside the repositories, as huggingface_hub has it. */
  readonly locks: string;

  constructor(
    repository: Repository,
    readonly settings: HubSettings,
  ) {
    this.folder = join(settings.cacheDir, folderName(repository));
    this.locks = join(settings.cacheDir, ".locks", folderName(repository));
  }

  blob(file: HubFile): string {
    return join(this.folder, "blobs", file.etag);
  }

  snapshot(commit: string, path = ""): string {
    return join(this.folder, "snapshots", commit, ...path.split("/"));
  }

  /** The commit of a revision when it was last asked for. */
  async knownCommit(revision: string): Promise<string | undefined> {
    if (isCommit(revision)) return revision;
    const text = await readText(join(this.folder, "refs", ...revision.split("/")));
    const found = text?.trim();
    return found && isCommit(found) ? found : undefined;
  }

  async rememberCommit(revision: string, commit: string): Promise<void> {
    if (isCommit(revision) || (await this.knownCommit(revision)) === commit) return;
    await replaceFile(join(this.folder, "refs", ...revision.split("/")), commit);
  }

  /** The files of a commit when they were listed before. */
  async knownFiles(commit: string): Promise<HubFile[] | undefined> {
    const text = await readText(join(this.folder, "trees", `${commit}.json`));
    try {
      const { format_version, files } = JSON.parse(text ?? "null");
      if (format_version !== treeVersion) return undefined;
      return Object.entries(files as Record<string, TreeEntry>).map(([path, entry]) => hubFile(path, entry));
    } catch {
      return undefined;
    }
  }

  async rememberFiles(commit: string, files: readonly HubFile[]): Promise<void> {
    const byPath = Object.fromEntries(files.map(({ path, tree }) => [path, tree]));
    const text = JSON.stringify({ format_version: treeVersion, files: byPath }, null, 1);
    await replaceFile(join(this.folder, "trees", `${commit}.json`), text);
  }

  /** The files of a commit that were downloaded, by whomever. */
  async filesPresent(commit: string): Promise<HubFile[]> {
    const folder = this.snapshot(commit);
    const names = await readdir(folder, { recursive: true }).catch(() => []);
    const files: HubFile[] = [];
    for (const name of names.sort()) {
      const size = await sizeOf(join(folder, name));
      if (size !== undefined) files.push(hubFile(name.split(sep).join("/"), { size, blob_id: "" }));
    }
    return files;
  }

  /** Whether a file of a commit is there, whole. */
  async has(commit: string, { path, size }: HubFile): Promise<boolean> {
    return (await sizeOf(this.snapshot(commit, path))) === size;
  }

  /** Gives the blob of a file its name in a commit's snapshot. */
  async link(commit: string, file: HubFile, isNew: boolean): Promise<void> {
    const target = this.snapshot(commit, file.path);
    const blob = this.blob(file);
    await mkdir(dirname(target), { recursive: true });
    if (this.settings.symlinks) {
      const to = relative(dirname(target), blob);
      try {
        await rm(target, { force: true });
        await symlink(to, target);
        return;
      } catch (error) {
        // Another process was faster.
        if ((await readlink(target).catch(() => undefined)) === to) return;
        if (!["EPERM", "ENOSYS", "EOPNOTSUPP", "EINVAL"].includes((error as NodeJS.ErrnoException).code ?? ""))
          throw error;
      }
    }
    // As huggingface_hub: a new file is moved; one that others may refer to is copied.
    if (isNew) await rename(blob, target);
    else {
      const copy = hiddenName(target);
      await copyFile(blob, copy);
      await rename(copy, target);
    }
  }
}

/** A listed file with the names that the cache has for it. */
export function hubFile(path: string, tree: TreeEntry): HubFile {
  const { lfs_sha256: sha256 } = tree;
  return {
    path,
    size: sha256 === undefined ? tree.size : (tree.lfs_size ?? tree.size),
    etag: sha256 ?? tree.blob_id,
    algorithm: sha256 === undefined ? "git-sha1" : "sha256",
    tree,
  };
}

/** Writes under another name first: what has its name is complete. */
async function replaceFile(path: string, text: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  const writing = hiddenName(path);
  try {
    await writeFile(writing, text);
    await rename(writing, path);
  } finally {
    await rm(writing, { force: true });
  }
}

function hiddenName(path: string): string {
  return `${path}.${randomBytes(6).toString("hex")}.tmp`;
}

async function readText(path: string): Promise<string | undefined> {
  return readFile(path, "utf8").catch(() => undefined);
}

/** Bytes of a file; undefined when there is none. Links are followed. */
export async function sizeOf(path: string): Promise<number | undefined> {
  const found = await stat(path).catch(() => undefined);
  return found?.isFile() ? found.size : undefined;
}
