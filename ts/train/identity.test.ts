import { expect, it } from "vitest";
import { differences, otherRun } from "./identity";

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
