import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { devices, Mistral } from "../ts/index";
import { canMakeDrivers, hasDriver, libraryFolder } from "./drivers";
import { buildProgram, runProgram } from "./shared";

const root = fileURLToPath(new URL("..", import.meta.url));
const base = join(root, "recipes", "demo", "base");
const folder = mkdtempSync(join(tmpdir(), "zephyr-devices-"));
const at = (name: string) => join(folder, name);

const cli = (args: string[], libraries?: string) =>
  runProgram(args, { env: libraries ? { LD_LIBRARY_PATH: libraries } : {} });

function doctor(libraries: string) {
  const run = cli(["doctor", "--json", at("doctor.json")], libraries);
  // Nothing about a card is the end of a program, or a reason to call the machine wrong.
  expect(run.status, run.stderr).toBe(0);
  return { text: run.stdout, survey: JSON.parse(readFileSync(at("doctor.json"), "utf8")).devices };
}

beforeAll(() => {
  buildProgram();
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe.skipIf(!canMakeDrivers())("zephyr-align doctor", () => {
  it("shows a card with everything that belongs to it", () => {
    const libraries = libraryFolder(at("good"), ["CARDS=2"]);
    const { text, survey } = doctor(libraries);
    expect(survey.devices.map(({ id }: { id: string }) => id)).toEqual(["cpu", "cuda:0", "cuda:1"]);
    expect(survey.devices[2]).toMatchObject({
      kind: "cuda",
      index: 1,
      name: "NVIDIA H200",
      computeCapability: "9.0",
      memory: { total: 150754820096, free: 149000000000 },
      uuid: "GPU-10111213-1415-1617-1819-1a1b1c1d1e1f",
      bus: "0000:02:00.0",
    });
    expect(survey.driver).toMatchObject({ path: join(libraries, "libcuda.so.1"), cuda: "13.0" });
    expect(survey.libraries).toEqual([{ name: "libcublasLt.so.13", path: join(libraries, "libcublasLt.so.13") }]);
    expect(survey.attempts).toContainEqual({ library: "libcuda.so.1", path: join(libraries, "libcuda.so.1") });
    expect(text).toContain("cuda:1 NVIDIA H200, sm_90, 138.8 GiB free of 140.4 GiB");
    // The default build has no kernels, so that the best card is of no use to it.
    expect(survey.devices[1].usable).toBe(false);
    expect(survey.devices[1].problem.code).toBe("ZA_DEVICE_NO_BUILD");
    expect(text).toContain("npm run build:cuda");
  });

  it("tells what is wrong with a card", () => {
    const old = doctor(libraryFolder(at("old-card"), ["MAJOR=7", 'NAME="Tesla V100"']));
    expect(old.survey.devices[1].problem.code).toBe("ZA_DEVICE_CARD_OLD");
    expect(old.text).toContain("not used: card 0 (Tesla V100) is sm_70, and the kernels need sm_80");
    const full = doctor(libraryFolder(at("full"), ["FREE=(100ull<<20)"]));
    expect(full.survey.devices[1].problem.code).toBe("ZA_DEVICE_MEMORY");
    const busy = doctor(libraryFolder(at("busy"), ["BUSY"]));
    expect(busy.survey.devices[1].problem).toMatchObject({ code: "ZA_DEVICE_FAILS" });
  });

  it("tells what is wrong with a driver", () => {
    const cases = [
      [["CARDS=0"], "ZA_DEVICE_NO_CARD", "shows no card"],
      [["INIT=100"], "ZA_DEVICE_NO_CARD", "shows no card"],
      [["VERSION=12040"], "ZA_DEVICE_DRIVER_OLD", "can do CUDA 12.4, and CUDA 13.0 is needed"],
      [["INIT=999"], "ZA_DEVICE_FAILS", "cuInit gives CUDA_ERROR_AS_TOLD (999)"],
    ] as const;
    for (const [macros, code, text] of cases) {
      const found = doctor(libraryFolder(at("driver"), macros));
      expect(found.survey.devices).toHaveLength(1);
      expect(found.survey.driver.path).toBe(join(at("driver"), "libcuda.so.1"));
      expect(found.survey.problems[0].code).toBe("ZA_DEVICE_NO_BUILD");
      expect(found.survey.problems[1]).toMatchObject({ code, text: expect.stringContaining(text) });
      expect(found.text).toContain(text);
    }
  });

  it.skipIf(hasDriver())("tells of every file that is no driver, and of every folder that has none", () => {
    const faults: [readonly string[] | string, string][] = [
      [["WITHOUT_NAME"], "it has no function cuDeviceGetName"],
      [["STUB"], "it is a stub for linking, not the driver"],
      ["version https://git-lfs.github.com/spec/v1\n".repeat(4), "invalid ELF header"],
    ];
    for (const [driver, fault] of faults) {
      const { text, survey } = doctor(libraryFolder(at("none"), driver));
      expect(text).toContain(`passed over ${join(at("none"), "libcuda.so.1")}: ${fault}`);
      expect(text).toMatch(/not in .*\/usr\/lib\/wsl\/lib/);
      expect(survey.driver).toBeUndefined();
    }
  });
});

describe("device", () => {
  it("cuda without a build of it is an error with the remedy", async () => {
    const { status, stderr } = cli(["chat", "--model", base, "--once", "say nine.", "--device", "cuda"]);
    expect(status, stderr).toBe(77);
    expect(stderr).toContain("ZA_DEVICE_NO_BUILD");
    expect(stderr).toContain("npm run build:cuda");
    expect(stderr).toContain("libcuda.so.1");
    await expect(Mistral.fromPretrained(base, { device: "cuda:1" })).rejects.toMatchObject({
      name: "DeviceError",
      code: "ZA_DEVICE_NO_BUILD",
    });
  });

  it("auto falls back to the CPU and says so once", () => {
    const args = ["chat", "--model", base, "--once", "say nine.", "--max-tokens", "2", "--device"];
    const auto = cli([...args, "auto"]);
    expect(auto.status, auto.stderr).toBe(0);
    expect(auto.stderr.match(/ZA_DEVICE_NO_BUILD/g)).toHaveLength(1);
    const cpu = cli([...args, "cpu"]);
    expect(cpu.status, cpu.stderr).toBe(0);
    expect(cpu.stderr).toBe("(cut: --max-tokens is 2)\n");
    expect(cpu.stdout).toBe(auto.stdout);
  });

  it("is refused by its name before anything is read", async () => {
    const chat = cli(["chat", "--model", "nowhere", "--once", "hi", "--device", "gpu"]);
    expect(chat.status).toBe(77);
    expect(chat.stderr).toContain("ZA_DEVICE_UNKNOWN");
    const sft = cli(["sft", "--model", "nowhere", "--data", "nothing.jsonl", "--out", at("run"), "--device", "cuda:x"]);
    expect(sft.status).toBe(77);
    expect(sft.stderr).toContain("Take auto, cpu, cuda or cuda:1");
    await expect(Mistral.fromPretrained("nowhere", { device: "gpu" as "cpu" })).rejects.toMatchObject({
      code: "ZA_DEVICE_UNKNOWN",
    });
  });

  it("of a model is where it computes", async () => {
    const model = await Mistral.fromPretrained(base);
    expect(model.device).toMatchObject({
      kind: "cpu",
      id: "cpu",
      usable: true,
      because: { code: "ZA_DEVICE_NO_BUILD" },
    });
    expect(model.frozenCopy().device).toBe(model.device);
    const survey = await devices();
    expect(survey.devices[0]).toMatchObject({ kind: "cpu", id: "cpu", usable: true });
    expect(survey.problems[0]?.code).toBe("ZA_DEVICE_NO_BUILD");
    // Every place that was looked at is told, with what became of it.
    expect(survey.attempts.some(({ path }) => path === "libcuda.so.1")).toBe(!survey.driver);
  });
});
