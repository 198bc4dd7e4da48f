/** GGUF files at the Hub by quantisation, against the local server that speaks its API; split ones as the gguf package makes them. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type LoadOptions, Mistral } from "../../ts/index";
import { pythonWith } from "../shared";

const scratch = mkdtempSync(join(tmpdir(), "zephyr-hub-gguf-"));
const served = join(scratch, "served", "models");
const cacheDir = join(scratch, "cache");
const here = (name: string) => fileURLToPath(new URL(name, import.meta.url));
const python = pythonWith("gguf");
const ids = [1, 40, 7, 99, 12];

let server: ChildProcess;
let hub: string;
let base: Mistral;

const place = (path: string) => {
  const file = join(served, path);
  mkdirSync(dirname(file), { recursive: true });
  return file;
};
const put = (path: string, content: string) => writeFileSync(place(path), content);
const load = (source: string, options: LoadOptions = {}) =>
  Mistral.fromPretrained(source, { ...options, hub: { endpoint: hub, cacheDir, token: false, ...options.hub } });
const downloads = async () => {
  const log = (await (await fetch(`${hub}/_log`)).json()) as { url: string }[];
  return log.map(({ url }) => decodeURIComponent(/\/resolve\/[^/]+\/(.+)$/.exec(url)?.[1] ?? "")).filter((url) => url);
};

beforeAll(async () => {
  base = await Mistral.fromPretrained(here("../../recipes/demo/base"));
  await base.exportGguf(place("org/many/main/demo.Q8_0.gguf"), { type: "Q8_0" });
  await base.exportGguf(place("org/many/main/demo-q4_0.gguf"), { type: "Q4_0" });
  put("org/many/main/mmproj-demo-F16.gguf", "a projector");
  put("org/many/main/README.md", "many");
  copyFileSync(place("org/many/main/demo.Q8_0.gguf"), place("org/one/main/demo.Q8_0.gguf"));
  put("org/one/main/config.json", "{}");
  await base.save(place("org/both/main/x").slice(0, -2), { dtype: "bfloat16" });
  copyFileSync(place("org/many/main/demo.Q8_0.gguf"), place("org/both/main/gguf/demo.Q8_0.gguf"));
  for (const part of [1, 3]) put(`org/lacking/main/Q4_K_M/x-0000${part}-of-00003.gguf`, "a part");
  for (const name of ["a.Q4_0.gguf", "b.Q4_0.gguf"]) put(`org/double/main/${name}`, name);
  if (python) {
    const parts = place("org/split/main/Q8_0/demo.gguf");
    execFileSync(python, [here("split_gguf.py"), place("org/one/main/demo.Q8_0.gguf"), parts, "25"]);
  }
  server = spawn(process.execPath, [here("../hub/server.mjs"), join(scratch, "served")], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const [line] = await once(createInterface(server.stdout!), "line");
  ({ hub } = JSON.parse(line));
});
afterAll(() => {
  server?.kill();
  rmSync(scratch, { recursive: true, force: true });
});

describe("a GGUF file at the Hub", () => {
  it("is chosen by its quantisation, and alone downloaded", async () => {
    for (const name of ["hf:org/many:Q8_0", "hf:org/many:q8_0", "hf:org/many:demo.Q8_0.gguf"]) {
      const model = await load(name);
      expect(model.source).toBe(name);
      expect(await model.logits(ids)).not.toEqual(await base.logits(ids));
      expect(model.tokenizer.encode("say two.")).toEqual(base.tokenizer.encode("say two."));
    }
    expect(await downloads()).toEqual(["demo.Q8_0.gguf"]);
    const kept = await load("hf:org/many:Q4_0", { quantization: "gguf" });
    expect(kept.storage).toBe("gguf");
    // Once more, without the network.
    await load("hf:org/many:Q4_0", { hub: { offline: true } });
    expect(await downloads()).toEqual(["demo.Q8_0.gguf", "demo-q4_0.gguf"]);
  });

  it("needs no name where it is the only one; beside safetensors it does", async () => {
    const one = await (await load("org/one")).logits(ids);
    expect(await (await load("hf:org/one")).logits(ids)).toEqual(one);
    expect(await (await load("org/both")).logits(ids)).not.toEqual(one);
    expect(await (await load("hf:org/both:Q8_0")).logits(ids)).toEqual(one);
  });

  it("what is not there, or not clear, is refused with what is there", async () => {
    const refused = async (source: string) => {
      const error = await load(source).then(
        () => undefined,
        (thrown) => thrown,
      );
      return { code: error?.code, text: String(error) };
    };
    const unclear = await refused("org/many");
    expect(unclear.code).toBe("ZA_HUB_FILE");
    expect(unclear.text).toMatch(/hf:org\/many:q4_0.*q4_0, Q8_0/);
    expect((await refused("hf:org/many:Q5_K_M")).text).toMatch(/no GGUF file Q5_K_M.*q4_0, Q8_0/s);
    expect((await refused("hf:org/double:Q4_0")).text).toMatch(/hf:org\/double:a\.Q4_0\.gguf/);
    const lacking = await refused("hf:org/lacking:Q4_K_M");
    expect(lacking.code).toBe("ZA_HUB_FILE");
    expect(lacking.text).toContain("Q4_K_M/x-00002-of-00003.gguf");
    for (const source of ["hf:", "hf:org", "hf:org/many/x", "hf:../many", "hf:org/many:../Q8_0"]) {
      expect((await refused(source)).code, source).toMatch(/ZA_HUB_NOT_FOUND|ZA_HUB_FILE/);
    }
    expect((await refused("hf:org/none")).code).toBe("ZA_HUB_NOT_FOUND");
    expect((await downloads()).filter((path) => path.startsWith("Q4_K_M"))).toEqual([]);
  });

  it.runIf(python)("may be split into parts", async () => {
    const folder = dirname(place("org/split/main/Q8_0/x"));
    const parts = readdirSync(folder);
    expect(parts.length).toBeGreaterThan(2);
    const one = await (await load("org/one")).logits(ids);
    const split = await load("hf:org/split:Q8_0");
    expect(await split.logits(ids)).toEqual(one);
    expect(split.tokenizer.chatTemplate).toBe(base.tokenizer.chatTemplate);
    // Any part leads to all, and one that is missing is named.
    expect(await (await Mistral.fromPretrained(join(folder, parts[1]!))).logits(ids)).toEqual(one);
    rmSync(join(folder, parts[1]!));
    await expect(Mistral.fromPretrained(join(folder, parts[0]!))).rejects.toMatchObject({
      code: "ZA_SHARD_MISSING",
      problem: expect.stringContaining(parts[1]!),
      remedy: expect.stringContaining("all its files"),
    });
  });
});
