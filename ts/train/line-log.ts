import { type FileHandle, open, readFile, truncate } from "node:fs/promises";

/**
 * A file of JSON lines that grows. On a full disk lines wait in memory and are written when there is room again; the
 * file never holds half a line that a later one would be glued to.
 */
export class LineLog {
  readonly path: string;
  readonly #encode: (line: unknown) => string;
  #file: FileHandle | undefined;
  /** Bytes of whole lines in the file. */
  #bytes = 0;
  #waiting = "";

  /** @param encode how a line is written @default JSON.stringify */
  constructor(path: string, encode: (line: unknown) => string = JSON.stringify) {
    this.path = path;
    this.#encode = encode;
  }

  /**
   * Adds a line; numbers that are not finite are written as null.
   *
   * @returns whether it is in the file; false when the disk is full and it waits
   */
  async append(line: unknown): Promise<boolean> {
    this.#waiting += `${this.#encode(line)}\n`;
    try {
      await this.#write();
      return true;
    } catch (error) {
      if (!isFull(error)) throw error;
      return false;
    }
  }

  /** Puts all lines on the disk. Returns the bytes of the file. */
  async sync(): Promise<number> {
    await this.#write();
    await this.#file?.sync();
    return this.#bytes;
  }

  /** Cuts the file to the whole lines of its first bytes, and returns them; what waits is forgotten. */
  async cut(bytes: number): Promise<string[]> {
    this.#waiting = "";
    await this.#close();
    const content = await readFile(this.path).catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return undefined;
      throw error;
    });
    if (!content) return [];
    const kept = content.subarray(0, content.subarray(0, bytes).lastIndexOf("\n") + 1);
    if (kept.length < content.length) await truncate(this.path, kept.length);
    return kept.toString("utf8").split("\n").slice(0, -1);
  }

  /** Puts the lines on the disk and closes the file; appending opens it again. */
  async close(): Promise<void> {
    try {
      if (this.#waiting !== "" || this.#file) await this.sync();
    } finally {
      await this.#close();
    }
  }

  async #close(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    await file?.close();
  }

  async #write(): Promise<void> {
    if (!this.#file) {
      this.#file = await open(this.path, "a");
      this.#bytes = (await this.#file.stat()).size;
    }
    if (this.#waiting === "") return;
    try {
      await this.#file.appendFile(this.#waiting);
    } catch (error) {
      // What was written of it goes again: the lines are written whole later.
      await this.#file.truncate(this.#bytes);
      throw error;
    }
    this.#bytes += Buffer.byteLength(this.#waiting);
    this.#waiting = "";
  }
}

function isFull(error: unknown): boolean {
  return ["ENOSPC", "EDQUOT"].includes((error as NodeJS.ErrnoException).code ?? "");
}
