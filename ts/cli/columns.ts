/** Tables of the terminal with more than two columns. */

/** A cell: what is shown, and how (its colours do not count as width). */
export interface Cell {
  text: string;
  paint?: (text: string) => string;
}

/** A text as a cell. */
export type CellInput = string | Cell;

/**
 * Rows in aligned columns, two spaces apart and from the edge; the first column to the left, the others to the right unless
 * `left` names them.
 */
export function columns(rows: readonly (readonly CellInput[])[], left: readonly number[] = [0]): string {
  const cells = rows.map((row) => row.map((cell): Cell => (typeof cell === "string" ? { text: cell } : cell)));
  const count = Math.max(0, ...cells.map((row) => row.length));
  const widths = Array.from({ length: count }, (_, i) => Math.max(...cells.map((row) => row[i]?.text.length ?? 0)));
  return cells
    .map((row) => {
      const shown = row.map(({ text, paint = (same) => same }, i) => {
        const space = " ".repeat(widths[i]! - text.length);
        return left.includes(i) ? `${paint(text)}${space}` : `${space}${paint(text)}`;
      });
      return `  ${shown.join("  ").trimEnd()}\n`;
    })
    .join("");
}

const eighths = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];

/** A bar of eighths of a character; `share` of the width, 0–1. */
export function bar(share: number, width: number): string {
  const filled = Math.round(Math.min(Math.max(share, 0), 1) * width * 8);
  return `${"█".repeat(filled >> 3)}${eighths[filled & 7]!}`;
}
