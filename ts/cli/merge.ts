import { type Command, Option } from "commander";
import { Mistral } from "../model/mistral";
import { wholeNumber } from "./arguments";
import { styleOf } from "./style";

interface MergeFlags {
  out: string;
  dtype: "float32" | "bfloat16" | "float16";
  maxShardBytes?: number;
  tokenizer?: string;
}

/** `zephyr-align merge`: an adapter written into its base model. */
export function addMerge(program: Command): void {
  program
    .command("merge")
    .helpGroup("Use and judge:")
    .description("Write a LoRA adapter into its base model: W + scale·B·A.")
    .argument("<base>", "Base model: a folder in Hugging Face's layout, or a GGUF file.")
    .argument("<adapter>", "Folder of the adapter, as PEFT or a run writes it.")
    .requiredOption("-o, --out <folder>", "Folder of the merged model.")
    .addOption(
      new Option("--dtype <name>", "Type of the saved weights.")
        .choices(["float32", "bfloat16", "float16"])
        .default("float32"),
    )
    .option("--max-shard-bytes <n>", "Largest file; bigger models are sharded. (default: 5000000000)", wholeNumber(1))
    .option("--tokenizer <folder>", "Folder of the tokenizer, when it is not the base's.")
    .action(async (base: string, adapter: string, { out, dtype, maxShardBytes, tokenizer }: MergeFlags) => {
      const model = await Mistral.fromPretrained(base, { adapter, ...(tokenizer === undefined ? {} : { tokenizer }) });
      await (await model.merge()).save(out, { dtype, ...(maxShardBytes === undefined ? {} : { maxShardBytes }) });
      process.stdout.write(`merged into ${styleOf(process.stdout).cyan(out)}\n`);
    });
}
