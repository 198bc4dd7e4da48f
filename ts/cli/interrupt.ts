/** Exit codes of a program that a signal ended, as shells give them. */
const endedBy = { SIGINT: 130, SIGTERM: 143 } as const;

/**
 * Runs work with a signal that fires at Ctrl-C or SIGTERM. The work ends by itself, between two micro-batches, and is
 * saved; a second one ends the process at once.
 */
export async function interruptible<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  const stop = (name: "SIGINT" | "SIGTERM") => {
    if (controller.signal.aborted) process.exit(endedBy[name]);
    process.stderr.write(`${process.stderr.isTTY ? "\r\x1b[2K" : ""}stopping (once more stops at once)\n`);
    controller.abort();
  };
  process.on("SIGINT", stop);
  process.on("SIGTERM", stop);
  try {
    return await work(controller.signal);
  } finally {
    process.off("SIGINT", stop);
    process.off("SIGTERM", stop);
  }
}
