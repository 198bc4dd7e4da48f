import { isUtf8 } from "node:buffer";
import { DataError, type Place } from "../errors";

/**
 * Parses the bytes of one JSON value. Faults are {@link DataError}s whose place has the exact byte: `ZA_DATA_ENCODING`
 * for bytes that are not UTF-8 (never replaced silently), `ZA_DATA_JSON` for malformed text.
 *
 * @param start offset of `bytes` in the file
 */
export function parseJson(bytes: Buffer, start: number, place: Place): unknown {
  if (!isUtf8(bytes)) {
    throw new DataError("ZA_DATA_ENCODING", "the row is not valid UTF-8", {
      place: { ...place, byte: start + firstInvalidUtf8(bytes) },
      remedy: "Convert the file to UTF-8.",
    });
  }
  const text = bytes.toString("utf8");
  try {
    return JSON.parse(text);
  } catch (cause) {
    const at = jsonErrorPosition(text);
    const ended = at >= text.trimEnd().length;
    throw new DataError(
      "ZA_DATA_JSON",
      ended
        ? "the row is not valid JSON: it ends too early"
        : `the row is not valid JSON: unexpected ${show(text, at)}`,
      {
        place: { ...place, byte: start + Buffer.byteLength(text.slice(0, at)) },
        remedy: 'Repair the row, or pass onBadRow: "skip" to leave such rows out and have them listed.',
        cause,
      },
    );
  }
}

function show(text: string, at: number): string {
  return JSON.stringify(String.fromCodePoint(text.codePointAt(at) ?? 0));
}

/** Offset of the first byte that is not UTF-8, found by halving (a prefix cut inside a character is still valid). */
function firstInvalidUtf8(bytes: Buffer): number {
  let valid = 0;
  let invalid = bytes.length;
  while (invalid - valid > 1) {
    const middle = (valid + invalid) >> 1;
    try {
      new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(0, middle), { stream: true });
      valid = middle;
    } catch {
      invalid = middle;
    }
  }
  return invalid - 1;
}

const numberToken = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const stringToken = /"(?:[ !#-[\]-\uffff]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*/y;
const wordToken = /true|false|null/y;
const space = /[ \t\r\n]*/y;

/**
 * Index of the first character at which `text` stops being JSON; the length when it ends too early.
 *
 * V8 gives a position only in some of its messages, so malformed text is scanned again by this small strict parser.
 */
export function jsonErrorPosition(text: string): number {
  let at = 0;
  const take = (token: RegExp): boolean => {
    token.lastIndex = at;
    if (!token.test(text)) return false;
    at = token.lastIndex;
    return true;
  };
  const open: ("[" | "{")[] = [];
  let expect: "value" | "value-or-end" | "key" | "key-or-end" | "colon" | "comma-or-end" = "value";
  for (;;) {
    take(space);
    const c = text[at];
    if (c === undefined) return at;
    if (expect === "value" || expect === "value-or-end") {
      if (c === "]" && expect === "value-or-end") {
        at++;
        open.pop();
        expect = "comma-or-end";
      } else if (c === "[" || c === "{") {
        at++;
        open.push(c);
        expect = c === "[" ? "value-or-end" : "key-or-end";
      } else if (c === '"') {
        take(stringToken);
        if (text[at] !== '"') return at;
        at++;
        expect = "comma-or-end";
      } else if (take(numberToken) || take(wordToken)) expect = "comma-or-end";
      else return at;
    } else if (expect === "key" || expect === "key-or-end") {
      if (c === "}" && expect === "key-or-end") {
        at++;
        open.pop();
        expect = "comma-or-end";
      } else {
        if (c !== '"') return at;
        take(stringToken);
        if (text[at] !== '"') return at;
        at++;
        expect = "colon";
      }
    } else if (expect === "colon") {
      if (c !== ":") return at;
      at++;
      expect = "value";
    } else {
      const inside = open.at(-1);
      if (inside === undefined) return at;
      if (c === ",") expect = inside === "[" ? "value" : "key";
      else if (c === (inside === "[" ? "]" : "}")) open.pop();
      else return at;
      at++;
    }
  }
}
