/** Files of models in the origin's private file system (OPFS), by their address. What has no entry of its own is no whole file. */
import { type PrivateFile, type PrivateFolder, platform } from "./platform";

const folderName = "zephyr-align-models";

/** What is written down beside a file when it is whole. */
interface Entry {
  url: string;
  bytes: number;
  /** The server's mark of this state of the file, if it gave one. */
  etag: string | null;
  date: string;
}

/** A model's file in the cache. */
export interface CachedFile {
  url: string;
  bytes: number;
  /** When it was stored, ISO 8601. */
  date: string;
}

/** Where a file is written while it is used: never the reason why a loading fails. */
export interface CacheWriter {
  write(bytes: Uint8Array): Promise<void>;
  /** The file is whole. */
  close(): Promise<void>;
  abort(): Promise<void>;
}

async function folder(): Promise<PrivateFolder | undefined> {
  try {
    const root = await platform.navigator?.storage?.getDirectory?.();
    return await root?.getDirectoryHandle(folderName, { create: true });
  } catch {
    // Private windows and insecure origins have none.
    return undefined;
  }
}

async function nameOf(url: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(url));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function entryOf(place: PrivateFolder, name: string): Promise<Entry | undefined> {
  try {
    const file = await (await place.getFileHandle(`${name}.json`)).getFile();
    return JSON.parse(await file.text()) as Entry;
  } catch {
    return undefined;
  }
}

/** The whole file of an address, with the server's mark of it. */
export async function cached(url: string): Promise<{ file: File; etag: string | null } | undefined> {
  const place = await folder();
  if (!place) return undefined;
  const name = await nameOf(url);
  const entry = await entryOf(place, name);
  if (!entry) return undefined;
  try {
    const file = await (await place.getFileHandle(name)).getFile();
    return file.size === entry.bytes ? { file, etag: entry.etag } : undefined;
  } catch {
    return undefined;
  }
}

/** Begins to store a file; undefined where nothing can be stored. */
export async function store(url: string, etag: string | null): Promise<CacheWriter | undefined> {
  const place = await folder();
  if (!place) return undefined;
  const name = await nameOf(url);
  try {
    // The mark goes first, and comes back last: a file that is being written is not whole.
    await place.removeEntry(`${name}.json`).catch(() => {});
    const out = await open(await place.getFileHandle(name, { create: true }));
    let bytes = 0;
    let failed = false;
    const giveUp = async () => {
      failed = true;
      await out.abort().catch(() => {});
      await place.removeEntry(name).catch(() => {});
    };
    return {
      write: async (piece) => {
        if (failed) return;
        try {
          await out.write(piece);
          bytes += piece.length;
        } catch {
          // The quota is used up.
          await giveUp();
        }
      },
      close: async () => {
        if (failed) return;
        try {
          await out.close();
          const entry: Entry = { url, bytes, etag, date: new Date().toISOString() };
          const mark = await open(await place.getFileHandle(`${name}.json`, { create: true }));
          await mark.write(new TextEncoder().encode(JSON.stringify(entry)));
          await mark.close();
        } catch {
          await giveUp();
        }
      },
      abort: giveUp,
    };
  } catch {
    // Another page writes it now.
    return undefined;
  }
}

/** A file for writing: by the synchronous handle that workers have everywhere, else by the newer stream. */
async function open(file: PrivateFile): Promise<CacheWriter> {
  const handle = await file.createSyncAccessHandle?.().catch((error: unknown) => {
    if (file.createWritable) return undefined;
    throw error;
  });
  if (!handle) {
    const stream = await file.createWritable?.();
    if (!stream) throw new Error("this browser writes no private files");
    return stream;
  }
  handle.truncate(0);
  let at = 0;
  return {
    write: async (piece) => {
      const written = handle.write(piece, { at });
      if (written !== piece.length) throw new Error("the quota is used up");
      at += written;
    },
    close: async () => {
      handle.flush();
      handle.close();
    },
    abort: async () => handle.close(),
  };
}

/** The models that this origin keeps. */
export const modelCache = {
  /** Whole files, the oldest first. */
  async list(): Promise<CachedFile[]> {
    const place = await folder();
    const files: CachedFile[] = [];
    if (!place) return files;
    for await (const name of place.keys()) {
      const entry = name.endsWith(".json") ? await entryOf(place, name.slice(0, -".json".length)) : undefined;
      if (entry) files.push({ url: entry.url, bytes: entry.bytes, date: entry.date });
    }
    return files.sort((a, b) => a.date.localeCompare(b.date));
  },

  /** Deletes the file of an address. */
  async delete(url: string | URL): Promise<void> {
    const place = await folder();
    const name = await nameOf(String(url));
    for (const each of [`${name}.json`, name]) await place?.removeEntry(each).catch(() => {});
  },

  /** Deletes all, what was left unfinished too. */
  async clear(): Promise<void> {
    const root = await platform.navigator?.storage?.getDirectory?.();
    await root?.removeEntry(folderName, { recursive: true }).catch(() => {});
  },
};
