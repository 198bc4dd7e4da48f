import { aborted, throwIfAborted } from "../errors";

/** The longest time that one timer can measure; beyond it Node's fires at once. */
const longest = 2 ** 31 - 1;

/**
 * Waits so many milliseconds, however many.
 *
 * @throws AbortedError when the signal fires before.
 */
export async function wait(milliseconds: number, signal?: AbortSignal): Promise<void> {
  for (let left = milliseconds; left > 0; left -= longest) await pause(Math.min(left, longest), signal);
  throwIfAborted(signal);
}

function pause(milliseconds: number, given: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const signal = given && ofOneCall(given);
    throwIfAborted(signal);
    const stop = () => {
      clearTimeout(timer);
      reject(aborted(signal?.reason));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, milliseconds);
    signal?.addEventListener("abort", stop, { once: true });
  });
}

/** A signal that fires with another. Node warns of more than ten listeners on one, and thousands of calls may share it. */
export function ofOneCall(...signals: AbortSignal[]): AbortSignal {
  return AbortSignal.any(signals);
}

/** What `work` gives, or AbortedError as soon as the signal fires; `work` itself goes on. */
export async function unlessAborted<T>(work: Promise<T>, given: AbortSignal | undefined): Promise<T> {
  if (!given) return work;
  work.catch(() => {}); // Nobody may be left to see it.
  const signal = ofOneCall(given);
  throwIfAborted(signal);
  let stop = () => {};
  const stopped = new Promise<never>((_, reject) => {
    stop = () => reject(aborted(signal.reason));
    signal.addEventListener("abort", stop, { once: true });
  });
  try {
    return await Promise.race([work, stopped]);
  } finally {
    signal.removeEventListener("abort", stop);
  }
}

/** A signal that fires when all have; undefined when one of them never can. */
export function ofAllCalls(given: readonly (AbortSignal | undefined)[]): AbortSignal | undefined {
  const signals = [...new Set(given)];
  if (signals.length === 1 || signals.includes(undefined)) return signals.length === 1 ? signals[0] : undefined;
  const all = new AbortController();
  let left = signals.length;
  for (const signal of signals) {
    const gone = () => {
      left--;
      if (left === 0) all.abort(signal?.reason);
    };
    if (signal?.aborted) gone();
    else signal?.addEventListener("abort", gone, { once: true });
  }
  return all.signal;
}
