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
  navigator?: { hardwareConcurrency?: number; storage?: { getDirectory?: () => Promise<PrivateFolder> } };
  SharedArrayBuffer?: unknown;
  crossOriginIsolated?: boolean;
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

/** What is used of Node's own modules. */
interface NodeBuiltins {
  "node:fs": {
    existsSync(path: URL): boolean;
    openAsBlob(path: URL): Promise<Blob>;
    readFileSync(path: URL): Uint8Array;
  };
  "node:os": { availableParallelism(): number };
  "node:worker_threads": {
    Worker: new (
      script: URL,
      options: { name: string; execArgv: string[] },
    ) => {
      on(type: "message", listener: (data: unknown) => void): void;
      on(type: "error" | "messageerror", listener: (error: Error) => void): void;
      on(type: "exit", listener: (code: number) => void): void;
      postMessage(message: unknown): void;
      terminate(): void;
    };
    parentPort: {
      postMessage(message: unknown): void;
      on(type: "message", listener: (data: unknown) => void): void;
    } | null;
  };
}

/** A module of Node where this is Node: asked for by name, so that no bundler of a web page finds it. */
export function nodeBuiltin<Name extends keyof NodeBuiltins>(name: Name): NodeBuiltins[Name] | undefined {
  return platform.process?.getBuiltinModule?.(name) as NodeBuiltins[Name] | undefined;
}

/** A thread of Node, as a worker. */
export function nodeWorker(script: URL): WorkerLike {
  const { Worker } = nodeBuiltin("node:worker_threads")!;
  // Flags of the process may be meant for its own script.
  const worker = new Worker(script, { name: "zephyr-align", execArgv: [] });
  return {
    postMessage: (message) => worker.postMessage(message),
    addEventListener: (type, listener) => {
      if (type === "message") worker.on("message", (data) => listener({ data }));
      else worker.on(type, ({ message }) => listener({ message }));
      // A thread that ends unasked broke off, by whatever.
      if (type === "error") worker.on("exit", (code) => listener({ message: `it ended with code ${code}` }));
    },
    terminate: () => void worker.terminate(),
  };
}

/** The scope of the worker whose script this is. */
export function workerScope(): WorkerScope {
  const port = nodeBuiltin("node:worker_threads")?.parentPort;
  if (!port) return globalThis as unknown as WorkerScope;
  return {
    postMessage: (message) => port.postMessage(message),
    addEventListener: (type, listener) => port.on(type, (data) => listener({ data })),
  };
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
