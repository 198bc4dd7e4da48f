/** Values of Parquet's types as JSON has them. */
import { isUtf8 } from "node:buffer";
import type { SchemaElement } from "hyparquet";

/** Stands where a value cannot be given; the row that holds it is refused. */
export class BadValue {
  constructor(
    readonly code: "ZA_DATA_ENCODING" | "ZA_DATA_ROW",
    readonly problem: string,
    readonly remedy: string,
  ) {}
}

/** Makes a raw value into a JSON value, or a {@link BadValue}. */
// biome-ignore lint/suspicious/noExplicitAny: what hyparquet's decoders give depends on the physical type
export type Converter = (raw: any) => unknown;

/**
 * The conversion of a leaf's values: what the same row would hold in a JSON file.
 *
 * - integers are numbers; those beyond ±(2^53 − 1) are decimal strings, because a number would change them;
 * - text must be UTF-8; bytes without a type of their own are text where they are UTF-8, else a `Uint8Array`;
 * - times are ISO 8601 strings in UTC with all digits of their unit, dates `YYYY-MM-DD`;
 * - decimals are numbers where the digits fit, else strings.
 */
export function converterOf(element: SchemaElement): Converter {
  const { type, converted_type: converted, logical_type: logical } = element;
  if (converted === "DECIMAL" || logical?.type === "DECIMAL") {
    const scale = element.scale ?? (logical?.type === "DECIMAL" ? logical.scale : 0) ?? 0;
    return (raw) => decimal(raw instanceof Uint8Array ? signed(raw) : BigInt(raw), scale);
  }
  switch (type) {
    case "BYTE_ARRAY": {
      const isText = logical?.type === "STRING" || logical?.type === "JSON" || logical?.type === "ENUM";
      return isText || converted === "UTF8" || converted === "JSON" || converted === "ENUM" ? text : textOrBytes;
    }
    case "FIXED_LEN_BYTE_ARRAY":
      if (logical?.type === "UUID") return uuid;
      return logical?.type === "FLOAT16" ? float16 : (raw: Uint8Array) => raw.slice();
    case "INT32": {
      if (converted === "DATE" || logical?.type === "DATE")
        return (days: number) => iso(BigInt(days) * 86_400n, 0, 0).slice(0, 10);
      const unsigned = converted?.startsWith("UINT") || (logical?.type === "INTEGER" && !logical.isSigned);
      return unsigned ? (raw: number) => raw >>> 0 : identity;
    }
    case "INT64": {
      const unit = unitOf(element);
      if (unit) return (raw: bigint) => timestamp(raw, unit);
      const unsigned = converted === "UINT_64" || (logical?.type === "INTEGER" && !logical.isSigned);
      return unsigned ? (raw: bigint) => integer(BigInt.asUintN(64, raw)) : integer;
    }
    case "INT96":
      return (raw: bigint) =>
        timestamp((BigInt.asIntN(32, raw >> 64n) - 2_440_588n) * 86_400_000_000_000n + BigInt.asUintN(64, raw), 9);
    default:
      return identity;
  }
}

function identity(raw: unknown): unknown {
  return raw;
}

function text(raw: Uint8Array): string | BadValue {
  if (isUtf8(raw)) return Buffer.from(raw.buffer, raw.byteOffset, raw.byteLength).toString("utf8");
  return new BadValue("ZA_DATA_ENCODING", "the text is not valid UTF-8", "Write the column again as UTF-8.");
}

function textOrBytes(raw: Uint8Array): string | Uint8Array {
  const found = text(raw);
  return found instanceof BadValue ? raw.slice() : found;
}

/** As a number where that is exact, else as its digits. */
function integer(raw: bigint): number | string {
  const number = Number(raw);
  return Number.isSafeInteger(number) ? number : String(raw);
}

function decimal(unscaled: bigint, scale: number): number | string {
  const digits = String(unscaled < 0n ? -unscaled : unscaled).padStart(scale + 1, "0");
  const point = digits.length - scale;
  const written = `${unscaled < 0n ? "-" : ""}${digits.slice(0, point)}${scale > 0 ? `.${digits.slice(point)}` : ""}`;
  // A double holds any 15 digits.
  return digits.replace(/^0+/, "").length <= 15 ? Number(written) : written;
}

/** A big-endian two's complement number. */
function signed(bytes: Uint8Array): bigint {
  const hex = Buffer.from(bytes).toString("hex");
  return hex === "" ? 0n : BigInt.asIntN(8 * bytes.length, BigInt(`0x${hex}`));
}

function uuid(raw: Uint8Array): string {
  const hex = Buffer.from(raw).toString("hex");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

function float16(raw: Uint8Array): number {
  const bits = raw[0]! | (raw[1]! << 8);
  const sign = bits >> 15 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1024 + fraction) * 2 ** (exponent - 25);
}

/** Decimal digits of a timestamp's unit; undefined when the leaf is none. */
function unitOf({ converted_type: converted, logical_type: logical }: SchemaElement): 3 | 6 | 9 | undefined {
  if (logical?.type === "TIMESTAMP") return ({ MILLIS: 3, MICROS: 6, NANOS: 9 } as const)[logical.unit];
  return converted === "TIMESTAMP_MILLIS" ? 3 : converted === "TIMESTAMP_MICROS" ? 6 : undefined;
}

function timestamp(raw: bigint, digits: 3 | 6 | 9): string {
  const unit = 10n ** BigInt(digits);
  const fraction = ((raw % unit) + unit) % unit;
  return iso((raw - fraction) / unit, Number(fraction), digits);
}

/** Seconds since 1970 with a fraction of so many digits; the plain number where the calendar ends. */
function iso(seconds: bigint, fraction: number, digits: number): string {
  const date = new Date(Number(seconds) * 1000);
  if (Number.isNaN(date.getTime())) return String(seconds);
  const whole = date.toISOString().replace(/\.\d+Z$/, "");
  return `${whole}${digits > 0 ? `.${String(fraction).padStart(digits, "0")}` : ""}Z`;
}
