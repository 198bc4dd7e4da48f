/** `zephyr-align export gguf`: a model as one file that llama.cpp, node-llama-cpp, Ollama and wllama load. */
import { type Command, Option } from "commander";
import { type GgufExport, type GgufType, ggufTypes } from "../model/gguf-export";
import { Mistral } from "../model/mistral";
import { dataSize } from "../report/format";
import { templateOf } from "./config-options";
import { writeJsonFile } from "./json-file";
import { showDownload } from "./show-download";
import { styleOf } from "./style";

interface ExportFlags {
  type: GgufType;
  adapter?: string;
  tokenizer?: string;
  template: string;
  name?: string;
  dtype: "float32" | "bfloat16";
  json?: string;
}

/** Adds `export`. */
export function addExport(program: Command): void {
  const command = program
    .command("export")
    .helpGroup("Use and judge:")
    .description("Write a model in the format of another program.");
  command
    .command("gguf")
    .description("One GGUF file with tokenizer and chat template: for llama.cpp, node-llama-cpp, Ollama, wllama.")
    .argument("<model>", "Model: a folder in Hugging Face's layout, a GGUF file, or an id at the Hub.")
    .argument("<file>", "The GGUF file.")
    .addOption(new Option("--type <name>", "Type of the matrices.").choices([...ggufTypes]).default("F16"))
    .option("--adapter <folder>", "LoRA adapter that is merged into the model first.")
    .option("--tokenizer <folder>", "Folder of the tokenizer, when it is not the model's.")
    .option("--template <name|file>", "Chat template: model, zephyr, or a Jinja file.", "model")
    .option("--name <text>", "The model's name in the file. (default: the last part of its path)")
    .addOption(
      new Option("--dtype <name>", "How the weights are kept meanwhile; bfloat16 halves the memory.")
        .choices(["float32", "bfloat16"])
        .default("float32"),
    )
    .option("--json <file>", "What was written, as JSON.")
    .addHelpText(
      "after",
      `
Examples:
  $ zephyr-align export gguf runs/dpo/model zephyr.gguf --type Q8_0
  $ zephyr-align export gguf mistralai/Mistral-7B-v0.1 zephyr.gguf --adapter runs/dpo/adapter --type Q4_K`,
    )
    .action(exportGguf);
}

async function exportGguf(source: string, file: string, flags: ExportFlags): Promise<void> {
  const { type, adapter, tokenizer, template, name, dtype, json } = flags;
  const loaded = await Mistral.fromPretrained(source, {
    dtype,
    ...(adapter === undefined ? {} : { adapter }),
    ...(tokenizer === undefined ? {} : { tokenizer }),
    hub: { onProgress: showDownload() },
  });
  // An adapter's folder is loaded with its base, too.
  const merged = loaded.adapter ? await loaded.merge() : loaded;
  const model = merged.withTemplate(templateOf(template));
  const written = await model.exportGguf(file, { type, ...(name === undefined ? {} : { name }) });
  await writeJsonFile(json, { ...written, source, adapter: adapter ?? null, parameters: model.parameters });
  process.stdout.write(textOf(written));
}

function textOf({ file, bytes, tensors, notes }: GgufExport): string {
  const { cyan, dim, yellow } = styleOf(process.stdout);
  const types = Object.entries(tensors).map(([type, count]) => `${count} × ${type}`);
  const lines = [`${cyan(file)} ${dim(`${dataSize(bytes)}, ${types.join(", ")}`)}`];
  return [...lines, ...notes.map((note) => `${yellow("note")} ${note}`)].map((line) => `${line}\n`).join("");
}
