/** A GGUF file as part of a split model, as gguf-split marks it. */
export function splitPart(whole: Buffer, number: number, count: number): Buffer {
  const bytes = Buffer.from(whole);
  const key = (name: string, type: number, value: Buffer) => {
    const head = Buffer.alloc(8 + name.length + 4);
    head.writeBigUInt64LE(BigInt(name.length));
    head.write(name, 8);
    head.writeUInt32LE(type, 8 + name.length);
    return Buffer.concat([head, value]);
  };
  const u16 = (value: number) => Buffer.from(Uint16Array.of(value).buffer);
  const keys = Buffer.concat([key("split.no", 2, u16(number)), key("split.count", 2, u16(count))]);
  // A text that keeps what follows on multiples of 32 bytes.
  const short = 31 - ((keys.length + 24 + 31) % 32);
  const text = Buffer.alloc(8 + short, " ");
  text.writeBigUInt64LE(BigInt(short));
  const added = Buffer.concat([keys, key("pad.", 8, text)]);
  if (added.length % 32 !== 0) throw new Error(`${added.length} bytes move the tensors off their alignment`);
  bytes.writeBigUInt64LE(bytes.readBigUInt64LE(16) + 3n, 16);
  return Buffer.concat([bytes.subarray(0, 24), added, bytes.subarray(24)]);
}
