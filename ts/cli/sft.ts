import type { Command } from "commander";
import { SftTrainer } from "../train/sft-trainer";
import { addTrainOptions, train } from "./train";

/** `zephyr-align sft`: supervised fine-tuning. */
export function addSft(program: Command): void {
  const command = program.command("sft").description("Fine-tune a model on conversations (dSFT).").helpGroup("Train:");
  addTrainOptions(command, "sft")
    .addHelpText(
      "after",
      `
Examples:
  $ zephyr-align sft --model ./mistral --data conversations.jsonl --recipe zephyr --out runs/sft
  $ zephyr-align sft --model model.gguf --data chats.json --max-length 512 --batch-size 2 --epochs 1
  $ zephyr-align sft --config runs/sft/config.json --data conversations.jsonl --out runs/sft --resume`,
    )
    .action((flags) =>
      train("sft", flags, ({ model, data, evalData, config, signal, overwrite, watch }) => {
        const held = evalData === undefined ? {} : { evalDataset: evalData };
        return new SftTrainer({ ...config, model, dataset: data, ...held, signal, overwrite, watch });
      }),
    );
}
