/** Exit codes of a program that a signal ended, as shells give them. */
const endedBy = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;

/**
 * Runs work with a signal that fires at Ctrl-C, SIGTERM, or when the terminal is closed (SIGHUP). The work ends by itself,
 * within a layer, and is saved; a second one ends the process at once.
 *
 * What comes when the work is over, while the process ends, no longer makes its success a failure: the handlers stay.
 *
 * Node takes back what nohup sets, which also leads the output elsewhere: without a terminal SIGHUP is passed over.
 */
export async function interruptible<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  let over = false;
  const stop = (name: keyof typeof endedBy) => {
    if (controller.signal.aborted) process.exit(endedBy[name]);
    if (!over) process.stderr.write(`${process.stderr.isTTY ? "\r\x1b[2K" : ""}stopping (once more stops at once)\n`);
    controller.abort();
  };
  const unhung = !process.stdout.isTTY && !process.stderr.isTTY;
  for (const name of Object.keys(endedBy) as (keyof typeof endedBy)[]) {
    process.on(name, name === "SIGHUP" && unhung ? () => {} : stop);
  }
  try {
    return await work(controller.signal);
  } finally {
    over = true;
  }
}
