import { mkdir, open, readdir, readFile, rename, rm } from "node:fs/promises";
import { hostname } from "node:os";
import { join, resolve } from "node:path";
import type { NativeRunLock } from "../../bindings/node/index";
import { ConfigError, fromNative, IoError } from "../errors";
import { native } from "../native/load";
import { differences } from "../train/identity";
import { RowFile } from "./row-file";

/** What the folder holds beside its rows. */
const configName = "config.json";
const reportName = "report.json";
const lockName = ".lock";
/** The journal of paid calls, which lies beside the rows if nothing else is said. */
export const journalName = "calls.sqlite";

/** How a folder is opened. */
export interface RowsFolderOptions {
  /** Names of the row files, without `.jsonl`. */
  files: readonly string[];
  /** Of these, the ones that each run writes anew. */
  fresh?: readonly string[];
  /** What decides the rows; a folder is gone on with only by the same. */
  config: Record<string, unknown>;
  /** Keys of numbers that may have grown since. */
  growing?: readonly string[];
  /** Remove the rows of an earlier run. */
  overwrite?: boolean;
}

/**
 * A folder of row files that one run at a time writes. A run with the same options goes on where an earlier one stopped;
 * other options are refused, because rows of two recipes would stand in one file.
 */
export class RowsFolder<File extends string> {
  readonly path: string;
  readonly #lock: NativeRunLock;
  readonly #files: Record<File, RowFile>;

  private constructor(path: string, lock: NativeRunLock, files: Record<File, RowFile>) {
    this.path = path;
    this.#lock = lock;
    this.#files = files;
  }

  /**
   * Opens or makes the folder.
   *
   * @throws IoError `ZA_FOLDER_NOT_EMPTY`, `ZA_FOLDER_LOCKED`; ConfigError `ZA_RESUME_DIFFERS`
   */
  static async open<File extends string>(
    folder: string,
    options: RowsFolderOptions & { files: readonly File[] },
  ): Promise<RowsFolder<File>> {
    const path = resolve(folder);
    try {
      await mkdir(path, { recursive: true });
      const lock = new (native().NativeRunLock)(
        path,
        `process ${process.pid} on ${hostname()}, since ${new Date().toISOString()}`,
      );
      try {
        await prepare(path, options);
        const files = {} as Record<File, RowFile>;
        for (const name of options.files) files[name] = await RowFile.open(join(path, `${name}.jsonl`));
        return new RowsFolder(path, lock, files);
      } catch (error) {
        lock.release();
        throw error;
      }
    } catch (error) {
      throw fromNative(error, { file: path });
    }
  }

  /** One of its files. */
  file(name: File): RowFile {
    return this.#files[name];
  }

  /** Writes `report.json` whole. */
  async writeReport(report: unknown): Promise<string> {
    return writeWhole(this.path, reportName, report);
  }

  /** Puts the rows on the disk and lets go of the folder. */
  async close(): Promise<void> {
    try {
      for (const file of Object.values<RowFile>(this.#files)) await file.close();
    } finally {
      this.#lock.release();
    }
  }
}

async function prepare(
  path: string,
  { files, fresh = [], config, growing = [], overwrite }: RowsFolderOptions,
): Promise<void> {
  const names = (await readdir(path)).filter((name) => name !== lockName && !name.startsWith(journalName));
  if (overwrite) {
    for (const name of [configName, reportName, ...files.map((file) => `${file}.jsonl`)]) {
      await rm(join(path, name), { force: true });
    }
  } else if (names.includes(configName))
    checkSame(path, JSON.parse(await readFile(join(path, configName), "utf8")), config, growing);
  else if (names.length > 0) {
    throw new IoError("ZA_FOLDER_NOT_EMPTY", `the folder already holds ${names.slice(0, 3).join(", ")}`, {
      place: { file: path },
      remedy: "Choose another folder.",
    });
  }
  for (const name of fresh) await rm(join(path, `${name}.jsonl`), { force: true });
  await writeWhole(path, configName, config);
}

function checkSame(
  path: string,
  before: Record<string, unknown>,
  after: Record<string, unknown>,
  growing: readonly string[],
): void {
  const same = { ...before };
  for (const key of growing) {
    if (Number(after[key]) >= Number(before[key])) same[key] = after[key];
  }
  const changes = differences(same, JSON.parse(JSON.stringify(after)));
  if (changes.length === 0) return;
  throw new ConfigError(
    "ZA_RESUME_DIFFERS",
    `the rows of the folder were made with other options: ${changes.join(", ")}`,
    {
      place: { file: join(path, configName) },
      remedy: "Go on with the same options, choose another folder, or replace the rows (overwrite).",
    },
  );
}

/** Under a hidden name, to the disk, then renamed: a name never holds half a file. */
async function writeWhole(folder: string, name: string, value: unknown): Promise<string> {
  const path = join(folder, name);
  const hidden = join(folder, `.${name}.writing`);
  const handle = await open(hidden, "w");
  try {
    await handle.writeFile(`${JSON.stringify(value, null, 2)}\n`);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await rename(hidden, path);
  return path;
}
