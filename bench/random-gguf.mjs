/**
 * Writes a GGUF file of a Llama with random weights: the shape of a real model for measurements, where none can be had.
 * What it says is noise; what it costs is what a model of that shape costs. The same arguments give the same bytes.
 *
 * usage: node bench/random-gguf.mjs FILE Q4_0|Q8_0|… [--shape 1.1b]
 *
 * The tokenizer is byte-level BPE: the bytes, then pairs of them up to the vocabulary's size.
 */
import { closeSync, openSync, renameSync, writeSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

/** Sizes under the names of config.json. */
export const shapes = {
  /** TinyLlama-1.1B's. */
  "1.1b": { hidden: 2048, inner: 5632, layers: 22, heads: 32, kvHeads: 4, vocabulary: 32000, context: 2048 },
  /** For tests of this script. */
  tiny: { hidden: 64, inner: 96, layers: 2, heads: 4, kvHeads: 2, vocabulary: 600, context: 256 },
};

/**
 * Block layouts of ggml: type number, `general.file_type`, values and bytes of a block, and where in it half-precision numbers
 * stand: scales and minima with which random codes are values of mean 0 and deviation 0.02.
 */
const kinds = {
  Q4_0: { type: 2, file: 2, values: 32, bytes: 18, halves: [[0, 0.02 / 4.61]] },
  Q5_0: { type: 6, file: 8, values: 32, bytes: 22, halves: [[0, 0.02 / 9.23]] },
  Q5_1: { type: 7, file: 9, values: 32, bytes: 24, halves: offset(0, 0.02 / 9.23, -15.5) },
  Q8_0: { type: 8, file: 7, values: 32, bytes: 34, halves: [[0, 0.02 / 73.9]] },
  Q2_K: { type: 10, file: 10, values: 256, bytes: 84, halves: offset(80, 0.02 / 14, 1.5) },
  Q3_K: { type: 11, file: 12, values: 256, bytes: 110, halves: [[108, 0.02 / 42]] },
  Q4_K: { type: 12, file: 15, values: 256, bytes: 144, halves: offset(0, 0.02 / 257, 7.5) },
  Q5_K: { type: 13, file: 17, values: 256, bytes: 176, halves: offset(0, 0.02 / 520, 15.5) },
  Q6_K: { type: 14, file: 18, values: 256, bytes: 210, halves: [[208, 0.02 / 1366]] },
};
const ALIGNMENT = 32;
const F32 = 0;

/** Writes the file; a half-written one is never left under its name. */
export function writeRandomGguf(file, kindName, shape) {
  const kind = kinds[kindName];
  if (!kind) throw new Error(`type ${kindName}: take ${Object.keys(kinds).join(", ")}`);
  const tensors = tensorsOf(shape, kind);
  const unfinished = `${file}.${process.pid}.tmp`;
  const out = openSync(unfinished, "w");
  try {
    const header = headerOf(shape, kind, tensors);
    writeSync(out, header);
    let written = header.length;
    const random = generator(1);
    for (const tensor of tensors) {
      const start = Math.ceil(written / ALIGNMENT) * ALIGNMENT;
      writeSync(out, Buffer.alloc(start - written));
      written = start + tensor.bytes;
      for (let done = 0; done < tensor.bytes; ) done += writeSync(out, tensor.part(random, done));
    }
  } finally {
    closeSync(out);
  }
  renameSync(unfinished, file);
}

/** The header alone, and the length of the whole file: what a file says of itself before it is there. */
export function randomGgufHeader(kindName, shape) {
  const tensors = tensorsOf(shape, kinds[kindName]);
  const header = headerOf(shape, kinds[kindName], tensors);
  return {
    header,
    bytes: tensors.reduce((end, { bytes }) => Math.ceil(end / ALIGNMENT) * ALIGNMENT + bytes, header.length),
  };
}

/** Names, sizes and the contents' makers, in the order of the file. */
function tensorsOf(shape, kind) {
  const { hidden, inner, heads, kvHeads, vocabulary } = shape;
  const keys = (hidden / heads) * kvHeads;
  const tensors = [];
  const norm = (name) =>
    tensors.push({
      name,
      dimensions: [hidden],
      type: F32,
      bytes: hidden * 4,
      part: () => Buffer.from(new Float32Array(hidden).fill(1).buffer),
    });
  const matrix = (name, rows, columns) => {
    if (columns % kind.values !== 0) throw new Error(`rows of ${columns} values are no blocks of ${kind.values}`);
    const blocks = (rows * columns) / kind.values;
    tensors.push({
      name,
      dimensions: [columns, rows],
      type: kind.type,
      bytes: blocks * kind.bytes,
      part: (random, done) => randomBlocks(random, kind, Math.min(1 << 15, blocks - done / kind.bytes)),
    });
  };
  matrix("token_embd.weight", vocabulary, hidden);
  for (let layer = 0; layer < shape.layers; layer++) {
    const name = (part) => `blk.${layer}.${part}.weight`;
    norm(name("attn_norm"));
    matrix(name("attn_q"), hidden, hidden);
    matrix(name("attn_k"), keys, hidden);
    matrix(name("attn_v"), keys, hidden);
    matrix(name("attn_output"), hidden, hidden);
    norm(name("ffn_norm"));
    matrix(name("ffn_gate"), inner, hidden);
    matrix(name("ffn_up"), inner, hidden);
    matrix(name("ffn_down"), hidden, inner);
  }
  norm("output_norm.weight");
  matrix("output.weight", vocabulary, hidden);
  return tensors;
}

/** A scale, and beside it the minimum in units of the scale. */
function offset(place, scale, minimum) {
  return [
    [place, scale],
    [place + 2, scale * minimum],
  ];
}

/** Random codes under each block's scale. */
function randomBlocks(random, kind, count) {
  const words = new Uint32Array(Math.ceil((count * kind.bytes) / 4));
  for (let index = 0; index < words.length; index++) words[index] = random();
  const bytes = Buffer.from(words.buffer, 0, count * kind.bytes);
  const halves = kind.halves.map(([place, value]) => [place, half(value)]);
  for (let block = 0; block < count; block++) {
    for (const [place, bits] of halves) bytes.writeUInt16LE(bits, block * kind.bytes + place);
  }
  return bytes;
}

/** The bits of a half-precision number, cut off. */
function half(value) {
  const size = Math.abs(value);
  const bits = new Uint32Array(new Float32Array([size]).buffer)[0];
  const magnitude =
    size < 2 ** -14 ? Math.floor(size * 2 ** 24) : ((bits >>> 23) - 112) * 1024 + ((bits >>> 13) & 1023);
  return value < 0 ? magnitude + 0x8000 : magnitude;
}

/** xorshift32 */
function generator(seed) {
  let state = seed;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

function headerOf(shape, kind, tensors) {
  const { tokens, types, merges } = vocabularyOf(shape.vocabulary);
  const [text, list] = [8, 9];
  const keys = [
    ["general.architecture", text, "llama"],
    ["general.name", text, "random weights"],
    ["general.file_type", 4, kind.file],
    ["llama.block_count", 4, shape.layers],
    ["llama.context_length", 4, shape.context],
    ["llama.embedding_length", 4, shape.hidden],
    ["llama.feed_forward_length", 4, shape.inner],
    ["llama.attention.head_count", 4, shape.heads],
    ["llama.attention.head_count_kv", 4, shape.kvHeads],
    ["llama.rope.dimension_count", 4, shape.hidden / shape.heads],
    ["llama.rope.freq_base", 6, 10_000],
    ["llama.attention.layer_norm_rms_epsilon", 6, 1e-5],
    ["llama.vocab_size", 4, shape.vocabulary],
    ["tokenizer.ggml.model", text, "gpt2"],
    ["tokenizer.ggml.pre", text, "gpt-2"],
    ["tokenizer.ggml.tokens", list, [text, tokens]],
    ["tokenizer.ggml.token_type", list, [5, types]],
    ["tokenizer.ggml.merges", list, [text, merges]],
    ["tokenizer.ggml.bos_token_id", 4, 0],
    ["tokenizer.ggml.eos_token_id", 4, 1],
  ];
  const parts = [];
  const number = (kind, value) => {
    const bytes = Buffer.alloc(kind === 10 ? 8 : 4);
    if (kind === 10) bytes.writeBigUInt64LE(BigInt(value));
    else if (kind === 6) bytes.writeFloatLE(value);
    else bytes.writeUInt32LE(value);
    parts.push(bytes);
  };
  const string = (value) => {
    const bytes = Buffer.from(value);
    number(10, bytes.length);
    parts.push(bytes);
  };
  const write = (kind, value) => {
    if (kind === text) string(value);
    else if (kind !== list) number(kind, value);
    else {
      const [of, values] = value;
      number(4, of);
      number(10, values.length);
      for (const each of values) write(of, each);
    }
  };
  parts.push(Buffer.from("GGUF"));
  number(4, 3);
  number(10, tensors.length);
  number(10, keys.length);
  for (const [key, kind, value] of keys) {
    string(key);
    number(4, kind);
    write(kind, value);
  }
  let offset = 0;
  for (const { name, dimensions, type, bytes } of tensors) {
    string(name);
    number(4, dimensions.length);
    for (const size of dimensions) number(10, size);
    number(4, type);
    number(10, offset);
    offset = Math.ceil((offset + bytes) / ALIGNMENT) * ALIGNMENT;
  }
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  return Buffer.concat([...parts, Buffer.alloc(Math.ceil(length / ALIGNMENT) * ALIGNMENT - length)]);
}

/** Two control tokens, the bytes as GPT-2 spells them, then pairs of bytes. */
function vocabularyOf(size) {
  const bytes = [];
  for (let byte = 0, unprintable = 0; byte < 256; byte++) {
    const printable = (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
    bytes.push(String.fromCodePoint(printable ? byte : 256 + unprintable++));
  }
  const tokens = ["<s>", "</s>", ...bytes];
  const merges = [];
  for (let pair = 0; tokens.length < size; pair++) {
    const [first, second] = [bytes[pair >> 8], bytes[pair & 255]];
    tokens.push(first + second);
    merges.push(`${first} ${second}`);
  }
  const [NORMAL, CONTROL] = [1, 3];
  return { tokens, merges, types: tokens.map((_, id) => (id < 2 ? CONTROL : NORMAL)) };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values, positionals } = parseArgs({
    options: { shape: { type: "string", default: "1.1b" } },
    allowPositionals: true,
  });
  const [file, kind] = positionals;
  const shape = shapes[values.shape];
  if (!file || !kinds[kind] || !shape) {
    console.error(`usage: node bench/random-gguf.mjs FILE ${Object.keys(kinds).join("|")} [--shape 1.1b]`);
    process.exit(1);
  }
  writeRandomGguf(file, kind, shape);
}
