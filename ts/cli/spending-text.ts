import type { EstimateLine, Ledger, LedgerLine } from "../client";
import { dollars } from "../client/budget";
import { whole } from "../report/format";
import { styleOf } from "./style";

/** The ledger by purpose and model; empty when there is nothing in it. */
export function ledgerText({ lines, total }: Ledger, journal?: string): string {
  const used = lines.filter((line) => line.done + line.failed + line.invalid + line.open > 0);
  if (used.length === 0) return "";
  const { bold, dim, yellow } = styleOf(process.stdout);
  const rows = used.length > 1 ? [...used, { ...total, purpose: "total" }] : used;
  const cells = rows.map((line) => [
    line.purpose,
    line.model,
    whole(line.done + line.invalid),
    whole(line.failed),
    whole(line.promptTokens),
    whole(line.completionTokens),
    spent(line),
  ]);
  const notes = [
    ...(total.invalid > 0 ? [`${whole(total.invalid)} of the answers could not be used; they are kept.`] : []),
    ...(total.possiblyBilled > 0
      ? [
          yellow(
            `${whole(total.possiblyBilled)} calls may have been billed, for at most ${dollars(total.possibleDollars)} more.`,
          ),
        ]
      : []),
    ...(total.unpriced > 0 ? [`${whole(total.unpriced)} calls have no price.`] : []),
    ...(journal === undefined ? [] : [dim(`journal: ${journal}`)]),
  ];
  const head = ["purpose", "model", "answers", "failed", "tokens in", "tokens out", "cost"];
  return `${columns(head, cells, bold)}${notes.map((note) => `  ${note}\n`).join("")}`;
}

/** What a dry run found. */
export function estimateText(lines: readonly EstimateLine[]): string {
  if (lines.length === 0) return "";
  const { bold, dim } = styleOf(process.stdout);
  const price = (amount: number | undefined) => (amount === undefined ? "no price" : dollars(amount));
  const cells = lines.map((line) => [
    line.model,
    whole(line.calls),
    whole(line.journalled),
    whole(line.promptTokens),
    whole(line.completionTokens),
    price(line.dollars),
    price(line.worstDollars),
  ]);
  const head = ["model", "calls", "in the journal", "tokens in", "tokens out", "about", "at most"];
  const note = dim("  Nothing was asked. Tokens are counted as four bytes each; a stand-in gave the lengths.\n");
  return `${columns(head, cells, bold)}${note}`;
}

function spent({ dollars: known, unpriced, done, invalid, failed }: LedgerLine): string {
  return unpriced > 0 && unpriced >= done + invalid + failed ? "no price" : dollars(known);
}

/** Rows under a head; the first columns that hold words to the left, the others to the right. */
export function columns(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  mark: (text: string) => string,
): string {
  const widths = head.map((title, i) => Math.max(title.length, ...rows.map((row) => row[i]!.length)));
  const words = head.map((_, i) => rows.some((row) => !/^[$\d]/.test(row[i]!) && row[i] !== "no price"));
  const line = (cells: readonly string[]) =>
    `  ${cells
      .map((cell, i) => (words[i] ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)))
      .join("  ")
      .trimEnd()}`;
  return [mark(line(head)), ...rows.map(line), ""].join("\n");
}
