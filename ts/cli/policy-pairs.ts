/** `zephyr-align orpo`, `cpo` and `simpo`: preference pairs without a reference. */
import type { Command } from "commander";
import { CpoTrainer } from "../train/cpo-trainer";
import { OrpoTrainer } from "../train/orpo-trainer";
import { SimpoTrainer } from "../train/simpo-trainer";
import { addTrainOptions, train } from "./train";

const commands = {
  orpo: {
    Trainer: OrpoTrainer,
    description: "Fine-tune and align in one, with preference pairs and no reference (ORPO).",
    examples: ["--model ./mistral --data pairs.jsonl --beta 0.1 --out runs/orpo"],
  },
  cpo: {
    Trainer: CpoTrainer,
    description: "Align a model with preference pairs and no reference (CPO).",
    examples: [
      "--model runs/sft/model --data pairs.jsonl --cpo-alpha 1 --out runs/cpo",
      "--model runs/sft/model --data pairs.jsonl --loss-type simpo --cpo-alpha 0.1 --beta 2",
    ],
  },
  simpo: {
    Trainer: SimpoTrainer,
    description: "Align a model with preference pairs by its log-probs per token (SimPO).",
    examples: [
      "--model runs/sft/model --data pairs.jsonl --beta 2 --simpo-gamma 0.5 --out runs/simpo",
      "--model runs/sft/model --data pairs.jsonl --alpha 0.25",
    ],
  },
} as const;

/** Adds the three commands. */
export function addPolicyPairs(program: Command): void {
  for (const method of Object.keys(commands) as (keyof typeof commands)[]) {
    const { Trainer, description, examples } = commands[method];
    const command = program.command(method).description(description).helpGroup("Train:");
    const shown = examples.map((flags) => `  $ zephyr-align ${method} ${flags}`).join("\n");
    addTrainOptions(command, method)
      .addHelpText("after", `\nExamples:\n${shown}`)
      .action((flags) =>
        train(method, flags, ({ model, data, evalData, config, signal, overwrite, watch }) => {
          const held = evalData === undefined ? {} : { evalDataset: evalData };
          return new Trainer({ ...config, policy: model, dataset: data, ...held, signal, overwrite, watch });
        }),
      );
  }
}
