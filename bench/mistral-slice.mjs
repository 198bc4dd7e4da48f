/**
 * A slice of Mistral-7B at half its width: two layers, and a head that is as small beside them as Mistral's beside its
 * thirty-two. Weights are random: it speaks nonsense; a step's parts cost in proportion what those of Mistral cost.
 */
import { closeSync, copyFileSync, mkdirSync, openSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";

/** The demo's, whose vocabulary of 1024 is to this slice's layers what 32000 is to Mistral's. */
const tokenizer = join(import.meta.dirname, "..", "recipes", "demo", "base");

/** Half of Mistral-7B's hidden and inner sizes and heads; its head dimension and its four queries a key. */
const config = {
  architectures: ["MistralForCausalLM"],
  model_type: "mistral",
  hidden_act: "silu",
  hidden_size: 2048,
  intermediate_size: 7168,
  num_hidden_layers: 2,
  num_attention_heads: 16,
  num_key_value_heads: 4,
  head_dim: 128,
  max_position_embeddings: 32768,
  sliding_window: null,
  rope_theta: 10000,
  rms_norm_eps: 1e-5,
  tie_word_embeddings: false,
  bos_token_id: 1,
  eos_token_id: 2,
  vocab_size: 1024,
  torch_dtype: "bfloat16",
};

/** Writes the model into `folder`; returns it. The bytes are the same each time. */
export function mistralSlice(folder) {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "config.json"), JSON.stringify(config));
  for (const name of ["tokenizer.json", "tokenizer_config.json"])
    copyFileSync(join(tokenizer, name), join(folder, name));

  const header = {};
  let end = 0;
  const tensors = [...shapes()];
  for (const [name, ...shape] of tensors) {
    const bytes = 2 * shape.reduce((product, size) => product * size, 1);
    header[name] = { dtype: "BF16", shape, data_offsets: [end, end + bytes] };
    end += bytes;
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const file = openSync(join(folder, "model.safetensors"), "w");
  try {
    writeSync(file, length);
    writeSync(file, text);
    const random = generator(1);
    for (const [, rows, columns] of tensors) writeSync(file, columns ? uniform(random, rows * columns) : ones(rows));
  } finally {
    closeSync(file);
  }
  return folder;
}

/** Names and shapes, in the order of the file. */
function* shapes() {
  const { hidden_size: hidden, intermediate_size: inner, vocab_size: vocabulary, head_dim: dim } = config;
  const [queries, keys] = [config.num_attention_heads * dim, config.num_key_value_heads * dim];
  yield ["model.embed_tokens.weight", vocabulary, hidden];
  for (let index = 0; index < config.num_hidden_layers; index++) {
    const layer = `model.layers.${index}`;
    yield [`${layer}.input_layernorm.weight`, hidden];
    yield [`${layer}.self_attn.q_proj.weight`, queries, hidden];
    yield [`${layer}.self_attn.k_proj.weight`, keys, hidden];
    yield [`${layer}.self_attn.v_proj.weight`, keys, hidden];
    yield [`${layer}.self_attn.o_proj.weight`, hidden, queries];
    yield [`${layer}.post_attention_layernorm.weight`, hidden];
    yield [`${layer}.mlp.gate_proj.weight`, inner, hidden];
    yield [`${layer}.mlp.up_proj.weight`, inner, hidden];
    yield [`${layer}.mlp.down_proj.weight`, hidden, inner];
  }
  yield ["model.norm.weight", hidden];
  yield ["lm_head.weight", vocabulary, hidden];
}

/** bf16 numbers of random sign and a magnitude from 2⁻⁷ to 2⁻⁵. */
function uniform(random, count) {
  const values = new Uint16Array(count);
  for (let index = 0; index < count; index++) {
    const bits = random();
    values[index] = ((bits & 1) << 15) | ((120 << 7) + ((bits >>> 8) & 255));
  }
  return Buffer.from(values.buffer);
}

function ones(count) {
  return Buffer.from(new Uint16Array(count).fill(0x3f80).buffer);
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
