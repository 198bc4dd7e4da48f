/**
 * Writes the corpus that fuzzing starts from: small files of our own making, one folder a target. The same package gives the
 * same bytes.
 *
 * usage: node fuzz/make-corpus.mjs      (after npm run build)
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Mistral, Tokenizer } from "../dist/index.js";

const scratch = mkdtempSync(join(tmpdir(), "zephyr-corpus-"));
const put = (target, name, content) => {
  const folder = fileURLToPath(new URL(`corpus/${target}`, import.meta.url));
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, name), content);
};

const special = (id, content) => {
  const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false };
  return { id, content, ...flags, special: true };
};
const specials = ["<unk>", "<s>", "</s>"];
const config = { bos_token: "<s>", eos_token: "</s>", unk_token: "<unk>", add_bos_token: true };

/** Byte-level BPE of few tokens: what is not in the vocabulary is dropped. */
const byteLevel = {
  version: "1.0",
  added_tokens: specials.map((content, id) => special(id, content)),
  normalizer: null,
  pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
  post_processor: null,
  decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
  model: {
    type: "BPE",
    dropout: null,
    unk_token: null,
    continuing_subword_prefix: null,
    end_of_word_suffix: null,
    fuse_unk: false,
    byte_fallback: false,
    ignore_merges: false,
    vocab: Object.fromEntries(
      [...specials, "h", "e", "l", "o", "Ġ", "he", "ll", "hell", "hello"].map((t, id) => [t, id]),
    ),
    merges: [
      ["h", "e"],
      ["l", "l"],
      ["he", "ll"],
      ["hell", "o"],
    ],
  },
};

/** SentencePiece's kind, with four bytes. */
const sentencePiece = {
  ...byteLevel,
  pre_tokenizer: null,
  normalizer: {
    type: "Sequence",
    normalizers: [
      { type: "Prepend", prepend: "▁" },
      { type: "Replace", pattern: { String: " " }, content: "▁" },
    ],
  },
  post_processor: {
    type: "TemplateProcessing",
    single: [{ SpecialToken: { id: "<s>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
    pair: [{ Sequence: { id: "A", type_id: 0 } }, { Sequence: { id: "B", type_id: 1 } }],
    special_tokens: { "<s>": { id: "<s>", ids: [1], tokens: ["<s>"] } },
  },
  decoder: {
    type: "Sequence",
    decoders: [
      { type: "Replace", pattern: { String: "▁" }, content: " " },
      { type: "ByteFallback" },
      { type: "Fuse" },
      { type: "Strip", content: " ", start: 1, stop: 0 },
    ],
  },
  model: {
    ...byteLevel.model,
    unk_token: "<unk>",
    fuse_unk: true,
    byte_fallback: true,
    vocab: Object.fromEntries(
      [...specials, "<0x0A>", "<0x20>", "<0x61>", "▁", "h", "e", "l", "o", "he", "ll", "hell", "hello", "▁hello"].map(
        (t, id) => [t, id],
      ),
    ),
    merges: ["h e", "l l", "he ll", "hell o", "▁ hello"],
  },
};

/** The kinds that are read and not written. */
const unigram = {
  ...sentencePiece,
  normalizer: {
    type: "Sequence",
    normalizers: [{ type: "NFKC" }, { type: "Lowercase" }, { type: "Strip", strip_left: true, strip_right: true }],
  },
  pre_tokenizer: { type: "Metaspace", replacement: "▁", prepend_scheme: "first", split: true },
  decoder: { type: "Metaspace", replacement: "▁", prepend_scheme: "first", split: true },
  model: {
    type: "Unigram",
    unk_id: 0,
    byte_fallback: false,
    vocab: [
      ["<unk>", 0],
      ["<s>", 0],
      ["</s>", 0],
      ["▁", -2],
      ["hell", -3],
      ["o", -4],
      ["▁hello", -5],
    ],
  },
};
const digits = {
  ...byteLevel,
  pre_tokenizer: {
    type: "Sequence",
    pretokenizers: [
      { type: "Digits", individual_digits: true },
      { type: "Split", pattern: { Regex: "\\s+|\\w+" }, behavior: "Isolated", invert: false },
      { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false },
    ],
  },
};
const tokenizers = { byteLevel, sentencePiece, unigram, digits };
for (const [name, file] of Object.entries(tokenizers)) put("tokenizer_json", `${name}.json`, JSON.stringify(file));

const shape = {
  model_type: "mistral",
  hidden_size: 32,
  intermediate_size: 32,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  max_position_embeddings: 16,
  sliding_window: 8,
};
for (const [name, tokenizer] of Object.entries({ byteLevel, sentencePiece })) {
  const read = Tokenizer.fromFiles({
    tokenizer: Buffer.from(JSON.stringify(tokenizer)),
    config: JSON.stringify(config),
  });
  const tied = name === "sentencePiece";
  const model = await Mistral.random(
    { ...shape, vocab_size: read.vocabularySize + 1, tie_word_embeddings: tied },
    read,
    1,
  );
  for (const type of tied ? ["F32", "Q4_0"] : ["F16", "Q8_0"]) {
    const file = join(scratch, `${name}.gguf`);
    await model.exportGguf(file, { type, name });
    put("gguf", `${name}-${type}.gguf`, readFileSync(file));
  }
  await model.save(join(scratch, name), { dtype: tied ? "bfloat16" : "float32" });
  put("safetensors_header", `${name}.safetensors`, readFileSync(join(scratch, name, "model.safetensors")));
  put("config_json", `${name}.json`, readFileSync(join(scratch, name, "config.json")));
}
const tiny = (header, data) => {
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text, Buffer.alloc(data)]);
};
put("safetensors_header", "no-tensors.safetensors", tiny({ __metadata__: { step: "12" } }, 0));
put(
  "safetensors_header",
  "types.safetensors",
  tiny(
    {
      b: { dtype: "I64", shape: [2], data_offsets: [4, 20] },
      a: { dtype: "F16", shape: [2, 1], data_offsets: [0, 4] },
      none: { dtype: "U8", shape: [3, 0], data_offsets: [20, 20] },
      scalar: { dtype: "BOOL", shape: [], data_offsets: [20, 21] },
    },
    21,
  ),
);
put(
  "config_json",
  "llama.json",
  JSON.stringify({
    architectures: ["LlamaForCausalLM"],
    vocab_size: 100,
    hidden_size: 64,
    intermediate_size: 128,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    rope_parameters: { rope_theta: 500000, rope_type: "default" },
    eos_token_id: [2, 7],
    attention_bias: false,
    layer_types: ["full_attention", "full_attention"],
  }),
);
const templates = {
  "zephyr.jinja": (await Mistral.fromPretrained(fileURLToPath(new URL("../recipes/demo/base", import.meta.url))))
    .tokenizer.chatTemplate,
  "chatml.jinja":
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message['content'] | trim + '<|im_end|>\\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}",
  "many-features.jinja":
    "{{ bos_token }}{% set ns = namespace(n=0) %}{% macro say(m, loud=false) %}{{ m.content.upper() if loud else m['content'] }}{% endmacro %}{% for m in messages if m.role != 'system' %}{% set ns.n = ns.n + 1 %}{% if loop.index0 % 2 == 1 and m.role not in ['assistant'] %}{{ raise_exception('roles ' ~ m.role) }}{% endif %}{% generation %}{{ say(m) }}{% endgeneration %}{{ {'a': [1, 2.0, none]} | tojson(indent=2) }}{{ eos_token if not loop.last }}{% endfor %}{{ ns.n }} {{ messages[0]['content'][:3] }} {{ strftime_now('%Y') | length }} {{ range(3) | list | join(', ') }}",
};
for (const [name, source] of Object.entries(templates)) put("chat_template", name, source);
rmSync(scratch, { recursive: true, force: true });
