// What CUDA code a file carries: fatbins in an addon, one for each kernel source. Their form is that of NVIDIA's
// fatbinary tool, which does not document it; it is what cuobjdump lists, and cuobjdump is not in every toolkit.

const magic = 0xba55ed50;
/** The flag of code for one architecture with its own instructions: sm_90a. */
const ofOneArchitecture = 1 << 20;
const kinds = { 1: "compute", 2: "sm" };

/**
 * The parts of every fatbin in the bytes: `sm_80`, `sm_90a` (machine code), `compute_80` (PTX), each with its size.
 *
 * @param {Buffer} bytes
 * @returns {{ target: string, bytes: number }[][]}
 */
export function fatbinsIn(bytes) {
  const head = Buffer.alloc(4);
  head.writeUInt32LE(magic);
  const found = [];
  for (let at = bytes.indexOf(head); at !== -1; at = bytes.indexOf(head, at + 4)) {
    const parts = partsAt(bytes, at);
    if (parts) found.push(parts);
  }
  return found;
}

/** The header is magic u32, version u16, its own size u16, size of all parts u64; undefined where it is none. */
function partsAt(bytes, start) {
  if (start + 16 > bytes.length || bytes.readUInt16LE(start + 4) !== 1) return undefined;
  const headerSize = bytes.readUInt16LE(start + 6);
  const end = start + headerSize + Number(bytes.readBigUInt64LE(start + 8));
  if (headerSize < 16 || end > bytes.length) return undefined;
  const parts = [];
  for (let at = start + headerSize; at + 64 <= end; ) {
    // A part: kind u16, version u16, size of its header u32, of its code u64, …, at byte 28 the architecture u32, at 40 flags.
    const kind = kinds[bytes.readUInt16LE(at)];
    const [header, code] = [bytes.readUInt32LE(at + 4), Number(bytes.readBigUInt64LE(at + 8))];
    if (kind === undefined || header < 64) return undefined;
    const own = bytes.readUInt32LE(at + 40) & ofOneArchitecture ? "a" : "";
    parts.push({ target: `${kind}_${bytes.readUInt32LE(at + 28)}${own}`, bytes: code });
    at += header + code;
  }
  return parts.length > 0 ? parts : undefined;
}
