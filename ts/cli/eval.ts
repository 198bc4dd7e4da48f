import type { Command } from "commander";
import { addEvalAlpacaEval } from "./eval-alpaca-eval";
import { addEvalChoice } from "./eval-choice";
import { addEvalLogprob } from "./eval-logprob";
import { addEvalMtBench } from "./eval-mt-bench";

/** `zephyr-align eval`: by log-probability, and by a judge. */
export function addEval(program: Command): void {
  const group = program
    .command("eval")
    .helpGroup("Use and judge:")
    .description("Evaluate: log-probabilities (the default), multiple choice, MT-Bench, AlpacaEval.");
  for (const add of [addEvalLogprob, addEvalChoice, addEvalMtBench, addEvalAlpacaEval]) add(group);
  group.addHelpText(
    "after",
    `
Examples:
  $ zephyr-align eval --model runs/sft/model --data held-out.jsonl                 the same as eval logprob
  $ zephyr-align eval choice --model runs/dpo/model --data arc.jsonl
  $ zephyr-align eval mt-bench --model runs/dpo/model --judge gpt-4-0613`,
  );
}
