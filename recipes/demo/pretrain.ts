/**
 * The embedded base model: a small Mistral that has read plain text of the demo's world and nothing else. Seeded; the
 * result lies in `recipes/demo/base` (`npm run demo:pretrain` makes it again).
 */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Mistral } from "../../ts/model/mistral";
import { Tokenizer } from "../../ts/model/tokenizer";
import { packageVersion } from "../../ts/native/load";
import type { Metrics } from "../../ts/train/events";
import { fitShowing } from "../../ts/train/progress";
import { SftTrainer } from "../../ts/train/sft-trainer";
import { converse, corpus, makeTasks } from "./world";

/** Shape of the base model: 1.3 M parameters. */
const architecture = {
  architectures: ["MistralForCausalLM"],
  model_type: "mistral",
  hidden_act: "silu",
  hidden_size: 128,
  intermediate_size: 384,
  num_hidden_layers: 6,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 32,
  max_position_embeddings: 512,
  sliding_window: null,
  rope_theta: 10000,
  rms_norm_eps: 1e-5,
  initializer_range: 0.05,
  tie_word_embeddings: true,
  bos_token_id: 1,
  eos_token_id: 2,
} as const;

const vocabularySize = 1024;

/** Documents that a step reads. */
const batchSize = 64;

/** How the base is made. */
export interface PretrainOptions {
  /** Folder to write the base to. */
  out: string;
  seed: number;
  /** Optimiser steps of 64 documents. @default 900 */
  steps?: number;
  signal?: AbortSignal;
}

/**
 * The world's tokenizer: byte-level BPE over its plain text. A few conversations are read as well, so that the role
 * markers of the chat template are words and not letters; the model itself never sees one before dSFT.
 */
export function worldTokenizer(seed: number): Tokenizer {
  const texts = [...corpus({ seed, documents: 4000 })];
  const chats = makeTasks({ seed, split: "train", perCategory: 100 }).map((task) =>
    converse(task)
      .map(({ role, content }) => `<|${role}|>\n${content}\n`)
      .join(""),
  );
  const json = Tokenizer.train([...texts, ...chats], vocabularySize, ["<unk>", "<s>", "</s>"]);
  const config = {
    tokenizer_class: "PreTrainedTokenizerFast",
    bos_token: "<s>",
    eos_token: "</s>",
    unk_token: "<unk>",
  };
  return Tokenizer.fromFiles({
    tokenizer: Buffer.from(json),
    config: JSON.stringify({ ...config, pad_token: "<unk>", add_bos_token: false }),
    template: "zephyr",
  });
}

/** Trains the base and writes it. */
export async function runPretrain(options: PretrainOptions): Promise<Metrics> {
  const { seed, out, steps = 900, signal } = options;
  const tokenizer = worldTokenizer(seed);
  const config = { ...architecture, vocab_size: tokenizer.vocabularySize };
  const model = await Mistral.random(config, tokenizer, seed);
  const documents = [...corpus({ seed, documents: steps * batchSize })];
  const held = [...corpus({ seed: seed + 1_000_000, documents: 200 })];
  console.error(`base: ${(model.parameters / 1e6).toFixed(2)} M parameters, ${documents.length} documents`);
  const trainer = new SftTrainer({
    model,
    dataset: documents.map((text) => ({ text })),
    evalDataset: held.map((text) => ({ text })),
    batchSize,
    maxSteps: steps,
    maxLength: 256,
    truncation: "keep-start",
    learningRate: 3e-3,
    lrScheduler: "cosine",
    warmupSteps: Math.min(60, Math.floor(steps / 10)),
    weightDecay: 0.05,
    adamBeta2: 0.98,
    seed,
    logSteps: 20,
    recompute: "none",
    ...(signal ? { signal } : {}),
  });
  const { metrics, history } = await fitShowing(trainer);
  await mkdir(out, { recursive: true });
  await model.save(out, { dtype: "bfloat16" });
  const evaluated = history.findLast((line) => "eval_loss" in line);
  const record = {
    version: packageVersion(),
    seed,
    steps,
    batchSize,
    documents: documents.length,
    ...metrics,
    ...evaluated,
  };
  await writeFile(join(out, "pretrain.json"), `${JSON.stringify(record, null, 2)}\n`);
  return metrics;
}
