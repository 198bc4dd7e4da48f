/**
 * A model whose head is as small beside its layers as Mistral's: the real model's layers, several times over. It speaks
 * nonsense; a step costs what a step of such a model costs.
 */
import {
  closeSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";

/** Writes the folder's model with its layers `times` over into `out`; returns `out`. */
export function repeatLayers(folder, times, out) {
  mkdirSync(out, { recursive: true });
  const config = JSON.parse(readFileSync(join(folder, "config.json"), "utf8"));
  const layers = config.num_hidden_layers;
  writeFileSync(join(out, "config.json"), JSON.stringify({ ...config, num_hidden_layers: layers * times }));
  for (const name of ["tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"]) {
    if (existsSync(join(folder, name))) copyFileSync(join(folder, name), join(out, name));
  }

  const source = openSync(join(folder, "model.safetensors"), "r");
  const target = openSync(join(out, "model.safetensors"), "w");
  try {
    const length = Number(read(source, 0, 8).readBigUInt64LE());
    const { __metadata__, ...tensors } = JSON.parse(read(source, 8, length).toString());
    const header = { __metadata__ };
    const copies = [];
    let end = 0;
    for (const [name, tensor] of Object.entries(tensors)) {
      const [from, to] = tensor.data_offsets;
      for (const copy of namesOf(name, layers, times)) {
        header[copy] = { ...tensor, data_offsets: [end, end + to - from] };
        copies.push({ from: 8 + length + from, bytes: to - from });
        end += to - from;
      }
    }
    const text = JSON.stringify(header);
    const padded = Buffer.from(text.padEnd(Math.ceil(text.length / 8) * 8));
    const size = Buffer.alloc(8);
    size.writeBigUInt64LE(BigInt(padded.length));
    writeSync(target, size);
    writeSync(target, padded);
    for (const { from, bytes } of copies) writeSync(target, read(source, from, bytes));
  } finally {
    closeSync(source);
    closeSync(target);
  }
  return out;
}

/** A layer's tensor is there once for each repetition, any other once. */
function namesOf(name, layers, times) {
  const match = /^(model\.layers\.)(\d+)(\..+)$/.exec(name);
  if (!match) return [name];
  const [, before, index, after] = match;
  return Array.from({ length: times }, (_, round) => `${before}${round * layers + Number(index)}${after}`);
}

function read(file, position, bytes) {
  const buffer = Buffer.alloc(bytes);
  if (readSync(file, buffer, 0, bytes, position) !== bytes) throw new Error("model.safetensors is cut off");
  return buffer;
}
