import { Command } from "commander";
import { beforeAll, describe, expect, it } from "vitest";
import { flagOf, inFlags, speakOf, withFlagNames } from "./flag-names";
import { buildProgram } from "./program";

describe("the library's words in flags", () => {
  beforeAll(() => {
    speakOf(buildProgram().commands.find((command) => command.name() === "dpo")!);
  });

  it.each([
    ["Choose another outputDir, or give resume: true to go on.", "Choose another --out, or give --resume to go on."],
    ["Pass { overwrite: true }.", "Pass --overwrite."],
    ["With precomputeRefLogps: false it is not.", "With --no-precompute-ref-logps it is not."],
    ["Train an adapter (lora: { rank: 16 }).", "Train an adapter (--lora-rank 16)."],
    ['Set packing to true, or pass onBadRow: "skip".', "Set --packing, or pass --on-bad-row skip."],
    ['Raise maxLength, or truncation to "keep-start".', "Raise --max-length, or --truncation keep-start."],
    ["Give evalDataset, or lower batchSize.", "Give --eval-data, or lower --batch-size."],
    ["threads: 1", "--threads 1"],
  ])("%s", (text, told) => expect(inFlags(text)).toBe(told));

  it.each([
    "The seed of the run, and its beta, and 3 epochs.",
    "offline: true and dropLeadingAssistant: true are no flags.",
    'prices: {"model": {"input": 0}}',
    "runs/maxLength/batchSize.json",
    'messages: [{"role": "user"}]',
  ])("leaves %s", (text) => expect(inFlags(text)).toBe(text));

  it("leaves prose with a colon in the help", () => {
    const keys = ["template", "maxLength", "out"];
    const help = 'Chat template: "model" takes that of outputDir, cut to maxLength.';
    expect(withFlagNames(help, keys)).toBe('Chat template: "model" takes that of --out, cut to --max-length.');
  });

  it("knows the flags of a group, and which there are not", () => {
    expect(flagOf("lora.rank")).toBe("--lora-rank");
    expect(flagOf("neftuneNoiseAlpha")).toBeUndefined();
    speakOf(new Command("other").option("--only <n>", "The only one."));
    expect(inFlags("Give only: 3, or maxLength.")).toBe("Give --only 3, or maxLength.");
  });
});
