import { fromNative } from "../errors";
import { native } from "../native/load";
import { optionError, shown } from "./option-rules";

/**
 * Sets the number of compute threads for all following work of this process. The same number gives the same bits.
 *
 * @throws ConfigError `ZA_THREADS` outside 1 to 1024.
 */
export function setThreads(threads: number): void {
  if (!Number.isInteger(threads) || threads < 1) {
    throw optionError("ZA_THREADS", "threads", `threads is ${shown(threads)}`, "Take a whole number from 1 to 1024.");
  }
  try {
    native().setThreads(threads);
  } catch (error) {
    throw fromNative(error);
  }
}
