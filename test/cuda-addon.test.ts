import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
// @ts-expect-error a script without types
import { fatbinsIn } from "../scripts/fatbins.mjs";
import { canMakeDrivers, hasDriver, libraryFolder } from "./drivers";
import { buildProgram, runProgram } from "./shared";

const root = fileURLToPath(new URL("..", import.meta.url));
const base = join(root, "recipes", "demo", "base");
/** The folder of the addon; only the script that has just built it names one, so that no old one is tested. */
const built = process.env.ZEPHYR_CUDA_ADDON && join(root, process.env.ZEPHYR_CUDA_ADDON);
const folder = mkdtempSync(join(tmpdir(), "zephyr-cuda-addon-"));
const at = (name: string) => join(folder, name);

function addonFile(): string | undefined {
  const name = built && existsSync(built) ? readdirSync(built).find((file) => file.endsWith(".node")) : undefined;
  if (!name) console.warn("SKIPPED: no addon with CUDA (npm run test:cuda-build makes it), so it is not tested");
  return built && name ? join(built, name) : undefined;
}

const addon = addonFile();

const cli = (args: string[], libraries?: string) =>
  runProgram(args, { env: { ZEPHYR_ALIGN_NATIVE: addon, ...(libraries ? { LD_LIBRARY_PATH: libraries } : {}) } });

const chat = ["chat", "--model", base, "--once", "say nine.", "--max-tokens", "2"];

function refusal(device: string, libraries?: string): string {
  const { status, stderr } = cli([...chat, "--device", device], libraries);
  expect(status, stderr).toBe(77);
  return stderr;
}

afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe.skipIf(!addon)("the addon with CUDA", () => {
  beforeAll(() => {
    buildProgram();
  });

  it("has code for every card, and PTX", () => {
    const fatbins: { target: string }[][] = fatbinsIn(readFileSync(addon!));
    expect(fatbins.length).toBeGreaterThan(5);
    for (const parts of fatbins) {
      const targets = parts.map(({ target }) => target).sort();
      expect(targets).toEqual(["compute_80", "sm_80", "sm_86", "sm_89", "sm_90a"]);
    }
  });

  it("computes on the CPU as the other one does", () => {
    const here = cli([...chat, "--device", "cpu"]);
    expect(here.status, here.stderr).toBe(0);
    const other = runProgram(chat);
    expect(here.stdout).toBe(other.stdout);
  });

  it.skipIf(hasDriver())("lists every place where it looked for the driver", () => {
    const text = refusal("cuda");
    expect(text).toContain("ZA_DEVICE_NO_DRIVER");
    expect(text).toMatch(/libcuda\.so\.1: not in .*\/usr\/lib\/wsl\/lib.*the loader's own search/);
    expect(text).toMatch(/libcublasLt\.so\.13: /);
    const auto = cli([...chat, "--device", "auto"]);
    expect(auto.status, auto.stderr).toBe(0);
    expect(auto.stderr).toContain("the work is done on the CPU");
  });

  it.skipIf(!canMakeDrivers())("refuses for the reason that is the reason", () => {
    const cases: [string, readonly string[], string, string][] = [
      ["cuda", ["VERSION=12040"], "ZA_DEVICE_DRIVER_OLD", "CUDA 12.4"],
      ["cuda", ["CARDS=0"], "ZA_DEVICE_NO_CARD", "shows no card"],
      ["cuda", ["INIT=803"], "ZA_DEVICE_FAILS", "CUDA_ERROR_AS_TOLD (803)"],
      ["cuda", ["MAJOR=7"], "ZA_DEVICE_CARD_OLD", "sm_70"],
      ["cuda", ["FREE=(100ull<<20)"], "ZA_DEVICE_MEMORY", "0.1 GiB of 140.4 GiB free"],
      ["cuda:1", [], "ZA_DEVICE_INDEX", "there is no card 1"],
    ];
    for (const [device, macros, code, text] of cases) {
      const told = refusal(device, libraryFolder(at("driver"), macros));
      expect(told).toContain(code);
      expect(told).toContain(text);
      expect(told).toContain(`${join(at("driver"), "libcuda.so.1")}: taken`);
    }
    const lacking = refusal("cuda", libraryFolder(at("lacking"), [], false));
    expect(lacking).toContain("ZA_DEVICE_LIBRARY");
  });
});
