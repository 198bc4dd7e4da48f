/**
 * Runs `work` on items, at most `limit` at once, and yields the results in the order of the items: what is written does
 * not depend on who answers first. No item is drawn more than `limit` ahead of the reader. The first failure ends it, after
 * the work under way has ended (their answers are paid for, and must reach the journal).
 */
export async function* concurrently<T, R>(
  items: Iterable<T> | AsyncIterable<T>,
  limit: number,
  work: (item: T, index: number) => Promise<R>,
): AsyncGenerator<R> {
  const waiting: Promise<R>[] = [];
  let index = 0;
  try {
    for await (const item of items) {
      const running = work(item, index++);
      running.catch(() => {}); // Seen when its turn comes.
      waiting.push(running);
      if (waiting.length >= limit) yield await waiting.shift()!;
    }
    while (waiting.length > 0) yield await waiting.shift()!;
  } finally {
    await Promise.allSettled(waiting);
  }
}
