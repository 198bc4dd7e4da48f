/** zstd where Node does not have it (before 22.15). Checksums of contents are verified only where Node has it. */
import { Decompress } from "fzstd";

/** Largest window that is accepted, as in zstd's own tools (a window is held in memory). */
const maximumWindow = 128 << 20;

/** Unpacks a stream that is pushed in parts; `onPart` gets parts that stay valid. */
export class ZstdUnpacker {
  readonly #stream: Decompress;
  #begun = false;

  constructor(onPart: (part: Uint8Array) => void) {
    this.#stream = new Decompress((part) => {
      if (part.length > 0) onPart(part);
    });
  }

  /** @throws Error for what is no zstd, damaged, or cut off when `last` */
  push(bytes: Uint8Array, last: boolean): void {
    if (!this.#begun && bytes.length >= 18) {
      this.#begun = true;
      const window = windowOf(bytes);
      if (window > maximumWindow) throw new Error(`its window of ${window} bytes is larger than ${maximumWindow}`);
    }
    this.#stream.push(bytes, last);
  }
}

/** Unpacks at once what must give `length` bytes. */
export function unpackZstd(input: Uint8Array, length: number): Uint8Array {
  const output = new Uint8Array(length);
  let filled = 0;
  const stream = new ZstdUnpacker((part) => {
    if (filled + part.length > length) throw new Error(`it unpacks to more than the ${length} bytes promised`);
    output.set(part, filled);
    filled += part.length;
  });
  stream.push(input, true);
  return output.subarray(0, filled);
}

/** The window that the first frame asks for, in bytes (RFC 8878, section 3.1.1.1); 0 for a frame of another kind. */
function windowOf(frame: Uint8Array): number {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  if (view.getUint32(0, true) !== 0xfd2fb528) return 0;
  const descriptor = view.getUint8(4);
  if ((descriptor & 0x20) === 0) {
    const byte = view.getUint8(5);
    const base = 2 ** (10 + (byte >> 3));
    return base + (base / 8) * (byte & 7);
  }
  const at = 5 + [0, 1, 2, 4][descriptor & 3]!;
  const kind = descriptor >> 6;
  if (kind === 0) return view.getUint8(at);
  if (kind === 1) return view.getUint16(at, true) + 256;
  return kind === 2 ? view.getUint32(at, true) : Number(view.getBigUint64(at, true));
}
