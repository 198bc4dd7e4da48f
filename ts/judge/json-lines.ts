/** Files of JSON lines as Python writes them, to which more than one run adds. */
import { existsSync } from "node:fs";
import { mkdir, open, truncate } from "node:fs/promises";
import { dirname } from "node:path";
import { fromNative } from "../errors";
import { LineLog } from "../train/line-log";

/**
 * JSON in the form of Python's `json.dumps`: a space after commas and colons, ASCII only, so that `open()` reads it in any
 * locale.
 */
export function pythonJson(value: unknown): string {
  return (
    spaced(value)?.replace(/[\u007f-\uffff]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`) ??
    "null"
  );
}

function spaced(value: unknown): string | undefined {
  if (Array.isArray(value)) return `[${value.map((each) => spaced(each) ?? "null").join(", ")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  const entries = Object.entries(value).flatMap(([key, each]) => {
    const text = spaced(each);
    return text === undefined ? [] : [`${JSON.stringify(key)}: ${text}`];
  });
  return `{${entries.join(", ")}}`;
}

/** Rows are added at the end; a last line that a killed program left half is cut off first. */
export class JsonLines {
  readonly #log: LineLog;

  private constructor(path: string) {
    this.#log = new LineLog(path, pythonJson);
  }

  static async open(path: string): Promise<JsonLines> {
    try {
      await mkdir(dirname(path), { recursive: true });
      if (existsSync(path)) await mendEnd(path);
    } catch (error) {
      throw fromNative(error, { file: path });
    }
    return new JsonLines(path);
  }

  /** Adds a row; it is in the file when the promise is settled. */
  async append(row: unknown): Promise<void> {
    try {
      if (!(await this.#log.append(row))) await this.#log.sync();
    } catch (error) {
      throw fromNative(error, { file: this.#log.path });
    }
  }

  async close(): Promise<void> {
    await this.#log.close();
  }
}

/** Ends the last line if it is a whole row without a line end, and cuts it off if it is half a row. */
async function mendEnd(path: string): Promise<void> {
  const handle = await open(path, "r+");
  try {
    const content = await handle.readFile();
    const end = content.lastIndexOf("\n") + 1;
    if (end === content.length) return;
    try {
      JSON.parse(content.subarray(end).toString("utf8"));
      await handle.write("\n", content.length);
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      await truncate(path, end);
    }
  } finally {
    await handle.close();
  }
}
