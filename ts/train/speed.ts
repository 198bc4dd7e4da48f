/** How fast a run is: operations of its steps, and the fastest that this machine multiplies matrices. */
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { cpus } from "node:os";
import { dirname, join } from "node:path";
import type { NativeBatch } from "../../bindings/node/index";
import { cacheFolder } from "../data/cache-folder";
import { fromNative } from "../errors";
import type { Device } from "../native/devices";
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
 * Floating-point operations a second of matrix products: on the CPU of f32 by our own kernel on this many threads, on a card of
 * the run's precision by cublasLt. Measured once for a processor, a number of threads and a version, and kept in the cache;
 * undefined when the run does not want it.
 */
export async function gemmPeak(config: TrainConfig, device: Device): Promise<number | undefined> {
  if (!config.measurePeak) return undefined;
  const { file, key } = placeOf(config, device);
  const kept = (await readPeaks(file))[key];
  if (typeof kept === "number" && kept > 0) return kept;
  const measured = await native()
    .measureGemmPeak(measuring, device.kind === "cuda" ? device.index : null, config.precision)
    .catch((error) => {
      throw fromNative(error);
    });
  await keepPeaks(file, { ...(await readPeaks(file)), [key]: measured });
  return measured;
}

/** Forgets a peak that was none: the next run measures it again. */
export async function forgetPeak(config: TrainConfig, device: Device): Promise<undefined> {
  const { file, key } = placeOf(config, device);
  const { [key]: _, ...others } = await readPeaks(file);
  await keepPeaks(file, others);
}

function placeOf({ threads, precision }: TrainConfig, device: Device): { file: string; key: string } {
  const file = join(cacheFolder(), "gemm-peak.json");
  if (device.kind === "cuda") {
    return { file, key: `${device.name} ${device.uuid}, ${precision}, ${packageVersion()}` };
  }
  const count = threads ?? native().nativeInfo().threads;
  const processor = cpus()[0]?.model.trim() ?? process.arch;
  return { file, key: `${processor}, ${count} threads, ${packageVersion()}` };
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
