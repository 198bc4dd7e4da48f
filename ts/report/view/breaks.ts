/** Milliseconds that work in the background may go on before requests are answered. */
const longestStretch = 15;

/** A function that work calls often: it gives something to wait for when it is time to let others work. */
export function breaks(): () => Promise<void> | undefined {
  let since = performance.now();
  return () => {
    if (performance.now() - since < longestStretch) return undefined;
    return new Promise((resolve) =>
      setImmediate(() => {
        since = performance.now();
        resolve();
      }),
    );
  };
}
