/** How a model is loaded, and in which form its weights are kept. */
import { ModelError } from "../errors";
import type { HubOptions } from "../hub/settings";
import type { DeviceName } from "../native/devices";
import { native } from "../native/load";
import { checkOptions, optionError, type Rule, shown, text } from "./option-rules";

/** How a model is loaded. */
export interface LoadOptions {
  /**
   * Where the model generates, scores, is trained and evaluated. "auto" is the first card that can be used, else the CPU; "cuda"
   * that card, "cuda:1" the second one. What can be used, and why not, is told by {@link devices} and `zephyr-align doctor`.
   * @default "auto"
   */
  device?: DeviceName;
  /** Jinja source of a chat template that replaces the model's own, or `"zephyr"`. */
  template?: string;
  /** Folder of the tokenizer, when it is not the model's. */
  tokenizer?: string;
  /** Folder of a LoRA adapter of this model, as PEFT writes it. */
  adapter?: string;
  /** For the id of a model at the Hub: branch, tag or commit. @default "main" */
  revision?: string;
  /** How the Hub is reached; the environment variables of huggingface_hub are honoured. */
  hub?: HubOptions;
  /**
   * "bfloat16" keeps the weights frozen in half the memory: for generating, scoring, and training an adapter (`lora`);
   * sums are float32 in any case. @default "float32"
   */
  dtype?: "float32" | "bfloat16";
  /**
   * Weights in fewer bits, frozen: for generating, scoring, and training an adapter over them.
   *
   * - "nf4" keeps the projections in 4.1 bits each, as bitsandbytes does (QLoRA), and embeddings and head as bfloat16.
   * - "gguf" keeps every tensor of a GGUF file in the type that it has there. Answers are those of the dequantised model
   *   to a few thousandths in their log-probabilities, at a fraction of its memory and several times its speed.
   * - "auto" is "gguf" for a GGUF file with quantised tensors, all of types that can be kept; else what `dtype` says.
   *
   * - "none" is what `dtype` says: float32 alone can be trained itself.
   *
   * @default "none"
   */
  quantization?: "none" | "nf4" | "gguf" | "auto";
}

const object: Rule = { fits: (value) => typeof value === "object" && value !== null, take: "an object" };

/** What `dtype` and `quantization` may be, and what `device` is called, is checked where they are read. */
const rules: Readonly<Record<string, Rule>> = {
  device: text,
  template: text,
  tokenizer: text,
  adapter: text,
  revision: text,
  hub: object,
  dtype: text,
  quantization: text,
};

const elsewhere = { loadin4bit: "quantization", torchdtype: "dtype", chattemplate: "template", token: "hub.token" };

/** @throws ConfigError `ZA_ARGUMENT`, `ZA_CONFIG_INVALID` */
export function checkLoading(source: unknown, options: object): void {
  if (typeof source !== "string" || source === "") {
    const remedy = "Give a folder, a GGUF file, or the id of a model at the Hub.";
    throw optionError("ZA_ARGUMENT", "source", `the model's source is ${shown(source)}`, remedy);
  }
  checkOptions(options, rules, "ZA_CONFIG_INVALID", elsewhere);
}

/** The core's name of the form in which the weights of `path` are kept. */
export function storageOf(path: string, { dtype = "float32", quantization }: LoadOptions): string {
  const wrong = (field: string, value: unknown, remedy: string) =>
    new ModelError("ZA_MODEL_INVALID", `${field} ${JSON.stringify(value)} is not one of its values`, {
      place: { field },
      remedy,
    });
  if (dtype !== "float32" && dtype !== "bfloat16") throw wrong("dtype", dtype, 'Take "float32" or "bfloat16".');
  switch (quantization) {
    case undefined:
    case "none":
      return dtype;
    case "nf4":
    case "gguf":
      return quantization;
    case "auto":
      return native().NativeModel.keepsGguf(path) ? "gguf" : dtype;
    default:
      throw wrong("quantization", quantization, 'Take "none", "nf4", "gguf" or "auto".');
  }
}
