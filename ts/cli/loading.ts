import { type Command, Option } from "commander";
import type { LoadOptions } from "../model/mistral";
import type { DeviceName } from "../native/devices";
import { showDownload } from "./show-download";

/** Flags that say how a model is read. */
export interface LoadingFlags {
  tokenizer?: string;
  dtype?: "float32" | "bfloat16";
  quantization?: "nf4" | "gguf" | "none";
  device?: DeviceName;
}

/** Adds `--device` to a command whose other flags do not have it. */
export function addDeviceOption(command: Command): Command {
  return command.option(
    "--device <name>",
    "auto (a card that can be used, else the CPU), cpu, cuda, or cuda:1 for the second card. (default: auto)",
  );
}

/**
 * Adds them. To a command that trains, `frozen` says what becomes of weights that are kept in less than float32; any other
 * command keeps a quantised GGUF file as it is unless a flag says otherwise ({@link loadingToUse}).
 */
export function addLoadingOptions(command: Command, frozen = ""): Command {
  const trains = frozen !== "";
  const kept = "nf4, or gguf: as in the GGUF file";
  return command
    .option("--tokenizer <folder>", "Folder of the tokenizer, when it is not the model's.")
    .addOption(
      new Option(
        "--dtype <name>",
        `Keep the weights as float32, or as bfloat16 in half the memory${frozen}. (default: float32)`,
      ).choices(["float32", "bfloat16"]),
    )
    .addOption(
      new Option(
        "--quantization <name>",
        trains
          ? `Keep the weights in fewer bits${frozen}: ${kept} (QLoRA).`
          : `Keep the weights in fewer bits: ${kept}. (default: gguf for quantised GGUF files)`,
      ).choices(trains ? ["nf4", "gguf"] : ["none", "nf4", "gguf"]),
    );
}

/** As `Mistral.fromPretrained` takes them, to train. */
export function loadingOf({ tokenizer, dtype, quantization, device }: LoadingFlags): LoadOptions {
  return {
    ...(tokenizer === undefined ? {} : { tokenizer }),
    ...(dtype === undefined ? {} : { dtype }),
    ...(quantization === undefined ? {} : { quantization }),
    ...(device === undefined ? {} : { device }),
    hub: { onProgress: showDownload() },
  };
}

/** As `Mistral.fromPretrained` takes them, to use the model as it is. */
export function loadingToUse(flags: LoadingFlags): LoadOptions {
  const open = flags.dtype === undefined && flags.quantization === undefined;
  return { ...(open ? { quantization: "auto" } : {}), ...loadingOf(flags) };
}
