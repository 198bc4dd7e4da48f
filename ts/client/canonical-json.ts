import { ZephyrError } from "../errors";

/**
 * JSON in the one form that equal values share (RFC 8785): keys sorted by UTF-16 code units, numbers as ECMAScript prints
 * them, no white space; fields that are undefined are left out.
 *
 * @throws ZephyrError `ZA_ARGUMENT` for what JSON cannot hold: NaN, infinities, functions, dates, holes in arrays.
 */
export function canonicalJson(value: unknown): string {
  return written(value, "value");
}

function written(value: unknown, path: string): string {
  switch (typeof value) {
    case "string":
    case "boolean":
      return JSON.stringify(value);
    case "number":
      if (Number.isFinite(value)) return JSON.stringify(value);
      break;
    case "object": {
      if (value === null) return "null";
      if (Array.isArray(value)) return `[${Array.from(value, (item, i) => written(item, `${path}[${i}]`)).join(",")}]`;
      if (isPlain(value)) {
        const keys = Object.keys(value).filter((key) => value[key] !== undefined);
        return `{${keys
          .sort()
          .map((key) => `${JSON.stringify(key)}:${written(value[key], `${path}.${key}`)}`)
          .join(",")}}`;
      }
    }
  }
  throw new ZephyrError("ZA_ARGUMENT", `${path} is ${String(value)}, which JSON cannot hold`, {
    remedy: "Give plain objects, lists, texts and finite numbers.",
  });
}

function isPlain(value: object): value is Record<string, unknown> {
  const prototype = Object.getPrototypeOf(value);
  return prototype === null || prototype === Object.prototype;
}
