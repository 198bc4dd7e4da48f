/** Exit code of a program that was stopped by Ctrl-C, as shells give it. */
export const interruptedExit = 130;

/**
 * Runs work with a signal that fires at Ctrl-C or SIGTERM. The work ends by itself, between two micro-batches; a second
 * Ctrl-C ends the process at once.
 */
export async function interruptible<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  const stop = () => {
    if (controller.signal.aborted) process.exit(interruptedExit);
    process.stderr.write(`${process.stderr.isTTY ? "\r\x1b[2K" : ""}stopping (Ctrl-C again stops at once)\n`);
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
