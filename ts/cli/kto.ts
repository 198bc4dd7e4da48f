import type { Command } from "commander";
import { KtoTrainer } from "../train/kto-trainer";
import { addTrainOptions, train } from "./train";

/** `zephyr-align kto`: Kahneman-Tversky optimisation. */
export function addKto(program: Command): void {
  const command = program
    .command("kto")
    .description("Align a model with single answers that are wanted or not (KTO).")
    .helpGroup("Train:");
  addTrainOptions(command, "kto")
    .addHelpText(
      "after",
      `
Examples:
  $ zephyr-align kto --model runs/sft/model --data thumbs.jsonl --out runs/kto
  $ zephyr-align kto --model policy --ref reference --data pairs.jsonl --beta 0.05 --undesirable-weight 1.2
  $ zephyr-align kto --model policy --data thumbs.jsonl --loss-type apo_zero_unpaired`,
    )
    .action((flags) =>
      train("kto", flags, ({ model, ref, data, evalData, config, signal, overwrite, watch }) => {
        const held = evalData === undefined ? {} : { evalDataset: evalData };
        const reference = ref === undefined ? {} : { ref };
        const input = { policy: model, ...reference, dataset: data, ...held, signal, overwrite, watch };
        return new KtoTrainer({ ...config, ...input });
      }),
    );
}
