/** Models and prompts on which native and WebAssembly must agree, and what each says of them. */
import { mkdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { writeRandomGguf } from "../../bench/random-gguf.mjs";
import type { GgufType } from "../../ts/model/gguf-export";
import type { LanguageModel } from "../../ts/model/language-model";
import { Mistral } from "../../ts/model/mistral";
import { cases, golden, readJson, smollm2 } from "../shared";

/** A model by its path, with conversations and texts. */
export interface Comparison {
  name: string;
  /** Folder or file. */
  path: string;
  /** `none` dequantises a GGUF file. */
  quantization: "auto" | "none";
  conversations: { messages: { role: "user" | "assistant" | "system"; content: string }[]; answer: string }[];
}

interface GoldenCase {
  messages: Comparison["conversations"][number]["messages"];
  continuation: string;
}

/** How far log-probabilities of given text may be apart: sums of float32 differ by their order and by fused steps. */
export const bound = 1e-3;

/** The real model on the golden prompts, and tiny ones whose weights are safetensors. */
export function comparisons(): Comparison[] {
  const real = readJson<{ cases: GoldenCase[] }>(golden, "smollm2", "smollm2.json").cases;
  const user = (content: string) => ({ role: "user" as const, content });
  const tiny = ["say it", "naïve café 你好 🙂", "a".repeat(40)].map((text) => ({
    messages: [user(text)],
    answer: "so be it",
  }));
  const smol = {
    path: smollm2,
    conversations: real.map(({ messages, continuation }) => ({ messages, answer: continuation })),
  };
  const whole = { quantization: "none" } as const;
  return [
    { name: "SmolLM2, dequantised", ...smol, ...whole },
    { name: "SmolLM2 in Q4_1", ...smol, quantization: "auto" },
    {
      name: "case 09 (safetensors)",
      path: join(cases, "09-null-and-array-content", "model"),
      conversations: tiny,
      ...whole,
    },
    {
      name: "the demo's base",
      path: join(import.meta.dirname, "../../recipes/demo/base"),
      conversations: tiny,
      ...whole,
    },
  ];
}

const typesFolder = join(tmpdir(), `zephyr-browser-types-${process.pid}`);
const exportedTypes = ["F16", "BF16", "Q8_0", "Q4_0", "Q4_K"] as const satisfies GgufType[];
const writtenTypes = ["Q5_0", "Q5_1", "Q5_K", "Q6_K"] as const;

/** A small model in every type of GGUF; {@link writeTypes} makes the files. */
export function typeComparisons(): Comparison[] {
  const conversations = ["say it", "naïve café 你好 🙂", "a ".repeat(40)].map((content) => ({
    messages: [{ role: "user" as const, content }],
    answer: "so be it",
  }));
  const all = [...exportedTypes, ...writtenTypes].flatMap((type) =>
    (["auto", "none"] as const).map((quantization) => ({ type, quantization })),
  );
  return all.map(({ type, quantization }) => ({
    name: `${type}, ${quantization === "auto" ? "as it is" : "dequantised"}`,
    path: join(typesFolder, `${type}.gguf`),
    quantization,
    conversations,
  }));
}

/** Writes the files of {@link typeComparisons}; gives their folder, to be removed. */
export async function writeTypes(): Promise<string> {
  mkdirSync(typesFolder, { recursive: true });
  const at = (type: string) => join(typesFolder, `${type}.gguf`);
  const base = await Mistral.fromPretrained(join(import.meta.dirname, "../../recipes/demo/base"));
  // Rows that K types have blocks for, and weights under which logits lie apart.
  const sizes = { hidden_size: 256, intermediate_size: 512, head_dim: 64, initializer_range: 0.1 };
  const model = await Mistral.random({ ...base.config, ...sizes }, base.tokenizer, 7);
  for (const type of exportedTypes) {
    const { tensors } = await model.exportGguf(at(type), { type });
    const wanted = type === "Q4_K" ? ["Q4_K", "Q6_K"] : [type];
    for (const each of wanted) if (!tensors[each]) throw new Error(`the file in ${type} has no tensor in ${each}`);
  }
  const shape = { hidden: 256, inner: 512, layers: 2, heads: 4, kvHeads: 2, vocabulary: 600, context: 512 };
  for (const type of writtenTypes) writeRandomGguf(at(type), type, shape);
  return typesFolder;
}

export const urlOf = (path: string): string => pathToFileURL(path).href;

/** Everything that must agree. */
export interface Said {
  ids: number[];
  chatIds: number[];
  supervised: number[];
  rendered: string;
  logprobs: number[];
  greedy: string;
  greedyIds: number[];
  stream: string;
}

/** Asks a model; as a string it also runs in a page. */
export async function ask(model: LanguageModel, conversations: Comparison["conversations"]): Promise<Said[]> {
  const all: Said[] = [];
  for (const { messages, answer } of conversations) {
    const whole = [...messages, { role: "assistant" as const, content: answer }];
    const ids = await model.tokenizer.encodePrompt(messages);
    const chat = await model.tokenizer.encodeChat(whole);
    const { logprobs } = await model.score(whole);
    const pieces: string[] = [];
    const said = await model.generate(messages, { maxTokens: 24, onToken: (piece) => pieces.push(piece) });
    all.push({
      ids: [...ids],
      chatIds: [...chat.ids],
      supervised: [...chat.supervised],
      rendered: await model.tokenizer.render(messages, { addGenerationPrompt: true }),
      logprobs: [...logprobs],
      greedy: said.text,
      greedyIds: [...said.ids],
      stream: pieces.join(""),
    });
  }
  return all;
}

/** The largest difference of two lists. */
export function farthest(a: readonly number[], b: readonly number[]): number {
  return a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i]!)), a.length === b.length ? 0 : Infinity);
}
