import fc from "fast-check";
import { expect, it } from "vitest";
import { partsOf } from "./utf8-parts";

/** What a decoder says that waits for more. */
function waiting(bytes: Uint8Array): { text: string; rest: number } | undefined {
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes, { stream: true });
    return { text, rest: bytes.length - Buffer.byteLength(text) };
  } catch {
    return undefined;
  }
}

function same(bytes: Uint8Array): void {
  const [parts, expected] = [partsOf(bytes), waiting(bytes)];
  // Not by expect: there are tens of thousands.
  if (parts?.text === expected?.text && parts?.rest.length === expected?.rest) return;
  expect(parts, String(bytes)).toEqual(expected);
}

it("finds the characters and the bytes behind them, as a decoder does that waits for more", () => {
  for (let first = 0; first < 256; first++) {
    same(Uint8Array.of(first));
    for (let second = 0x7f; second < 0xc1; second++) {
      same(Uint8Array.of(first, second));
      for (const third of [0x41, 0x80, 0xbf, 0xc3]) same(Uint8Array.of(first, second, third));
    }
  }
  const text = fc.string({ unit: "binary" }).map((each) => Buffer.from(each));
  fc.assert(fc.property(text, fc.nat(3), (bytes, short) => same(bytes.subarray(0, Math.max(bytes.length - short, 0)))));
  fc.assert(fc.property(fc.uint8Array({ maxLength: 6 }), same));
});
