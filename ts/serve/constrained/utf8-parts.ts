/** Bytes that end in the middle of a character, as those of tokens do. */

const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Characters, and bytes behind them that begin one. */
export interface Parts {
  text: string;
  rest: Uint8Array;
}

/** The characters of bytes; undefined when they are no UTF-8. */
export function partsOf(bytes: Uint8Array): Parts | undefined {
  const rest = bytes.subarray(startOfPart(bytes));
  try {
    // Not as a stream: a decoder for each would be more than its work.
    if (rest.length > 0)
      strict.decode(Uint8Array.from({ length: bytesOfLead(rest[0]!) }, (_, at) => rest[at] ?? more(rest, at)));
    return { text: strict.decode(bytes.subarray(0, bytes.length - rest.length)), rest };
  } catch {
    return undefined;
  }
}

/** Where a character begins that the bytes do not end; their length if there is none. */
function startOfPart(bytes: Uint8Array): number {
  for (let at = bytes.length - 1; at >= Math.max(bytes.length - 3, 0); at--) {
    const byte = bytes[at]!;
    if (byte >= 0xc0) return at + bytesOfLead(byte) > bytes.length ? at : bytes.length;
    if (byte < 0x80) break;
  }
  return bytes.length;
}

/** A byte with which the beginning of a character may go on. */
function more([lead]: Uint8Array, at: number): number {
  if (at > 1) return 0x80;
  return lead === 0xe0 ? 0xa0 : lead === 0xf0 ? 0x90 : 0x80;
}

/** Bytes of the character that begins with one. */
export function bytesOfLead(lead: number): number {
  return lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}
