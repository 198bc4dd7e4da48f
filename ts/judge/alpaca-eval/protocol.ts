/** The two protocols of AlpacaEval, and the judge's prompt as the package's own files have it. */
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Sampling } from "../../client";
import type { Message } from "../../data";
import { fromNative, JudgeError } from "../../errors";
import { sha256 } from "../rows";

/** `1.0`: GPT-4 ranks two answers. `2.0`: the probability that GPT-4 Turbo's first token names the better one. */
export type AlpacaEvalVersion = "1.0" | "2.0";

/** What a version asks of the judge (`evaluators_configs/<annotator>/configs.yaml`). */
export interface AlpacaEvalProtocol {
  version: AlpacaEvalVersion;
  /** The annotator's name upstream. */
  annotator: string;
  /** Its prompt, under evaluators_configs. */
  prompt: string;
  /** The judge of the published numbers. */
  judge: string;
  /** The baseline of the published numbers. */
  baseline: string;
  sampling: Sampling;
}

export const alpacaEvalProtocols: Readonly<Record<AlpacaEvalVersion, AlpacaEvalProtocol>> = {
  "1.0": {
    version: "1.0",
    annotator: "alpaca_eval_gpt4",
    prompt: "alpaca_eval_gpt4/alpaca_eval.txt",
    judge: "gpt-4",
    baseline: "text_davinci_003",
    sampling: { temperature: 0, topP: 1, maxTokens: 100 },
  },
  "2.0": {
    version: "2.0",
    annotator: "weighted_alpaca_eval_gpt4_turbo",
    prompt: "alpaca_eval_clf_gpt4_turbo/alpaca_eval_clf.txt",
    judge: "gpt-4-1106-preview",
    baseline: "gpt4_1106_preview",
    // The sampled token is not read, only the alternatives of its place.
    sampling: { temperature: 1, topP: 1, maxTokens: 1, topLogprobs: 5 },
  },
};

/** A prompt of the package. */
export interface AlpacaEvalPrompt {
  text: string;
  /** sha256 of the file. */
  hash: string;
}

const configFolders = [
  "",
  "evaluators_configs",
  "alpaca_eval/evaluators_configs",
  "src/alpaca_eval/evaluators_configs",
];

/**
 * Reads the prompt of a protocol from a checkout of alpaca_eval, the installed package, or its evaluators_configs.
 *
 * @throws JudgeError `ZA_JUDGE_FILES` when it is not there.
 */
export async function readAlpacaEvalPrompt(path: string, { prompt }: AlpacaEvalProtocol): Promise<AlpacaEvalPrompt> {
  const file = configFolders.map((folder) => join(path, folder, prompt)).find(existsSync);
  if (file === undefined) {
    throw new JudgeError("ZA_JUDGE_FILES", `there is no ${prompt} in the folder`, {
      place: { file: path },
      remedy: "Give alpaca_eval's checkout or installed package, or fetch the prompts: zephyr-align pull alpaca-eval.",
    });
  }
  try {
    const bytes = await readFile(file);
    return { text: bytes.toString("utf8"), hash: sha256(bytes) };
  } catch (error) {
    throw fromNative(error, { file });
  }
}

/** What a prompt is filled with, in the order shown. */
export interface PromptValues {
  instruction: string;
  output_1: string;
  output_2: string;
}

/**
 * The conversation for the judge.
 *
 * `strict` cuts the template into messages first and fills each placeholder once: an output that holds placeholders or
 * `<|im_start|>` stays text. `compat` does as upstream (`make_prompts`, `prompt_to_chatml`): it fills one value after the
 * other, always the first place that reads like the placeholder, and cuts the filled text.
 */
export function judgeMessages(template: string, values: PromptValues, mode: "strict" | "compat"): Message[] {
  if (mode === "compat") return chatMessages(filledInTurn(template, values));
  return chatMessages(template).map(({ role, content }) => ({ role, content: filledOnce(content, values) }));
}

const start = "<|im_start|>";
const end = "<|im_end|>";

/** A text with `<|im_start|>role … <|im_end|>` as messages. */
export function chatMessages(prompt: string): Message[] {
  const text = prompt.trim();
  if (!text.startsWith(start) || !text.endsWith(end))
    throw malformed(`does not begin with ${start} and end with ${end}`);
  return text
    .split(start)
    .slice(1)
    .map((part) => {
      const line = part.indexOf("\n");
      const role = part.slice(0, Math.max(line, 0)).trim();
      if (line < 0 || (role !== "system" && role !== "user" && role !== "assistant")) {
        throw malformed(`has a part of role ${JSON.stringify(role || part.trim())}`);
      }
      return {
        role,
        content: part
          .slice(line + 1)
          .split(end, 1)[0]!
          .trim(),
      };
    });
}

const placeholder = /\{([^ \s]+?)\}/g;

function filledOnce(text: string, values: PromptValues): string {
  return text.replace(placeholder, (_, name: string) => filling(values, name));
}

function filledInTurn(template: string, values: PromptValues): string {
  const names = new Set([...template.matchAll(placeholder)].map(([, name]) => name!));
  let text = template;
  for (const name of names) text = text.replace(`{${name}}`, () => filling(values, name));
  return text;
}

function filling(values: PromptValues, name: string): string {
  if (Object.hasOwn(values, name)) return values[name as keyof PromptValues];
  throw malformed(`asks for {${name}}, which is not known here`);
}

function malformed(problem: string): JudgeError {
  return new JudgeError("ZA_JUDGE_PROMPT", `the judge's prompt ${problem}`, {
    remedy: "Take the prompt of alpaca_eval's own package.",
  });
}
