import { aborted, fromNative, throwIfAborted } from "../errors";
import { native } from "../native/load";

/** Runs work that a signal stops through the core's own flag. */
export async function abortable<T>(
  signal: AbortSignal | undefined,
  work: (abort: InstanceType<ReturnType<typeof native>["NativeAbort"]>) => Promise<T>,
): Promise<T> {
  throwIfAborted(signal);
  const abort = new (native().NativeAbort)();
  const stop = () => abort.abort();
  signal?.addEventListener("abort", stop, { once: true });
  try {
    return await work(abort);
  } catch (error) {
    throw signal?.aborted ? aborted(signal.reason) : fromNative(error);
  } finally {
    signal?.removeEventListener("abort", stop);
  }
}
