import { mkdir } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import type { NativeRunLock } from "../../bindings/node/index";
import { fromNative, throwIfAborted } from "../errors";
import { native } from "../native/load";

/** How often a lock that another process has is asked for again, in milliseconds. */
const interval = 200;

/** Works while it holds the lock of a folder; waits for the process that has it. A killed process holds nothing. */
export async function withLock<T>(folder: string, signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T> {
  await mkdir(folder, { recursive: true });
  const lock = await acquired(folder, signal);
  try {
    return await work();
  } finally {
    lock.release();
  }
}

async function acquired(folder: string, signal: AbortSignal | undefined): Promise<NativeRunLock> {
  for (;;) {
    throwIfAborted(signal);
    try {
      return new (native().NativeRunLock)(folder, `process ${process.pid}`);
    } catch (error) {
      const typed = fromNative(error);
      if (typed.code !== "ZA_FOLDER_LOCKED") throw typed;
    }
    await sleep(interval);
  }
}
