import { homedir } from "node:os";
import { join } from "node:path";

/**
 * Where what can be made again is kept: `$ZEPHYR_CACHE`, else `$XDG_CACHE_HOME/zephyr-align`, else
 * `~/.cache/zephyr-align`. It may be removed at any time.
 */
export function cacheFolder(): string {
  const { ZEPHYR_CACHE: own, XDG_CACHE_HOME: home } = process.env;
  return own || join(home || join(homedir(), ".cache"), "zephyr-align");
}
