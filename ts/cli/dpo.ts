import type { Command } from "commander";
import { DpoTrainer } from "../train/dpo-trainer";
import { addTrainOptions, train } from "./train";

/** `zephyr-align dpo`: direct preference optimisation. */
export function addDpo(program: Command): void {
  const command = program.command("dpo").description("Align a model with preference pairs (dDPO).").helpGroup("Train:");
  addTrainOptions(command, "dpo")
    .addHelpText(
      "after",
      `
Examples:
  $ zephyr-align dpo --model runs/sft/model --data pairs.jsonl --recipe zephyr --out runs/dpo
  $ zephyr-align dpo --model policy --ref reference --data pairs.jsonl --beta 0.05 --learning-rate 5e-7
  $ zephyr-align dpo --model policy --data pairs.jsonl --loss-type sigmoid,sft --loss-weights 1,0.1`,
    )
    .action((flags) =>
      train("dpo", flags, ({ model, ref, data, evalData, config, signal, overwrite, watch }) => {
        const held = evalData === undefined ? {} : { evalDataset: evalData };
        const reference = ref === undefined ? {} : { ref };
        return new DpoTrainer({
          ...config,
          policy: model,
          ...reference,
          dataset: data,
          ...held,
          signal,
          overwrite,
          watch,
        });
      }),
    );
}
