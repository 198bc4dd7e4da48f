import { type FileHandle, open } from "node:fs/promises";
import { type Dataset, jsonl } from "../data";
import { FileBytes } from "../data/file-bytes";
import { ConfigError, fromNative } from "../errors";

const LF = 10;

/**
 * A JSONL file that is written row by row and gone on with after an interruption. A last row that was written in half is
 * cut off when the file is opened; no row is ever written into the middle.
 */
export class RowFile {
  readonly path: string;
  /** Whole rows that the file had when it was opened. */
  readonly found: number;
  #file: FileHandle;
  #earlier: AsyncIterator<unknown> | undefined;
  #compared = 0;

  private constructor(path: string, found: number, file: FileHandle) {
    this.path = path;
    this.found = found;
    this.#file = file;
  }

  /** Opens the file, or makes it. */
  static async open(path: string): Promise<RowFile> {
    let file: FileHandle | undefined;
    try {
      file = await open(path, "a+");
      let rows = 0;
      let whole = 0;
      for await (const { bytes, start } of new FileBytes(path).chunks()) {
        for (let at = bytes.indexOf(LF); at >= 0; at = bytes.indexOf(LF, at + 1)) {
          rows++;
          whole = start + at + 1;
        }
      }
      await file.truncate(whole);
      return new RowFile(path, rows, file);
    } catch (error) {
      await file?.close();
      throw fromNative(error, { file: path });
    }
  }

  /** The rows that were there when it was opened. */
  earlier(): Dataset<unknown> {
    return jsonl(this.path);
  }

  /**
   * The next row in order. Where the file holds it already, it must be the same; behind that it is added.
   *
   * @throws ConfigError `ZA_RESUME_DIFFERS` when the file holds another row there
   */
  async follow(row: unknown): Promise<void> {
    if (this.#compared >= this.found) return this.append(row);
    this.#earlier ??= this.earlier()[Symbol.asyncIterator]();
    const { value } = await this.#earlier.next();
    this.#compared++;
    if (JSON.stringify(value) !== JSON.stringify(row)) {
      throw new ConfigError("ZA_RESUME_DIFFERS", "the file holds another row than is made now", {
        place: { file: this.path, row: this.#compared },
        remedy:
          "The models answer otherwise than before. Give the journal of the first run, so that it is repeated without cost, or write to another folder.",
      });
    }
    if (this.#compared === this.found) await this.#earlier.return?.();
  }

  /** Adds a row at the end. */
  async append(row: unknown): Promise<void> {
    try {
      await this.#file.appendFile(`${JSON.stringify(row)}\n`);
    } catch (error) {
      throw fromNative(error, { file: this.path });
    }
  }

  /** Puts the rows on the disk and closes the file. */
  async close(): Promise<void> {
    await this.#earlier?.return?.();
    try {
      await this.#file.sync();
    } catch (error) {
      throw fromNative(error, { file: this.path });
    } finally {
      await this.#file.close();
    }
  }
}
