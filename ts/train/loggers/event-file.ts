/**
 * TensorBoard's event file: TFRecord framing around `tensorflow.Event` messages, encoded by hand. Formats:
 * tensorflow/core/lib/io/record_writer.h, tensorflow/core/util/event.proto, tensorflow/core/framework/summary.proto.
 */
import { closeSync, openSync, writeSync } from "node:fs";
import { hostname } from "node:os";

const crcTable = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0x82f63b78 : value >>> 1;
  return value;
});

/** CRC-32C (Castagnoli). */
export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = crcTable[(crc ^ byte) & 0xff]! ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

/** TFRecord keeps checksums turned and shifted, so that a checksum of data that holds checksums stays a good one. */
function maskedCrc(bytes: Uint8Array): number {
  const crc = crc32c(bytes);
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}

/** `length u64 | masked crc of it | data | masked crc of it`, little endian. */
export function record(data: Uint8Array): Buffer {
  const framed = Buffer.alloc(data.length + 16);
  framed.writeBigUInt64LE(BigInt(data.length), 0);
  framed.writeUInt32LE(maskedCrc(framed.subarray(0, 8)), 8);
  framed.set(data, 12);
  framed.writeUInt32LE(maskedCrc(data), 12 + data.length);
  return framed;
}

/** Fields of a protocol buffer, each as `key, value` bytes. */
const field = {
  varint(number: number, value: number): Buffer {
    return Buffer.concat([varint(number << 3), varint(value)]);
  },
  double(number: number, value: number): Buffer {
    const bytes = Buffer.alloc(8);
    bytes.writeDoubleLE(value);
    return Buffer.concat([varint((number << 3) | 1), bytes]);
  },
  float(number: number, value: number): Buffer {
    const bytes = Buffer.alloc(4);
    bytes.writeFloatLE(value);
    return Buffer.concat([varint((number << 3) | 5), bytes]);
  },
  /** Text, or a message of fields. */
  bytes(number: number, ...parts: (Uint8Array | string)[]): Buffer {
    const content = Buffer.concat(parts.map((part) => (typeof part === "string" ? Buffer.from(part) : part)));
    return Buffer.concat([varint((number << 3) | 2), varint(content.length), content]);
  },
};

/** Seven bits a byte, lowest first; steps beyond 2³¹ too. */
function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 128);
  return Buffer.from([...bytes, rest]);
}

/** `Summary.Value` with a scalar (f32, as TensorBoard keeps scalars). */
export function scalar(tag: string, value: number): Buffer {
  return field.bytes(1, field.bytes(1, tag), field.float(2, value));
}

/** `Summary.Value` with Markdown, for the text dashboard. */
export function markdown(tag: string, text: string): Buffer {
  const stringTensor = [field.varint(1, 7), field.bytes(2, field.bytes(2, field.varint(1, 1))), field.bytes(8, text)];
  const ofTextPlugin = field.bytes(9, field.bytes(1, field.bytes(1, "text")));
  return field.bytes(1, field.bytes(1, tag), ofTextPlugin, field.bytes(8, ...stringTensor));
}

/** One event file, appended to. Writes reach the operating system before a call returns. */
export class EventFile {
  readonly path: string;
  #file: number | undefined;

  /** @param second in its name; TensorBoard reads the files of a folder in the order of their names */
  constructor(folder: string, second: number) {
    this.path = `${folder}/events.out.tfevents.${String(second).padStart(10, "0")}.${hostname()}.${process.pid}`;
    this.#file = openSync(this.path, "wx");
    this.#event(0, field.bytes(3, "brain.Event:2"));
  }

  /** The session log of a start: a reader forgets what it read of this step and later ones. */
  startAt(step: number): void {
    this.#event(step, field.bytes(7, field.varint(1, 1)));
  }

  /** Values of a step, made by {@link scalar} and {@link markdown}. */
  summary(step: number, values: readonly Buffer[]): void {
    this.#event(step, field.bytes(5, ...values));
  }

  close(): void {
    if (this.#file !== undefined) closeSync(this.#file);
    this.#file = undefined;
  }

  #event(step: number, content: Buffer): void {
    if (this.#file === undefined) throw new Error(`${this.path} is closed`);
    const event = Buffer.concat([field.double(1, Date.now() / 1000), field.varint(2, step), content]);
    const bytes = record(event);
    for (let written = 0; written < bytes.length; ) written += writeSync(this.#file, bytes, written);
  }
}
