/** The flags of the commands that show rows as tokens: whose tokenizer, and how training would encode and cut. */
import { statSync } from "node:fs";
import { type Command, Option } from "commander";
import { Mistral } from "../model/mistral";
import { folderTokenizer, type Tokenizer } from "../model/tokenizer";
import type { SeenOptions } from "../train/seen-row";
import { wholeNumber } from "./arguments";
import { templateOf } from "./config-options";

/** What {@link addMaskFlags} adds. */
export interface MaskFlags {
  model?: string;
  tokenizer?: string;
  template: string;
  maxLength?: number;
  truncation: "keep-answer" | "keep-start";
  lossOn: "assistant" | "all";
  answerEnd: "eos" | "turn";
  specialsInContent: "text" | "parse";
}

/** Adds the flags. */
export function addMaskFlags(command: Command): Command {
  return command
    .option("--tokenizer <folder>", "Folder with tokenizer.json.")
    .option("--model <path>", "Model whose tokenizer is taken: a folder or a GGUF file.")
    .option("--template <name|file>", "Chat template: model, zephyr, or a Jinja file.", "model")
    .option("--max-length <n>", "Cut as training would. (default: nothing is cut)", wholeNumber(2))
    .addOption(choices("--truncation <name>", "How long rows are cut.", ["keep-answer", "keep-start"]))
    .addOption(choices("--loss-on <name>", "Tokens that are learnt.", ["assistant", "all"]))
    .addOption(choices("--answer-end <name>", "Where an answer ends.", ["eos", "turn"]))
    .addOption(choices("--specials-in-content <name>", "Content that spells a special token.", ["text", "parse"]));
}

function choices(flag: string, text: string, names: string[]): Option {
  return new Option(flag, text).choices(names).default(names[0]);
}

/** The tokenizer that the flags name, with its template; none when they name none. */
export async function tokenizerOf({ tokenizer, model, template }: MaskFlags): Promise<Tokenizer | undefined> {
  const found = tokenizer === undefined ? await tokenizerOfModel(model) : await folderTokenizer(tokenizer);
  return found?.withTemplate(templateOf(template));
}

async function tokenizerOfModel(model: string | undefined): Promise<Tokenizer | undefined> {
  if (model === undefined) return undefined;
  // A folder's tokenizer needs no weights; that of a GGUF file lies among them.
  if (statSync(model, { throwIfNoEntry: false })?.isDirectory()) return folderTokenizer(model);
  return (await Mistral.fromPretrained(model)).tokenizer;
}

/** How training with these flags would see a row. */
export function seenOptions({ maxLength, truncation, lossOn, answerEnd, specialsInContent }: MaskFlags): SeenOptions {
  return {
    maxLength: maxLength ?? Number.MAX_SAFE_INTEGER,
    maxPromptLength: null,
    truncation,
    lossOn,
    answerEnd,
    specialsInContent,
    onBadRow: "skip",
  };
}
