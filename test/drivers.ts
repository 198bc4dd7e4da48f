/** Drivers and libraries of NVIDIA's names that do what a test wants: real shared libraries, made by a C compiler. */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const source = fileURLToPath(new URL("../crates/devices/test/driver.c", import.meta.url));

/** Whether they can be made; says so loudly when they cannot. */
export function canMakeDrivers(): boolean {
  const possible = process.platform === "linux" && spawnSync("cc", ["--version"]).status === 0;
  if (!possible) console.warn("SKIPPED: no C compiler (cc), so faults of drivers are not tested");
  return possible;
}

/** Whether the machine has a driver of its own, which is found when one of ours cannot be used. */
export function hasDriver(): boolean {
  return existsSync("/proc/driver/nvidia/version") || existsSync("/dev/dxg");
}

function compile(input: string, args: readonly string[], library: string): void {
  const made = spawnSync("cc", [...args, "-shared", "-fPIC", "-x", "c", "-o", library, "-"], {
    input,
    encoding: "utf8",
  });
  if (made.status !== 0) throw new Error(made.stderr);
}

/**
 * A folder for LD_LIBRARY_PATH.
 *
 * @param driver macros of crates/devices/test/driver.c; a text for a file that is no library; undefined for none
 * @param libraries whether those of the toolkit lie there
 */
export function libraryFolder(
  folder: string,
  driver: readonly string[] | string | undefined,
  libraries = true,
): string {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const path = join(folder, "libcuda.so.1");
  if (typeof driver === "string") writeFileSync(path, driver);
  else if (driver)
    compile(
      readFileSync(source, "utf8"),
      driver.map((define) => `-D${define}`),
      path,
    );
  if (libraries) compile("int cublasLtCreate(void) { return 0; }", [], join(folder, "libcublasLt.so.13"));
  return folder;
}
