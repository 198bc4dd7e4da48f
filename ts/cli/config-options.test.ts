import { describe, expect, it } from "vitest";
import { checkConfig, collectConfig } from "./config-options";

describe("flags over a recipe", () => {
  const of = (method: "sft" | "dpo", given: object) => collectConfig(method, { recipe: "zephyr", ...given }).config;

  it("take what cannot stand beside them out of it", () => {
    expect(of("dpo", {})).toMatchObject({ maxPromptLength: 512, warmupRatio: 0.1, epochs: 1 });
    const cut = of("dpo", { truncation: "keep-start", maxSteps: 3, warmupSteps: 2 });
    expect(Object.keys(cut)).not.toEqual(expect.arrayContaining(["maxPromptLength"]));
    expect(cut).toMatchObject({ truncation: "keep-start", maxSteps: 3, warmupSteps: 2 });
    checkConfig("dpo", cut, { evaluates: false });
  });

  it("are refused where two of them cannot be honoured together", () => {
    const both = of("dpo", { truncation: "keep-start", maxPromptLength: 256 });
    expect(() => checkConfig("dpo", both, { evaluates: false })).toThrow(/maxPromptLength: truncation "keep-start"/);
    const evaluating = of("sft", { evalSteps: 5 });
    expect(() => checkConfig("sft", evaluating, { evaluates: false })).toThrow(/evalSteps: there are no held-out rows/);
    checkConfig("sft", evaluating, { evaluates: true });
  });
});
