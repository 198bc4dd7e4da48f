/** How fast a run is: operations of its steps, and the fastest that this machine multiplies matrices. */
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { cpus } from "node:os";
import { dirname, join } from "node:path";
import type { NativeBatch } from "../../bindings/node/index";
import { cacheFolder } from "../data/cache-folder";
import { fromNative } from "../errors";
import { native, packageVersion } from "../native/load";
import type { Run, TrainConfig } from "./run";

/** Counts the operations of a micro-batch that is trained on. */
export function counted(run: Run, batch: NativeBatch): NativeBatch {
  run.flops += batch.trainingFlops(run.model.native);
  return batch;
}

/** Seconds that a measurement may take, beside the first products. */
const measuring = 0.3;

/**
 * Floating-point operations a second of f32 matrix products by our own kernel on this many threads. Measured once for a
 * processor, a number of threads and a version, and kept in the cache; undefined when the run does not want it.
 */
export async function gemmPeak(config: TrainConfig): Promise<number | undefined> {
  if (!config.measurePeak) return undefined;
  const { file, key } = placeOf(config);
  const kept = (await readPeaks(file))[key];
  if (typeof kept === "number" && kept > 0) return kept;
  const measured = await native()
    .measureGemmPeak(measuring)
    .catch((error) => {
      throw fromNative(error);
    });
  await keepPeaks(file, { ...(await readPeaks(file)), [key]: measured });
  return measured;
}

/** Forgets a peak that was none: the next run measures it again. */
export async function forgetPeak(config: TrainConfig): Promise<undefined> {
  const { file, key } = placeOf(config);
  const { [key]: _, ...others } = await readPeaks(file);
  await keepPeaks(file, others);
}

function placeOf({ threads }: TrainConfig): { file: string; key: string } {
  const count = threads ?? native().nativeInfo().threads;
  const processor = cpus()[0]?.model.trim() ?? process.arch;
  return { file: join(cacheFolder(), "gemm-peak.json"), key: `${processor}, ${count} threads, ${packageVersion()}` };
}

async function readPeaks(file: string): Promise<Record<string, unknown>> {
  try {
    const peaks = JSON.parse(await readFile(file, "utf8"));
    return typeof peaks === "object" && peaks !== null ? peaks : {};
  } catch {
    // None yet, or damaged: it is measured again.
    return {};
  }
}

/** A cache that cannot be written costs a measurement next time, nothing else. */
async function keepPeaks(file: string, peaks: Record<string, unknown>): Promise<void> {
  const unfinished = `${file}.${process.pid}.tmp`;
  try {
    await mkdir(dirname(file), { recursive: true });
    await writeFile(unfinished, `${JSON.stringify(peaks, null, 2)}\n`);
    await rename(unfinished, file);
  } catch {}
}
