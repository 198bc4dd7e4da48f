/** One file of a repository into the cache: resumed where an earlier attempt broke off, verified before it counts. */
import { createHash, type Hash } from "node:crypto";
import { createReadStream } from "node:fs";
import { type FileHandle, mkdir, open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { fromNative, HubError, throwIfAborted } from "../errors";
import { type HubFile, type RepositoryCache, sizeOf } from "./cache";
import { hubRequest, unreachable } from "./hub-request";
import { withLock } from "./lock";
import { fileUrl, type Repository, shownPath } from "./repository";
import { bodyOf, networkProblem, patience, pause, RequestFailure } from "./request";

/**
 * Makes a file of a commit present in the cache.
 *
 * The content goes to `blobs/<etag>.zephyr-incomplete`, which an interrupted attempt leaves behind and the next one goes on
 * with (Range, and If-Range where the server's own etag is known). When it has the listed size and hash it is flushed and
 * renamed; until then no name says that it is there. One process at a time works on a blob.
 *
 * @param onBytes called with the bytes that are there, as they grow
 * @throws HubError, IoError (`ZA_DISK_FULL`), AbortedError
 */
export async function downloadFile(
  repository: Repository,
  commit: string,
  file: HubFile,
  cache: RepositoryCache,
  onBytes: (loaded: number) => void = () => {},
): Promise<void> {
  const blob = cache.blob(file);
  if ((await sizeOf(blob)) === file.size) {
    await cache.link(commit, file, false);
    return;
  }
  const download = new Download(repository, commit, file, cache, onBytes);
  try {
    await withLock(`${cache.locks}/${file.etag}.zephyr`, cache.settings.signal, async () => {
      // Another process may have been faster.
      if ((await sizeOf(blob)) !== file.size) await download.run(blob);
      await cache.link(commit, file, true);
    });
  } catch (error) {
    throw fromNative(error, { file: shownPath(repository, commit, file.path) });
  }
}

class Download {
  #loaded = 0;
  #hash: Hash;
  /** The etag of the server that sends the content, for If-Range. */
  #etag: string | null = null;

  constructor(
    readonly repository: Repository,
    readonly commit: string,
    readonly file: HubFile,
    readonly cache: RepositoryCache,
    readonly onBytes: (loaded: number) => void,
  ) {
    this.#hash = hashOf(file);
  }

  async run(blob: string): Promise<void> {
    const incomplete = `${blob}.zephyr-incomplete`;
    await mkdir(dirname(blob), { recursive: true });
    const resumed = await this.#takeUp(incomplete);
    for (;;) {
      const handle = await open(incomplete, this.#loaded > 0 ? "r+" : "w");
      try {
        await this.#fetch(handle);
        await handle.sync();
      } finally {
        await handle.close();
      }
      const found = this.#hash.digest("hex");
      if (found === this.file.etag) break;
      await rm(incomplete, { force: true });
      // What an earlier attempt left may have been wrong; a second failure is the server's.
      if (!resumed || this.#restarted)
        throw this.#wrong(`its ${this.file.algorithm} is ${found}, listed is ${this.file.etag}`);
      this.#restart();
      this.#restarted = true;
    }
    await rename(incomplete, blob);
  }

  #restarted = false;

  /** Goes on with what an interrupted attempt left. */
  async #takeUp(incomplete: string): Promise<boolean> {
    const size = (await sizeOf(incomplete)) ?? 0;
    if (size === 0 || size > this.file.size) {
      await rm(incomplete, { force: true });
      return false;
    }
    for await (const part of createReadStream(incomplete)) {
      throwIfAborted(this.cache.settings.signal);
      this.#hash.update(part);
    }
    this.#loaded = size;
    this.onBytes(size);
    return true;
  }

  #restart(): void {
    this.#loaded = 0;
    this.#hash = hashOf(this.file);
    this.#etag = null;
    this.onBytes(0);
  }

  /** Appends until the file has its size; a connection that is cut is taken up again, as long as something arrives. */
  async #fetch(handle: FileHandle): Promise<void> {
    const { size } = this.file;
    for (let idle = 0; this.#loaded < size; ) {
      const before = this.#loaded;
      let problem = "the connection ended early";
      try {
        await this.#fetchOnce(handle);
      } catch (error) {
        // Only what the network did; refusals, full disks and aborts are final.
        if (!(error instanceof CutOff)) throw error;
        problem = error.message;
      }
      if (this.#loaded >= size) break;
      idle = this.#loaded > before ? 1 : idle + 1;
      if (idle >= patience.attempts) {
        const failure = new RequestFailure(new URL(this.#url).origin, `${problem} at byte ${this.#loaded} of ${size}`);
        throw unreachable(this.#subject(), failure);
      }
      await pause(idle, undefined, this.cache.settings.signal);
    }
    if (this.#loaded > size) throw this.#wrong(`it has more than the listed ${size} bytes`);
  }

  async #fetchOnce(handle: FileHandle): Promise<void> {
    const from = this.#loaded;
    const response = await hubRequest(this.#url, {
      ...this.#subject(),
      headers: from > 0 ? { range: `bytes=${from}-`, ...(this.#etag ? { "if-range": this.#etag } : {}) } : {},
    });
    if (response.status === 416) throw this.#wrong(`the server has fewer than the listed ${this.file.size} bytes`);
    // A server that ignores the range, or whose content is another now, sends all of it.
    if (from > 0 && response.status === 200) {
      this.#restart();
      await handle.truncate(0);
    } else if (from > 0 && rangeStart(response) !== from)
      throw this.#wrong("the server sent another range than asked for");
    const etag = response.headers.get("etag");
    this.#etag = etag && !etag.startsWith("W/") ? etag : null;
    const body = bodyOf(response);
    for (;;) {
      throwIfAborted(this.cache.settings.signal);
      const next = await body.next().catch((error) => {
        throwIfAborted(this.cache.settings.signal);
        throw new CutOff(networkProblem(error));
      });
      if (next.done) return;
      const part = next.value;
      if (this.#loaded + part.length > this.file.size) {
        await body.return(undefined);
        throw this.#wrong(`it has more than the listed ${this.file.size} bytes`);
      }
      await writeAll(handle, part, this.#loaded);
      this.#hash.update(part);
      this.#loaded += part.length;
      this.onBytes(this.#loaded);
    }
  }

  get #url(): string {
    return fileUrl(this.cache.settings.endpoint, this.repository, this.commit, this.file.path);
  }

  #subject() {
    return { repository: this.repository, revision: this.commit, path: this.file.path, settings: this.cache.settings };
  }

  #wrong(problem: string): HubError {
    return new HubError("ZA_HUB_DIGEST", `the file that was sent is not the one listed: ${problem}`, {
      place: { file: shownPath(this.repository, this.commit, this.file.path) },
      remedy: "Try again; if it stays so, the mirror or a proxy changes files.",
    });
  }
}

class CutOff extends Error {}

/** Git hashes a header with the length before the content. */
function hashOf({ algorithm, size }: HubFile): Hash {
  return algorithm === "sha256" ? createHash("sha256") : createHash("sha1").update(`blob ${size}\0`);
}

async function writeAll(handle: FileHandle, part: Uint8Array, at: number): Promise<void> {
  for (let written = 0; written < part.length; ) {
    const { bytesWritten } = await handle.write(part, written, part.length - written, at + written);
    written += bytesWritten;
  }
}

function rangeStart(response: Response): number | undefined {
  const found = /^bytes (\d+)-/.exec(response.headers.get("content-range") ?? "")?.[1];
  return found === undefined ? undefined : Number(found);
}
