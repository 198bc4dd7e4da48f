import { mkdir, open, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { hostname } from "node:os";
import { join, resolve } from "node:path";
import type { NativeRunLock } from "../../bindings/node/index";
import { fromNative, IoError } from "../errors";
import { native } from "../native/load";
import { LineLog } from "./line-log";
import { tensorBoardFolder } from "./loggers/tensorboard";

/** How a run folder is opened. */
export interface RunFolderOptions {
  /** Go on in the folder of an earlier run. */
  resume?: boolean;
  /** Replace an earlier run: its own files are removed, others stay. */
  overwrite?: boolean;
}

/** A line of `metrics.jsonl`. */
export interface MetricsLine {
  step: number;
  [name: string]: number;
}

/** A line of `speed.jsonl`: what depends on the machine and the hour, and has no place in metrics.jsonl. */
export interface SpeedLine {
  step: number;
  /** Since the last logged step. */
  tokens_per_second: number;
  /** Floating-point operations a second that the steps needed, forward and backward. */
  flops_per_second: number;
  /** The same as a share of matrix products' peak on this machine, 0 to 1, where that is known. */
  peak_share?: number;
  /** Since this process made its first step. */
  seconds: number;
}

const configName = "config.json";
const metricsName = "metrics.jsonl";
const speedName = "speed.jsonl";
const reportName = "report.html";
const modelName = "model";
const adapterName = "adapter";

/** Log-probs of the reference: of the rows, of the held-out rows, and of the mismatched answers of KTO's estimate. */
export const referenceNames = {
  train: "reference.jsonl",
  eval: "reference-eval.jsonl",
  mismatched: "reference-mismatched.jsonl",
  evalMismatched: "reference-eval-mismatched.jsonl",
} as const;

const ownNames = [
  configName,
  metricsName,
  speedName,
  reportName,
  modelName,
  adapterName,
  "checkpoints",
  tensorBoardFolder,
  ...Object.values(referenceNames),
];

/** Held by the run that works in the folder; the file stays, the lock goes with the process. */
const lockName = ".lock";

/** Names of what is being written; they never look like a result. */
const unfinished = /^\..+\.(writing|replaced)$/;

/**
 * The folder of a run: `config.json` (resolved), `metrics.jsonl` (one line a logged step; the same bytes for the same
 * run), `speed.jsonl`, `report.html`, `model/` or `adapter/`, `checkpoints/`. Everything but the logs is written under a hidden name and
 * renamed when it is complete, so that a final name never holds half a file. One run at a time has the folder.
 */
export class RunFolder {
  readonly path: string;
  readonly #metrics: LineLog;
  readonly #speed: LineLog;
  #lock: NativeRunLock | undefined;

  private constructor(path: string) {
    this.path = path;
    this.#metrics = new LineLog(join(path, metricsName));
    this.#speed = new LineLog(join(path, speedName));
  }

  /**
   * Makes the folder, or opens that of an earlier run, and locks it.
   *
   * @param config written as `config.json`, unless resuming: {@link writeConfig} does that when the run may go on
   * @throws IoError `ZA_FOLDER_NOT_EMPTY` when the folder holds files and neither `resume` nor `overwrite` is set,
   * `ZA_FOLDER_LOCKED` when another run works in it
   */
  static async open(path: string, config: unknown, options: RunFolderOptions = {}): Promise<RunFolder> {
    const folder = new RunFolder(resolve(path));
    await folder
      .#guard(async () => {
        await mkdir(folder.path, { recursive: true });
        folder.#takeLock();
        await folder.#tidy();
        const names = (await readdir(folder.path)).filter((name) => name !== lockName);
        if (names.length > 0 && options.overwrite) {
          for (const name of ownNames) await rm(join(folder.path, name), { recursive: true, force: true });
        } else if (names.length > 0 && !options.resume) {
          throw new IoError("ZA_FOLDER_NOT_EMPTY", `the folder already holds ${names.slice(0, 3).join(", ")}`, {
            place: { file: folder.path },
            remedy: "Choose another outputDir, or give resume: true to go on, or overwrite: true to replace the run.",
          });
        }
        if (!options.resume) await folder.writeConfig(config);
      })
      .catch((error) => {
        folder.#releaseLock();
        throw error;
      });
    return folder;
  }

  get modelPath(): string {
    return join(this.path, modelName);
  }

  get reportPath(): string {
    return join(this.path, reportName);
  }

  get metricsPath(): string {
    return join(this.path, metricsName);
  }

  /** The configuration of the run in a folder, or undefined when there is none. */
  static async readConfig(path: string): Promise<unknown> {
    try {
      return JSON.parse(await readFile(join(path, configName), "utf8"));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
      throw fromNative(error, { file: join(path, configName) });
    }
  }

  /** Writes the resolved configuration. */
  async writeConfig(config: unknown): Promise<void> {
    await this.writeFile(configName, `${JSON.stringify(config, null, 2)}\n`);
  }

  /**
   * Adds a line to `metrics.jsonl`; numbers that are not finite are written as null.
   *
   * @returns false when the disk is full: the line waits in memory
   */
  async appendMetrics(line: MetricsLine): Promise<boolean> {
    return this.#guard(() => this.#metrics.append(line));
  }

  /** Adds a line to `speed.jsonl`. */
  async appendSpeed(line: SpeedLine): Promise<void> {
    await this.#guard(() => this.#speed.append(line));
  }

  /** Puts `metrics.jsonl` on the disk; returns its bytes. */
  async syncMetrics(): Promise<number> {
    return this.#guard(() => this.#metrics.sync());
  }

  /** Bytes of `metrics.jsonl`. */
  async metricsBytes(): Promise<number> {
    return stat(this.metricsPath).then(
      ({ size }) => size,
      () => 0,
    );
  }

  /** Cuts `metrics.jsonl` back to the whole lines of its first bytes. Returns the lines. */
  async cutMetrics(bytes: number): Promise<MetricsLine[]> {
    return this.#guard(async () => (await this.#metrics.cut(bytes)).map((line, row) => this.#parsed(line, row + 1)));
  }

  #parsed(line: string, row: number): MetricsLine {
    try {
      return JSON.parse(line, (_, value) => (value === null ? Number.NaN : value));
    } catch (error) {
      throw new IoError("ZA_IO", "the line is damaged", {
        place: { file: this.metricsPath, row },
        remedy: "Restore the file from a copy, or resume from one of the whole folder.",
        cause: error,
      });
    }
  }

  /** Writes a file of the folder whole: under a hidden name, to the disk, then renamed. */
  async writeFile(name: string, content: string | Uint8Array): Promise<string> {
    const path = join(this.path, name);
    const hidden = join(this.path, `.${name}.writing`);
    await this.#guard(async () => {
      const handle = await open(hidden, "w");
      try {
        await handle.writeFile(content);
        await handle.sync();
      } finally {
        await handle.close();
      }
      await rename(hidden, path);
      await syncFolder(this.path);
    }, hidden);
    return path;
  }

  /** Writes `report.html`. */
  async writeReport(html: string): Promise<string> {
    return this.writeFile(reportName, html);
  }

  /** Writes `model/`. `save` gets a fresh hidden folder to write into; it becomes `model/` when all is there. */
  async saveModel(save: (folder: string) => Promise<void>): Promise<string> {
    return this.saveFolder(modelName, save);
  }

  /** Writes a folder whole, as {@link saveModel}. An earlier one of that name is replaced. */
  async saveFolder(name: string, save: (folder: string) => Promise<void>): Promise<string> {
    const path = join(this.path, name);
    const hidden = join(this.path, `.${name.replaceAll("/", "-")}.writing`);
    const replaced = join(this.path, `.${name.replaceAll("/", "-")}.replaced`);
    await this.#guard(async () => {
      await rm(hidden, { recursive: true, force: true });
      await mkdir(hidden);
      await save(hidden);
      await mkdir(join(path, ".."), { recursive: true });
      if (await exists(path)) await rename(path, replaced);
      await rename(hidden, path);
      await syncFolder(join(path, ".."));
      await rm(replaced, { recursive: true, force: true });
    }, hidden);
    return path;
  }

  /** Puts the logs on the disk, closes them and lets go of the folder. */
  async close(): Promise<void> {
    await this.#guard(async () => {
      try {
        await this.#metrics.close();
        await this.#speed.close();
      } finally {
        this.#releaseLock();
      }
    });
  }

  #takeLock(): void {
    const holder = `process ${process.pid} on ${hostname()}, since ${new Date().toISOString()}`;
    this.#lock = new (native().NativeRunLock)(this.path, holder);
  }

  #releaseLock(): void {
    this.#lock?.release();
    this.#lock = undefined;
  }

  /** Removes what a stopped process left unfinished; a model or adapter that was moved away and not replaced comes back. */
  async #tidy(): Promise<void> {
    for (const name of await readdir(this.path)) {
      if (!unfinished.test(name)) continue;
      const path = join(this.path, name);
      const trained = [modelName, adapterName].find((each) => name === `.${each}.replaced`);
      const place = trained && join(this.path, trained);
      if (place && !(await exists(place))) await rename(path, place);
      else await rm(path, { recursive: true, force: true });
    }
  }

  /** Runs file work; failures become typed, and what was being written is removed. */
  async #guard<T>(work: () => Promise<T>, hidden?: string): Promise<T> {
    try {
      return await work();
    } catch (error) {
      if (hidden) await rm(hidden, { recursive: true, force: true }).catch(() => {});
      throw fromNative(error, { file: this.path });
    }
  }
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

/** A rename is only sure when the folder is on the disk too. Windows cannot do that and does not need it. */
async function syncFolder(path: string): Promise<void> {
  if (process.platform === "win32") return;
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
