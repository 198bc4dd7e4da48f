/** Which files are which split: as Python's datasets sees them. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { findSplit } from "../ts/data/splits";
import { pythonWith } from "./shared";

const python = pythonWith("datasets");

describe.skipIf(!python)("beside Python's datasets", () => {
  it("sees the same splits in a hundred layouts", () => {
    const scratch = mkdtempSync(join(tmpdir(), "zephyr-splits-"));
    const script = fileURLToPath(new URL("./fixtures/splits/layouts.py", import.meta.url));
    const printed = execFileSync(python!, [script, scratch, "100", "7"], {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
    });
    rmSync(scratch, { recursive: true });
    const layouts = JSON.parse(printed) as { files: string[]; splits: Record<string, string[]> }[];
    expect(layouts.length).toBe(100);
    for (const { files, splits } of layouts) {
      const names = Object.keys(splits);
      const found = names.map((split) => [split, findSplit({ source: "layout", paths: files, split }).files]);
      expect(Object.fromEntries(found), files.join(" ")).toEqual(splits);
      if (names.length === 1) expect(findSplit({ source: "layout", paths: files }).split).toBe(names[0]);
      else
        expect(() => findSplit({ source: "layout", paths: files })).toThrow(
          names.length === 2 ? /there are the splits/ : /./,
        );
    }
  });
});
