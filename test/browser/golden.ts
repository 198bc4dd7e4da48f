/** Models and prompts on which native and WebAssembly must agree, and what each says of them. */
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import type { LanguageModel } from "../../ts/model/language-model";
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
