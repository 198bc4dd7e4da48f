/** Model files that are refused, as API, `chat` and `serve` say it: a typed error, its exit code, and what to do. */
import { spawnSync } from "node:child_process";
import { copyFileSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, it } from "vitest";
import { Mistral, ZephyrError } from "../../ts/index";
import { buildProgram } from "../shared";
import { splitPart } from "./split-part";

const demo = fileURLToPath(new URL("../../recipes/demo/base", import.meta.url));
const scratch = mkdtempSync(join(tmpdir(), "zephyr-refused-"));
const at = (name: string) => join(scratch, name);

let program: string;
beforeAll(async () => {
  program = buildProgram();
  await (await Mistral.fromPretrained(demo)).exportGguf(at("whole.gguf"), { type: "Q8_0" });
});
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** The file with its architecture named otherwise, in as many letters. */
function ofArchitecture(name: string): Buffer {
  const bytes = readFileSync(at("whole.gguf"));
  const key = "general.architecture";
  // Behind the key: type (u32) and length (u64) of the text.
  const text = bytes.indexOf(key) + key.length + 12;
  expect(bytes.toString("utf8", text, text + 5)).toBe("llama");
  bytes.write(name, text);
  return bytes;
}

const part = (number: number, count: number) => splitPart(readFileSync(at("whole.gguf")), number, count);

it("the files are whole but for what is refused", async () => {
  writeFileSync(at("x-00001-of-00001.gguf"), part(0, 1));
  const ids = [1, 40, 7, 99, 12];
  const [ours, theirs] = [
    await Mistral.fromPretrained(at("whole.gguf")),
    await Mistral.fromPretrained(at("x-00001-of-00001.gguf")),
  ];
  expect(await theirs.score(ids)).toEqual(await ours.score(ids));
});

it.each([
  ["another architecture", "qwen.gguf", () => ofArchitecture("qwen2"), "ZA_MODEL_UNSUPPORTED", /`qwen2`/],
  [
    "no name of an architecture that is known",
    "odd.gguf",
    () => ofArchitecture("gpt-9"),
    "ZA_MODEL_UNSUPPORTED",
    /gpt-9/,
  ],
  ["a part missing", "m-00001-of-00002.gguf", () => part(0, 2), "ZA_SHARD_MISSING", /m-00002-of-00002\.gguf/],
  ["the first part missing", "n-00002-of-00003.gguf", () => part(1, 3), "ZA_SHARD_MISSING", /n-00001-of-00003\.gguf/],
  ["a part under another name", "part.gguf", () => part(0, 2), "ZA_MODEL_FORMAT", /part\.gguf/],
  ["no GGUF file", "text.gguf", () => Buffer.from("once upon a time ".repeat(20)), "ZA_MODEL_FORMAT", /text\.gguf/],
])("%s", async (_, name, content, code, words) => {
  writeFileSync(at(name), content());
  const error = await Mistral.fromPretrained(at(name), { quantization: "auto" }).then(
    () => undefined,
    (thrown: unknown) => thrown as ZephyrError,
  );
  expect(error).toBeInstanceOf(ZephyrError);
  expect(error).toMatchObject({ code, message: expect.stringMatching(words), remedy: expect.stringMatching(/\w/) });
  for (const command of [
    ["chat", "--once", "hello"],
    ["serve", "--port", "0"],
  ]) {
    const args = [program, ...command, "--model", at(name)];
    const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: "utf8" });
    expect([status, stdout], command[0]).toEqual([77, ""]);
    expect(stderr, command[0]).toContain(code);
    expect(stderr, command[0]).toMatch(words);
  }
});

it("a file that ends too early", async () => {
  copyFileSync(at("whole.gguf"), at("short.gguf"));
  truncateSync(at("short.gguf"), 100_000);
  await expect(Mistral.fromPretrained(at("short.gguf"))).rejects.toMatchObject({ code: "ZA_MODEL_FORMAT" });
});
