import { expect, it } from "vitest";
import { differences, identityOf, otherRun } from "./identity";
import type { Run } from "./run";

it("names every difference with both values", () => {
  const before = {
    version: "0.1.0",
    config: { beta: 0.1, lossType: ["sigmoid"], old: 1 },
    data: { rowsHash: "a".repeat(64) },
  };
  const after = {
    version: "0.2.0",
    config: { beta: 0.1, lossType: ["hinge"], new: null },
    data: { rowsHash: "b".repeat(64) },
  };
  expect(differences(before, after)).toEqual([
    'version (was "0.1.0", is "0.2.0")',
    'config.lossType.0 (was "sigmoid", is "hinge")',
    "config.old (was 1, is not set)",
    "config.new (was not set, is null)",
    "data.rowsHash (was aaaaaaaa, is bbbbbbbb)",
  ]);
  expect(differences(before, structuredClone(before))).toEqual([]);
  expect(otherRun(["x"], "runs/a").toString()).toMatch(/ZA_RESUME_DIFFERS.*runs\/a.*x[\s\S]*resumeForce/);
});

it("tells another device as it tells other threads: the same run, but not the same bits", () => {
  const on = (kind: string, id: string, name: string, threads = 2) => {
    const model = { device: { kind, id, name }, tokenizer: { chatTemplate: "" } };
    return identityOf({
      method: "sft",
      config: { threads, device: id },
      model,
      report: {},
      digests: {},
    } as unknown as Run);
  };
  const before = on("cpu", "cpu", "one processor");
  expect(differences(before, on("cpu", "cpu", "another processor"))).toEqual([]);
  const card = on("cuda", "cuda:0", "NVIDIA H100");
  expect(differences(before, card)).toEqual(['machine.device (was "cpu", is "NVIDIA H100")']);
  expect(differences(card, on("cuda", "cuda:1", "NVIDIA H100"))).toEqual([]);
});
