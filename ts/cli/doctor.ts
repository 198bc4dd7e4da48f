import { availableParallelism, cpus, freemem, release, totalmem } from "node:os";
import type { Command } from "commander";
import { fromNative } from "../errors";
import { devices } from "../native/devices";
import { type NativeAddon, native, nativeAttempts, packageRoot, packageVersion, platformName } from "../native/load";
import { whole } from "../report/format";
import { cudaFindings } from "./doctor-cuda";
import { writeJsonFile } from "./json-file";
import { styleOf } from "./style";

/** One line of the report. */
export interface Finding {
  name: string;
  /** none: it is not here, and nothing needs it. */
  state: "ok" | "none" | "warning" | "wrong";
  text: string;
  remedy?: string;
}

/** `zephyr-align doctor`: is everything in place on this machine? */
export function addDoctor(program: Command): void {
  program
    .command("doctor")
    .helpGroup("Look inside:")
    .description("Check this machine: versions, addon, instruction set, threads, memory, graphics cards.")
    .option("--json <file>", "Write the findings.")
    .action(async (flags: { json?: string }) => {
      const { findings, facts } = await examine();
      const wrong = findings.some(({ state }) => state === "wrong");
      await writeJsonFile(flags.json, { ok: !wrong, ...facts, findings });
      process.stdout.write(text(findings));
      if (wrong) process.exitCode = 1;
    });
}

async function examine() {
  const findings: Finding[] = [];
  const add = (name: string, state: Finding["state"], text: string, remedy?: string) =>
    findings.push({ name, state, text, ...(remedy === undefined ? {} : { remedy }) });
  const version = packageVersion();
  add("zephyr-align", "ok", `${version}, in ${packageRoot()}`);
  const enough = nodeIsSupported(process.versions.node);
  add("node", enough ? "ok" : "wrong", process.versions.node, enough ? undefined : "Take Node ≥ 20.19 or ≥ 22.12.");
  const processor = cpus()[0]?.model.trim();
  add("platform", "ok", `${platformName()}, kernel ${release()}${processor ? `, ${processor}` : ""}`);

  let addon: NativeAddon | undefined;
  try {
    addon = native();
  } catch (error) {
    const { problem, remedy } = fromNative(error);
    add("addon", "wrong", problem, remedy);
  }
  const info = addon?.nativeInfo();
  const { loaded, failures } = nativeAttempts();
  if (info) {
    add("addon", "ok", `${info.version} (${info.arch}${info.cuda ? ", with CUDA kernels" : ""}), from ${loaded}`);
    for (const { path, reason } of failures) add("addon", "warning", `passed over ${path}: ${reason}`);
    const slow = info.simd === "scalar" || info.simd === "none";
    add(
      "instruction set",
      slow ? "warning" : "ok",
      info.simd,
      slow ? "Training will be slow on this machine." : undefined,
    );
    add("threads", "ok", `${info.threads} of ${availableParallelism()} available`);
  }
  const memory = memoryHere();
  const tight = memory.available < 2 ** 30;
  const gib = (bytes: number) => `${(bytes / 2 ** 30).toFixed(1)} GiB`;
  const limit = memory.limit === undefined ? "" : `, this process may use ${gib(memory.limit)}`;
  add("memory", tight ? "warning" : "ok", `${gib(memory.available)} free of ${gib(memory.total)}${limit}`);
  const speed = addon ? await checkCore(addon, add) : undefined;
  const survey = addon ? await devices() : undefined;
  if (addon && survey) findings.push(...(await cudaFindings(survey, addon)));
  return {
    findings,
    facts: {
      version,
      node: process.versions.node,
      platform: platformName(),
      native: info ?? null,
      loaded: loaded ?? null,
      attempts: failures,
      memory,
      gflops: speed ?? null,
      devices: survey ?? null,
    },
  };
}

function nodeIsSupported(version: string): boolean {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  return (major === 20 && minor >= 19) || (major === 22 && minor >= 12) || major > 22;
}

function memoryHere() {
  // Both know of containers; on older Nodes they are missing.
  const constrained = process.constrainedMemory?.() ?? 0;
  const total = totalmem();
  const limit = constrained > 0 && constrained < total ? constrained : undefined;
  const available = process.availableMemory?.() ?? freemem();
  return { total, available, limit };
}

/** A small model of random weights, 16 M parameters: big enough that matrix products are what takes the time. */
const probe = {
  architectures: ["MistralForCausalLM"],
  model_type: "mistral",
  hidden_act: "silu",
  hidden_size: 512,
  intermediate_size: 1536,
  num_hidden_layers: 4,
  num_attention_heads: 8,
  num_key_value_heads: 4,
  max_position_embeddings: 256,
  sliding_window: null,
  rope_theta: 10000,
  rms_norm_eps: 1e-5,
  initializer_range: 0.02,
  tie_word_embeddings: true,
  vocab_size: 512,
  bos_token_id: 1,
  eos_token_id: 2,
};

/** Runs that model for a second: numbers must be finite and the same every time. @returns GFLOP/s */
async function checkCore(
  addon: NativeAddon,
  add: (name: string, state: Finding["state"], text: string, remedy?: string) => void,
): Promise<number | undefined> {
  try {
    const model = await addon.NativeModel.random(JSON.stringify(probe), 1);
    const ids = Uint32Array.from({ length: 256 }, (_, index) => (index * 37) % probe.vocab_size);
    const score = () => model.score(ids, true, new addon.NativeAbort());
    const first = await score();
    let passes = 0;
    let same = true;
    const started = performance.now();
    while (performance.now() - started < 1000) {
      const again = await score();
      same &&= again.every((value, index) => value === first[index]);
      passes++;
    }
    const seconds = (performance.now() - started) / 1000;
    // Two operations a weight and token; attention itself is left out, so the figure is a little low.
    const gflops = (2 * model.parameters * ids.length * passes) / seconds / 1e9;
    const sound = same && first.every(Number.isFinite);
    add(
      "core",
      sound ? "ok" : "wrong",
      sound
        ? `forward pass gives the same bits ${whole(passes)} times, ${whole(gflops)} GFLOP/s in f32`
        : "a forward pass gives different or infinite numbers",
      sound ? undefined : "The processor or the memory is faulty, or the addon was built for another one.",
    );
    return gflops;
  } catch (error) {
    const { problem, remedy } = fromNative(error);
    add("core", "wrong", problem, remedy);
    return undefined;
  }
}

function text(findings: readonly Finding[]): string {
  const { green, yellow, red, bold, dim } = styleOf(process.stdout);
  const signs = { ok: green("✓"), none: dim("–"), warning: yellow("!"), wrong: red("✗") };
  const width = Math.max(...findings.map(({ name }) => name.length));
  const lines = findings.map(({ name, state, text, remedy }) => {
    const more = remedy ? `\n${" ".repeat(width + 5)}${dim("→")} ${remedy}` : "";
    return `${signs[state]} ${bold(name.padEnd(width))}  ${text.replaceAll("\n", `\n${" ".repeat(width + 4)}`)}${more}`;
  });
  const wrong = findings.filter(({ state }) => state === "wrong").length;
  const verdict =
    wrong === 0 ? green("everything is in place") : red(`${wrong} ${wrong === 1 ? "thing is" : "things are"} wrong`);
  return `${lines.join("\n")}\n\n${verdict}\n`;
}
