import type { TokenClass } from "../train/seen-row";
import type { Style } from "./style";

const marks: Record<TokenClass, readonly [open: string, close: string]> = {
  learnt: ["«", "»"],
  end: ["⟦", "⟧"],
  template: ["‹", "›"],
  content: ["", ""],
  cut: ["⌫", "⌫"],
};

/** Tokens as text: in colour, or with marks around each stretch of one class. */
export function maskText(pieces: readonly { text: string; class: TokenClass }[], style: Style): string {
  const stretches: { text: string; class: TokenClass }[] = [];
  for (const piece of pieces) {
    const last = stretches.at(-1);
    if (last?.class === piece.class) last.text += piece.text;
    else stretches.push({ ...piece });
  }
  const paint: Record<TokenClass, (text: string) => string> = {
    learnt: style.green,
    end: style.marked,
    template: style.dim,
    content: (text) => text,
    cut: style.red,
  };
  return stretches
    .map((stretch) => {
      const text = printable(stretch.text);
      if (style.coloured) return paint[stretch.class](text);
      const [open, close] = marks[stretch.class];
      // The mark closes before the line break that ends a stretch, so that lines stay lines.
      const [, body = "", breaks = ""] = /^([\s\S]*?)(\n*)$/.exec(text) ?? [];
      return `${open}${body}${close}${breaks}`;
    })
    .join("");
}

/** Line breaks are shown and broken; other control characters cannot act on the terminal. */
function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is replaced
  return text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, "·").replaceAll("\n", "↵\n");
}
