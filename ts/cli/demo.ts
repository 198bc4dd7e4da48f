import type { Command } from "commander";
import { wholeNumber } from "./arguments";
import { interruptible } from "./interrupt";

interface DemoFlags {
  seeds: number;
  seed: number;
  out: string;
  json?: string;
  quick?: boolean;
}

/** `zephyr-align demo`, and the hidden command that makes its base model. */
export function addDemo(program: Command): void {
  program
    .command("demo")
    .description("The whole road on an embedded world: base, dSFT, dDPO, judged. Needs no files.")
    .option("--seeds <n>", "Seeds to run.", wholeNumber(1), 1)
    .option("--seed <n>", "The first seed.", wholeNumber(0), 1)
    .option("--out <folder>", "Folder of the report and the models.", "runs/demo")
    .option("--json <file>", "Write every number that is shown.")
    .option("--quick", "Fewer rows and steps: shows that it runs, not how good it gets.")
    .addHelpText(
      "after",
      `
Examples:
  $ zephyr-align demo
  $ zephyr-align demo --seeds 3 --json demo.json`,
    )
    .action((flags: DemoFlags) =>
      interruptible(async (signal) => {
        const { runDemo } = await import("../../recipes/demo/run");
        await runDemo({ ...flags, signal });
      }),
    );
  program
    .command("demo-pretrain", { hidden: true })
    .description("Makes the demo's base model from plain text.")
    .requiredOption("--out <folder>", "Folder to write it to.")
    .option("--seed <n>", "Seed of text, weights and order.", wholeNumber(0), 1)
    .option("--steps <n>", "Optimiser steps.", wholeNumber(1))
    .action((flags: { out: string; seed: number; steps?: number }) =>
      interruptible(async (signal) => {
        const { runPretrain } = await import("../../recipes/demo/pretrain");
        await runPretrain({ ...flags, signal });
      }),
    );
}
