/** One HTTP request with retries, for the Hub and for data by address. */
import { setTimeout as sleep } from "node:timers/promises";
import { aborted, ZephyrError } from "../errors";

/** How often and how long is waited. Times in milliseconds. */
export const patience = {
  /** Attempts in all. */
  attempts: 6,
  /** The first pause; each following one may be twice as long. */
  firstPause: 500,
  longestPause: 10_000,
  /** A server that asks for a longer pause is not waited for. */
  longestRetryAfter: 300_000,
  /** Until the answer begins, and between two parts of it. */
  silence: 60_000,
};

/** The server could not be reached, or answered with a fault of its own, in all attempts. Says no more than host and path. */
export class RequestFailure extends Error {
  constructor(
    readonly address: string,
    problem: string,
    readonly status?: number,
    override readonly cause?: unknown,
  ) {
    super(problem);
  }
}

/** Headers of a request to an address; asked for each hop, so that a token is not sent to another host. */
export type HeadersFor = (url: URL) => Record<string, string>;

export interface RequestOptions {
  headers?: HeadersFor;
  signal?: AbortSignal | undefined;
}

/** Host and path: queries of signed addresses are secrets. */
export function shownAddress(url: string | URL): string {
  const { origin, pathname } = new URL(url);
  return origin + pathname;
}

/**
 * Sends a GET and follows redirects; tries again after network faults, 408, 425, 429 and 5xx, as long as the server asks for
 * by Retry-After, else with growing pauses of random length. Any other answer is given back.
 *
 * @throws RequestFailure, AbortedError
 */
export async function request(url: string, options: RequestOptions = {}): Promise<Response> {
  for (let attempt = 1; ; attempt++) {
    let wait: number | undefined;
    let failure: RequestFailure;
    try {
      const response = await follow(url, options);
      if (!isPassing(response.status)) return response;
      await response.body?.cancel().catch(() => {});
      wait = retryAfter(response.headers.get("retry-after"));
      failure = new RequestFailure(shownAddress(url), `the server answered ${response.status}`, response.status);
      if (wait !== undefined && wait > patience.longestRetryAfter) {
        const seconds = Math.round(wait / 1000);
        throw new RequestFailure(failure.address, `${failure.message} and asks to wait ${seconds} s`, response.status);
      }
    } catch (error) {
      if (options.signal?.aborted) throw aborted(options.signal.reason);
      if (error instanceof RequestFailure || error instanceof ZephyrError) throw error;
      failure = new RequestFailure(shownAddress(url), networkProblem(error), undefined, error);
    }
    if (attempt >= patience.attempts) throw failure;
    await pause(attempt, wait, options.signal);
  }
}

/** A pause before another attempt: as long as asked for, else of a random length that grows. */
export async function pause(
  attempt: number,
  asked: number | undefined,
  signal: AbortSignal | undefined,
): Promise<void> {
  const longest = Math.min(patience.longestPause, patience.firstPause * 2 ** (attempt - 1));
  await sleep(asked ?? longest * (0.5 + Math.random() / 2), undefined, signal ? { signal } : {}).catch(() => {
    throw aborted(signal?.reason);
  });
}

/** The parts of a body; silence for too long is a fault of the network. */
export async function* bodyOf(response: Response): AsyncGenerator<Uint8Array> {
  const reader = response.body?.getReader();
  if (!reader) return;
  try {
    for (;;) {
      const { done, value } = await withinSilence(reader.read());
      if (done) return;
      yield value;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

/** What went wrong on the way, in a few words. */
export function networkProblem(error: unknown): string {
  const { message, cause } = error as Error & { cause?: NodeJS.ErrnoException };
  const reason = cause?.code ?? cause?.message;
  return reason ? `the connection failed (${reason})` : `the connection failed (${message})`;
}

const maximumRedirects = 10;

/** Redirects by hand: each host gets only the headers meant for it. */
async function follow(url: string, { headers, signal }: RequestOptions): Promise<Response> {
  let target = new URL(url);
  for (let hop = 0; ; hop++) {
    const silence = new AbortController();
    const signals = signal ? AbortSignal.any([signal, silence.signal]) : silence.signal;
    const response = await withinSilence(
      fetch(target, {
        headers: { "accept-encoding": "identity", ...headers?.(target) },
        redirect: "manual",
        signal: signals,
      }),
    ).catch((error) => {
      silence.abort();
      throw error;
    });
    const location = response.headers.get("location");
    if (![301, 302, 303, 307, 308].includes(response.status) || location === null) return response;
    await response.body?.cancel().catch(() => {});
    if (hop >= maximumRedirects) throw new RequestFailure(shownAddress(url), "the server redirects again and again");
    const next = new URL(location, target);
    if (!["https:", "http:"].includes(next.protocol) || (target.protocol === "https:" && next.protocol === "http:")) {
      throw new RequestFailure(shownAddress(url), `the server redirects to ${next.protocol}//`);
    }
    target = next;
  }
}

function isPassing(status: number): boolean {
  return status === 408 || status === 425 || status === 429 || status >= 500;
}

/** Milliseconds that a Retry-After header asks for: seconds or a date. */
function retryAfter(header: string | null): number | undefined {
  if (header === null) return undefined;
  if (/^\d+$/.test(header.trim())) return Number(header) * 1000;
  const date = Date.parse(header);
  return Number.isNaN(date) ? undefined : Math.max(0, date - Date.now());
}

async function withinSilence<T>(work: Promise<T>): Promise<T> {
  const { promise, stop } = timeLimit(patience.silence);
  try {
    return await Promise.race([work, promise]);
  } finally {
    stop();
    work.catch(() => {});
  }
}

function timeLimit(milliseconds: number): { promise: Promise<never>; stop: () => void } {
  let timer: NodeJS.Timeout;
  const promise = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer for ${milliseconds / 1000} s`)), milliseconds);
  });
  promise.catch(() => {});
  return { promise, stop: () => clearTimeout(timer) };
}
