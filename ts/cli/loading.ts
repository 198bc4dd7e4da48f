import { type Command, Option } from "commander";
import type { LoadOptions } from "../model/mistral";
import type { DeviceName } from "../native/devices";
import { showDownload } from "./show-download";

/** Flags that say how a model is read. */
export interface LoadingFlags {
  tokenizer?: string;
  dtype?: "float32" | "bfloat16";
  quantization?: "nf4";
  device?: DeviceName;
}

/** Adds `--device` to a command whose other flags do not have it. */
export function addDeviceOption(command: Command): Command {
  return command.option(
    "--device <name>",
    "auto (a card that can be used, else the CPU), cpu, cuda, or cuda:1 for the second card. (default: auto)",
  );
}

/** Adds them; weights that are kept in less than float32 are frozen, which is `frozen`'s affair. */
export function addLoadingOptions(command: Command, frozen = ""): Command {
  return command
    .option("--tokenizer <folder>", "Folder of the tokenizer, when it is not the model's.")
    .addOption(
      new Option(
        "--dtype <name>",
        `Keep the weights as float32, or as bfloat16 in half the memory${frozen}. (default: float32)`,
      ).choices(["float32", "bfloat16"]),
    )
    .addOption(
      new Option("--quantization <name>", `Keep the weights in 4 bits${frozen && `${frozen} (QLoRA)`}.`).choices([
        "nf4",
      ]),
    );
}

/** As `Mistral.fromPretrained` takes them. */
export function loadingOf({ tokenizer, dtype, quantization, device }: LoadingFlags): LoadOptions {
  return {
    ...(tokenizer === undefined ? {} : { tokenizer }),
    ...(dtype === undefined ? {} : { dtype }),
    ...(quantization === undefined ? {} : { quantization }),
    ...(device === undefined ? {} : { device }),
    hub: { onProgress: showDownload() },
  };
}
