import type { Tokenizer } from "./tokenizer";

const known = new WeakMap<Tokenizer, ReadonlyMap<number, Uint8Array>>();

/**
 * Bytes of a vocabulary's tokens where it spells bytes: byte-level tokenizers (GPT-2's alphabet), and the byte tokens
 * `<0x00>` to `<0xFF>` of others. Empty where there are none.
 */
export function tokenBytes(tokenizer: Tokenizer): ReadonlyMap<number, Uint8Array> {
  const found = known.get(tokenizer) ?? readBytes(tokenizer);
  known.set(tokenizer, found);
  return found;
}

interface TokenizerJson {
  model: { vocab: Record<string, number> | [piece: string, score: number][] };
  decoder: unknown;
}

function readBytes(tokenizer: Tokenizer): ReadonlyMap<number, Uint8Array> {
  const { model, decoder } = JSON.parse(tokenizer.toJson()) as TokenizerJson;
  const entries = Array.isArray(model.vocab)
    ? model.vocab.map(([piece], id) => [piece, id] as const)
    : Object.entries(model.vocab);
  const byteLevel = JSON.stringify(decoder ?? null).includes('"ByteLevel"');
  const bytes = new Map<number, Uint8Array>();
  for (const [piece, id] of entries) {
    const spelled = byteLevel ? fromAlphabet(piece) : fromName(piece);
    if (spelled) bytes.set(id, spelled);
  }
  return bytes;
}

/** GPT-2's alphabet: printable bytes stand for themselves, the others for the characters from U+0100 on. */
const alphabet = new Map<string, number>();
for (let byte = 0, others = 0; byte < 256; byte++) {
  const printable = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad);
  alphabet.set(String.fromCodePoint(printable ? byte : 0x100 + others++), byte);
}

function fromAlphabet(piece: string): Uint8Array | undefined {
  const bytes = Array.from(piece, (character) => alphabet.get(character));
  return bytes.includes(undefined) ? undefined : Uint8Array.from(bytes as number[]);
}

function fromName(piece: string): Uint8Array | undefined {
  const [, hex] = /^<0x([0-9A-F]{2})>$/.exec(piece) ?? [];
  return hex === undefined ? undefined : Uint8Array.of(Number.parseInt(hex, 16));
}
