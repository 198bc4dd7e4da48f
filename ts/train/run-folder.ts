import { type FileHandle, mkdir, open, readdir, readFile, rename, rm, stat, truncate } from "node:fs/promises";
import { join, resolve } from "node:path";
import { fromNative, IoError } from "../errors";
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

const configName = "config.json";
const metricsName = "metrics.jsonl";
const reportName = "report.html";
const modelName = "model";
const ownNames = [configName, metricsName, reportName, modelName, "checkpoints", tensorBoardFolder];

/** Names of what is being written; they never look like a result. */
const unfinished = /^\..+\.(writing|replaced)$/;

/**
 * The folder of a run: `config.json` (resolved), `metrics.jsonl` (one line a logged step), `report.html`, `model/`,
 * `checkpoints/`. Everything but the metrics is written under a hidden name and renamed when it is complete, so that a
 * final name never holds half a file.
 */
export class RunFolder {
  readonly path: string;
  #metrics: FileHandle | undefined;

  private constructor(path: string) {
    this.path = path;
  }

  /**
   * Makes the folder, or opens that of an earlier run.
   *
   * @param config written as `config.json`; when resuming, the earlier one is replaced
   * @throws IoError `ZA_FOLDER_NOT_EMPTY` when the folder holds files and neither `resume` nor `overwrite` is set
   */
  static async open(path: string, config: unknown, options: RunFolderOptions = {}): Promise<RunFolder> {
    const folder = new RunFolder(resolve(path));
    await folder.#guard(async () => {
      await mkdir(folder.path, { recursive: true });
      await folder.#tidy();
      const names = await readdir(folder.path);
      if (names.length > 0 && options.overwrite) {
        for (const name of ownNames) await rm(join(folder.path, name), { recursive: true, force: true });
      } else if (names.length > 0 && !options.resume) {
        throw new IoError("ZA_FOLDER_NOT_EMPTY", `the folder already holds ${names.slice(0, 3).join(", ")}`, {
          place: { file: folder.path },
          remedy: "Choose another outputDir, or pass resume: true to go on, or overwrite: true to replace the run.",
        });
      }
      await folder.writeFile(configName, `${JSON.stringify(config, null, 2)}\n`);
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

  /** Adds a line to `metrics.jsonl`; numbers that are not finite are written as null. */
  async appendMetrics(line: MetricsLine): Promise<void> {
    await this.#guard(async () => {
      this.#metrics ??= await open(this.metricsPath, "a");
      await this.#metrics.appendFile(`${JSON.stringify(line)}\n`);
    });
  }

  /**
   * When resuming after `step`: removes the lines of later steps, and a last line that broke off.
   *
   * @returns the lines kept
   */
  async keepMetricsUpTo(step: number): Promise<MetricsLine[]> {
    return this.#guard(async () => {
      const kept = await this.#linesUpTo(step);
      await this.closeMetrics();
      if (kept.bytes !== undefined) await truncate(this.metricsPath, kept.bytes);
      return kept.lines;
    });
  }

  async #linesUpTo(step: number): Promise<{ lines: MetricsLine[]; bytes?: number }> {
    const text = await readFile(this.metricsPath, "utf8").catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return undefined;
      throw error;
    });
    if (text === undefined) return { lines: [] };
    const lines: MetricsLine[] = [];
    let bytes = 0;
    for (const line of text.split("\n").slice(0, -1)) {
      let parsed: MetricsLine;
      try {
        parsed = JSON.parse(line);
      } catch {
        break;
      }
      // Steps only grow, so that the first later one ends what is kept.
      if (parsed.step > step) break;
      lines.push(parsed);
      bytes += Buffer.byteLength(line) + 1;
    }
    return { lines, bytes };
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

  /** Puts the metrics on the disk and closes them; appending opens them again. */
  async closeMetrics(): Promise<void> {
    const handle = this.#metrics;
    this.#metrics = undefined;
    if (!handle) return;
    await this.#guard(async () => {
      try {
        await handle.sync();
      } finally {
        await handle.close();
      }
    });
  }

  /** Removes what a stopped process left unfinished; a model that was moved away and not replaced comes back. */
  async #tidy(): Promise<void> {
    for (const name of await readdir(this.path)) {
      if (!unfinished.test(name)) continue;
      const path = join(this.path, name);
      const model = `.${modelName}.replaced`;
      if (name === model && !(await exists(this.modelPath))) await rename(path, this.modelPath);
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
