import { fromNative } from "../errors";
import { native } from "../native/load";

/**
 * Sets the number of compute threads for all following work of this process. The same number gives the same bits.
 *
 * @throws ConfigError `ZA_THREADS` outside 1 to 1024.
 */
export function setThreads(threads: number): void {
  try {
    native().setThreads(threads);
  } catch (error) {
    throw fromNative(error);
  }
}
