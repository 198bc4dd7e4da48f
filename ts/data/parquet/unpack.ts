/** The compressions of Parquet pages. What comes out must have the promised length, or it is an error. */
import * as zlib from "node:zlib";
import type { Compressors } from "hyparquet";
import { snappyUncompressor } from "hysnappy";
import { unpackZstd } from "../zstd";

/** Node has it from 22.15 on. */
const nativeZstd = (zlib as { zstdDecompressSync?: (input: Uint8Array, options: object) => Buffer }).zstdDecompressSync;

let snappy: ReturnType<typeof snappyUncompressor> | undefined;

/** By the format's names. */
export const compressors: Compressors = {
  SNAPPY: (input, length) => {
    snappy ??= snappyUncompressor();
    return snappy(input, length);
  },
  GZIP: (input, length) => zlib.gunzipSync(input, { maxOutputLength: length || 1 }),
  BROTLI: (input, length) => zlib.brotliDecompressSync(input, { maxOutputLength: length || 1 }),
  ZSTD: (input, length) =>
    nativeZstd ? nativeZstd(input, { maxOutputLength: length || 1 }) : unpackZstd(input, length),
  LZ4_RAW: (input, length) => {
    const output = new Uint8Array(length);
    return output.subarray(0, lz4Block(input, output, 0));
  },
  LZ4: lz4,
};

/** Codec LZ4 (deprecated): Hadoop's frames of two big-endian lengths, or a bare block as older Arrow wrote it. */
function lz4(input: Uint8Array, length: number): Uint8Array {
  const output = new Uint8Array(length);
  const view = new DataView(input.buffer, input.byteOffset, input.byteLength);
  let from = 0;
  let to = 0;
  while (from + 8 <= input.length) {
    const unpacked = view.getUint32(from);
    const packed = view.getUint32(from + 4);
    if (unpacked > length - to || packed > input.length - from - 8) break;
    const end = lz4Block(input.subarray(from + 8, from + 8 + packed), output, to);
    if (end - to !== unpacked) break;
    to = end;
    from += 8 + packed;
  }
  if (from === input.length) return output.subarray(0, to);
  return output.subarray(0, lz4Block(input, output, 0));
}

/** Unpacks one block behind `start`; returns where it ends. */
function lz4Block(input: Uint8Array, output: Uint8Array, start: number): number {
  let from = 0;
  let to = start;
  const longer = (length: number) => {
    if (length < 15) return length;
    let total = length;
    for (let byte = 255; byte === 255; total += byte) byte = byteAt(from++);
    return total;
  };
  const byteAt = (at: number) => {
    if (at >= input.length) throw new Error("the LZ4 block ends too early");
    return input[at]!;
  };
  while (from < input.length) {
    const token = byteAt(from++);
    const literals = longer(token >> 4);
    if (from + literals > input.length || to + literals > output.length) throw new Error("the LZ4 block is damaged");
    output.set(input.subarray(from, from + literals), to);
    from += literals;
    to += literals;
    if (from === input.length) break;
    const distance = byteAt(from) | (byteAt(from + 1) << 8);
    from += 2;
    const length = longer(token & 15) + 4;
    if (distance === 0 || distance > to - start || to + length > output.length) {
      throw new Error("the LZ4 block is damaged");
    }
    // A match may overlap what it writes.
    if (distance >= length) output.copyWithin(to, to - distance, to - distance + length);
    else for (let i = 0; i < length; i++) output[to + i] = output[to + i - distance]!;
    to += length;
  }
  return to;
}
