/** What is used of browsers beyond what Node has too, in types of its own: the package is compiled without those of the DOM. */

/** A worker, seen from outside. */
export interface WorkerLike {
  postMessage(message: unknown, transfer?: readonly unknown[]): void;
  addEventListener(type: "message" | "error" | "messageerror", listener: (event: WorkerEvent) => void): void;
  terminate(): void;
}

/** What a worker tells. */
export interface WorkerEvent {
  data?: unknown;
  message?: string;
  preventDefault?: () => void;
}

/** A worker's own global scope. */
export interface WorkerScope {
  postMessage(message: unknown): void;
  addEventListener(type: "message", listener: (event: { data: unknown }) => void): void;
}

/** A file of the origin's private file system. */
export interface PrivateFile {
  getFile(): Promise<File>;
  createWritable?(): Promise<{
    write(bytes: Uint8Array): Promise<void>;
    close(): Promise<void>;
    abort(): Promise<void>;
  }>;
  createSyncAccessHandle?(): Promise<{
    write(bytes: Uint8Array, options: { at: number }): number;
    truncate(bytes: number): void;
    flush(): void;
    close(): void;
  }>;
}

/** A folder of the origin's private file system. */
export interface PrivateFolder {
  getDirectoryHandle(name: string, options?: { create: boolean }): Promise<PrivateFolder>;
  getFileHandle(name: string, options?: { create: boolean }): Promise<PrivateFile>;
  removeEntry(name: string, options?: { recursive: boolean }): Promise<void>;
  keys(): AsyncIterable<string>;
}

interface Platform {
  Worker?: new (url: URL | string, options: { type: "module"; name: string }) => WorkerLike;
  WebAssembly?: { validate(bytes: Uint8Array): boolean; RuntimeError: new () => Error };
  document?: { baseURI: string };
  navigator?: { storage?: { getDirectory?: () => Promise<PrivateFolder> } };
  process?: { getBuiltinModule?: (name: string) => unknown };
  setImmediate?: (work: () => void) => void;
  MessageChannel: new () => { port1: Port; port2: Port };
}

interface Port {
  onmessage: () => void;
  postMessage(message: unknown): void;
  close(): void;
}

/** The global scope, whatever there is of it. */
export const platform = globalThis as unknown as Platform;

/** `node:fs` where this is Node: asked for by name, so that no bundler of a web page finds it. */
export function nodeFileSystem():
  | { openAsBlob(path: URL): Promise<Blob>; readFileSync(path: URL): Uint8Array }
  | undefined {
  return platform.process?.getBuiltinModule?.("node:fs") as ReturnType<typeof nodeFileSystem>;
}

/** Lets messages and timers of this thread in. */
export function turn(): Promise<void> {
  return new Promise((resolve) => {
    if (platform.setImmediate) {
      platform.setImmediate(resolve);
      return;
    }
    // Timers are held back by some milliseconds; messages are not.
    const { port1, port2 } = new platform.MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(undefined);
  });
}
