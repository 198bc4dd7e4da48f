import { duration, type ProgressStream } from "../train/progress";

/** Shares of the whole that are printed where there is no terminal. */
const steps = 10;

/**
 * Shows how many of a number are done: on a terminal one line that is written over, elsewhere a line for each tenth.
 *
 * @returns a function to call with what is done, and with a note; `done === total` ends the line
 */
export function countProgress(
  label: string,
  total: number | undefined,
  stream: ProgressStream = process.stderr,
): (done: number, note?: string) => void {
  const started = performance.now();
  let shown = 0;
  return (done, note = "") => {
    const seconds = (performance.now() - started) / 1000;
    const left = total !== undefined && done > 0 ? `  ETA ${duration((seconds / done) * (total - done))}` : "";
    const text = `${label} ${done}${total === undefined ? "" : `/${total}`}${left}${note ? `  ${note}` : ""}`;
    if (stream.isTTY === true) {
      stream.write(done === total ? "\r\x1b[2K" : `\r\x1b[2K${text.slice(0, (stream.columns || 80) - 1)}`);
      return;
    }
    const step = total === undefined ? Math.floor(done / 100) : Math.floor((done * steps) / total);
    if (step <= shown) return;
    shown = step;
    stream.write(`${text}\n`);
  };
}

/** The same for work that tells its total with each call; nothing when quiet. */
export function rowProgress(label: string, quiet = false): (done: number, total: number) => void {
  let show: ((done: number) => void) | undefined;
  return (done, total) => {
    if (quiet) return;
    show ??= countProgress(label, total);
    show(done);
  };
}
