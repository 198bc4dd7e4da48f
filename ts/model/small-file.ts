/** Files beside the weights: read whole, and refused where they are larger than any such file is. */
import { errorFromCode, type ZephyrError } from "../errors";

/** The core's limit for config.json and the index of shards too. */
export const mostSmallBytes = 64 * 2 ** 20;

/** What is said of a file that is larger. */
export function tooLargeToBeSmall(code: string, file: string, bytes: number): ZephyrError {
  const problem = `${bytes} bytes are too many for this file: the limit is ${mostSmallBytes}`;
  return errorFromCode(code, problem, { place: { file }, remedy: "Download or convert the model again." });
}
