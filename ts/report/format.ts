/** Figures as people read them: 0.6931, 1.2e-7, 12,345. */
export function figure(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e7))
    return value
      .toExponential(2)
      .replace(/\.?0+e/, "e")
      .replace("e+", "e");
  if (Number.isInteger(value)) return whole(value);
  return String(Number(value.toPrecision(size >= 1000 ? 5 : 4)));
}

/** A whole number with separators between thousands. */
export function whole(value: number): string {
  return Math.round(value).toLocaleString("en-US");
}

/** A share of 1 in percent. */
export function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}

/** Bytes with a unit: `98.4 MB`. */
export function dataSize(bytes: number): string {
  if (bytes < 1e6) return `${(bytes / 1e3).toFixed(1)} kB`;
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(2)} GB`;
}

/** Evenly spaced round values that cover a range, about `count` of them. */
export function ticks(low: number, high: number, count: number): number[] {
  const span = high - low || Math.abs(high) || 1;
  const rough = span / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999) as number);
  const values: number[] = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) {
    // Through text, because 3 * 0.1 is not 0.3.
    values.push(Number((i * step).toPrecision(12)));
  }
  return values;
}
