/** When to try a call again: exponential backoff with full jitter (Brooker 2015, "Exponential Backoff And Jitter"). */

/** Longest first wait, and longest wait of all, in milliseconds. */
const first = 1_000;
const last = 60_000;

/**
 * Milliseconds to wait after a failed try, the first being 1. What the server asks for is always obeyed, however long;
 * a little is added, so that callers who were sent away together do not come back together.
 *
 * @param random a number in [0, 1)
 */
export function backoff(attempt: number, retryAfter: number | undefined, random: number): number {
  if (retryAfter !== undefined) return retryAfter + random * Math.min(first, retryAfter / 10);
  return random * Math.min(last, first * 2 ** (attempt - 1));
}

/**
 * Milliseconds that a server asks to wait: `retry-after-ms`, or `retry-after` in seconds or as a date. undefined when it
 * asks for nothing that can be understood.
 *
 * @param now milliseconds since 1970
 */
export function retryAfterOf(headers: { get(name: string): string | null }, now: number): number | undefined {
  const milliseconds = numberIn(headers.get("retry-after-ms"));
  if (milliseconds !== undefined) return milliseconds;
  const text = headers.get("retry-after");
  const seconds = numberIn(text);
  if (seconds !== undefined) return seconds * 1000;
  // A date of HTTP begins with the day of the week; Date.parse reads much else.
  const date = text !== null && /^[A-Za-z]/.test(text) ? Date.parse(text) : Number.NaN;
  return Number.isNaN(date) ? undefined : Math.max(0, date - now);
}

function numberIn(text: string | null): number | undefined {
  if (text === null || text.trim() === "") return undefined;
  const value = Number(text);
  return Number.isFinite(value) && value >= 0 ? value : undefined;
}
