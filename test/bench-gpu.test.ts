/** The harness of bench/gpu, as far as it runs without a GPU: PyTorch's part with a tiny model, and the report. */
import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it } from "vitest";
import { pythonWith } from "./shared";

const bench = fileURLToPath(new URL("../bench/gpu", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "zephyr-bench-gpu-"));
const at = (name: string) => join(folder, name);
const torch = pythonWith("transformers");
const python = torch ?? pythonWith("json");

afterAll(() => rmSync(folder, { recursive: true, force: true }));

function report(files: Record<string, string>) {
  for (const [name, text] of Object.entries(files)) writeFileSync(at(name), text);
  const { status, stderr } = spawnSync(python!, [join(bench, "report.py"), folder], { encoding: "utf8" });
  expect(status, stderr).toBe(0);
  return { json: JSON.parse(readFileSync(at("report.json"), "utf8")), text: readFileSync(at("report.md"), "utf8") };
}

describe.skipIf(!python)("bench/gpu/report.py", () => {
  it("compares what is there, and lists what is not", () => {
    const clock = {
      device: "NVIDIA H200",
      kernels: [{ name: "rms_norm forward", shape: "8192×4096", ms: 0.05, gb_per_s: 2684 }],
      attention: [
        { kernels: "", length: 2048, forward_tflops: 300, backward_tflops: 240 },
        { kernels: "for Hopper", length: 2048, forward_tflops: 450, backward_tflops: 260 },
      ],
    };
    const speed = {
      device: "NVIDIA H200",
      emulated: false,
      gemm_peak_tflops: 750,
      generating: [
        { sequences: 32, prompt: 512, prompt_tokens_per_s: 20_000, ms_per_step: 8, tokens_per_s: 4000, memory_gib: 19 },
      ],
      training: [
        {
          name: "dpo",
          sequences: 8,
          length: 1024,
          tokens_per_s: 13_000,
          pairs_per_s: 6,
          model_tflops: 440,
          peak_memory_gib: 72,
          recompute: "none",
          plan: "weights 14.50 GB",
          classes: {
            adamw: { launches: 2, ms: 30, share: 0.05 },
            products: { launches: 900, ms: 400, share: 0.7, tflops: 650 },
          },
        },
      ],
      left_out: [{ name: "sft 2048", reason: "no time left" }],
    };
    const golden = { steps: 50, identical_twice: true, losses: { "window, float32": [0.7, 0.1] } };
    const peer = {
      smoke: false,
      device: { name: "NVIDIA H200" },
      versions: { torch: "2.11.0" },
      gemm: [{ name: "square", kind: "forward", m: 8192, n: 8192, k: 8192, ms: 1.4, tflops: 800 }],
      attention: [{ length: 2048, forward_tflops: 600, backward_tflops: 200 }],
      training: [
        {
          name: "dpo",
          sequences: 8,
          length: 1024,
          tokens_per_s: 8000,
          pairs_per_s: 4,
          model_tflops: 400,
          peak_memory_gib: 70,
          checkpointing: true,
        },
      ],
      left_out: [{ name: "dpo-lora", reason: "no time left" }],
    };
    const proofs = [
      "running 4 tests",
      "test rope::equals_its_twin_in_f32 ... ok",
      "test head::equals_its_twin_in_bf16 ... said on the way",
      "ok",
      "test norm::mistakes_are_caught ... ignored, npm run test:cuda-emulated",
      "test swiglu::equals_its_twin_in_bf16 ... FAILED",
      "test adamw::equals_its_twin_in_f32 ... ",
      "",
      "failures:",
      "",
      "---- swiglu::equals_its_twin_in_bf16 stdout ----",
      "out[3] is 1 where 2 is expected",
      "",
      "failures:",
      "    swiglu::equals_its_twin_in_bf16",
    ].join("\n");
    const { json, text } = report({
      "clock.json": JSON.stringify(clock),
      "speed.json": JSON.stringify(speed),
      "golden.json": JSON.stringify(golden),
      "sessions.log": "running 1 test\ntest test::device::golden_dpo_on_a_device ... ok\n",
      "peer.json": JSON.stringify(peer),
      "proofs.log": proofs,
      "parts.tsv": "proofs\t101\t40\npeer\t0\t200\n",
    });
    expect(json.missing).toEqual([]);
    expect(json.proofs).toMatchObject({
      passed: 2,
      failed: ["swiglu::equals_its_twin_in_bf16"],
      unfinished: ["adamw::equals_its_twin_in_f32"],
      ignored: 1,
    });
    expect(json.compared.map(({ ratio }: { ratio: number }) => ratio)).toEqual([0.5, 1.2, 0.75, 1.3]);
    expect(json.peer.training[0].share_of_gemm_peak).toBe(0.5);
    // The higher of the two peaks counts for both sides.
    expect(json.speed.training[0].share_of_gemm_peak).toBe(440 / 800);
    expect(json.compared_training).toEqual([{ what: "dpo", length: 1024, ours: 13_000, peer: 8000, ratio: 1.625 }]);
    const met = Object.fromEntries(
      json.goals.map((goal: { what: string; met: boolean | null }) => [goal.what, goal.met]),
    );
    expect(met).toEqual({
      "full DPO, tok/s": true,
      "full DPO, share of GEMM peak": false,
      "LoRA DPO, tok/s": null,
      "full DPO against PyTorch": true,
      "LoRA DPO against PyTorch": null,
      "full DPO, memory in GB": true,
      "attention backward at 2048, TFLOP/s": true,
    });
    expect(text).toContain("2 passed, 1 failed, 1 did not end");
    expect(text).toContain("swiglu::equals_its_twin_in_bf16: out[3] is 1 where 2 is expected");
    expect(text).toContain("| attention backward for Hopper | 2048 | 260 | 200 | 1.30× |");
    expect(text).toContain("| PyTorch dpo (layers computed again) | 8×1024 | 8,000 | 4.0 | 400.00 | 50 % | 70.0 |");
    expect(text).toContain("| zephyr-align dpo | 8×1024 | 13,000 | 6.0 | 440.00 | 55 % | 72.0 |");
    expect(text).toContain("| 32 | 512 | 20,000 | 8.00 | 4,000 | 19.0 |");
    expect(text).toContain("| dpo | 1024 | 13,000 | 8,000 | 1.62× |");
    expect(text).toContain("| products | 900 | 400.00 | 70.0 % | 650 |");
    expect(text).toContain("window, float32: loss 0.7000 to 0.1000");
    expect(text).toContain("| LoRA DPO, tok/s | at least 19000 | not measured | — |");
    expect(text).toContain("- dpo-lora: no time left");
    expect(text).toContain("- sft 2048: no time left");
  });

  it("makes a report of nothing but what ran", () => {
    for (const name of ["clock.json", "speed.json", "golden.json", "sessions.log"]) rmSync(at(name), { force: true });
    const { json, text } = report({ "peer.json": "{ broken" });
    expect(json.missing).toEqual(["sessions", "golden", "speed", "clock"]);
    expect(json.peer).toBeNull();
    expect(text).toContain("Missing: sessions, golden, speed, clock.");
  });
});

describe.skipIf(!torch)("bench/gpu/run.sh", () => {
  it("runs PyTorch's part on the CPU with a tiny model", () => {
    const out = at("smoke");
    // From a copy: what it carries is all that it needs.
    cpSync(bench, at("copy"), { recursive: true });
    const env = { ...process.env, SMOKE: "1", PYTHON: torch };
    const run = spawnSync("bash", [join(at("copy"), "run.sh"), out], { encoding: "utf8", env });
    expect(run.status, run.stderr).toBe(0);
    const { peer, parts } = JSON.parse(readFileSync(join(out, "report.json"), "utf8"));
    expect(parts).toMatchObject([{ part: "peer", exit: "0" }]);
    expect(peer.copy[0].gb_per_s).toBeGreaterThan(0);
    expect(peer.gemm).toHaveLength(13);
    expect(peer.attention[0].backward_ms).toBeGreaterThan(0);
    const names = peer.training.map(({ name }: { name: string }) => name);
    const without = peer.left_out.map(({ name }: { name: string }) => name);
    const known = [...names, ...without.map((name: string) => name.split(" ")[0])];
    expect(known).toEqual(["sft", "dpo", "sft-lora", "dpo-lora"]);
    expect(names).toContain("dpo");
    // A model of random weights has learnt nothing of its 128 tokens.
    expect(Math.abs(peer.training[0].first_loss - Math.log(128))).toBeLessThan(0.2);
    expect(readdirSync(out).length).toBeLessThanOrEqual(8);
  }, 240_000);
});
