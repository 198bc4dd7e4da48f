import { mkdir, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { fromNative } from "../errors";

/** Writes what `--json FILE` asks for; numbers that are not finite become null. */
export async function writeJsonFile(path: string | undefined, value: unknown): Promise<void> {
  if (path === undefined) return;
  try {
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, `${JSON.stringify(value, null, 2)}\n`);
  } catch (error) {
    throw fromNative(error, { file: path });
  }
}

/** Largest memory that the process held, in MiB. */
export function peakMemory(): number {
  return Math.round(process.resourceUsage().maxRSS / 102.4) / 10;
}
