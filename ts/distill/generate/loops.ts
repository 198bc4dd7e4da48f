/** Longest piece, in words, that is looked for back to back. */
const longestPiece = 12;

/** Times that a piece must follow itself. */
const backToBack = 4;

/** Share of a text that sentences said before may have; a song has a refrain. */
const mostSaidAgain = 0.5;

/** Texts of at least so many words may not consist mostly of runs of four words that they have had before. */
const longText = 60;
const leastFresh = 0.3;

/** What a degenerate text repeats: a piece again and again, sentences that it has said, or nearly all of it; undefined for others. */
export function loopIn(text: string): string | undefined {
  const words = text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];
  for (let size = 1; size <= longestPiece; size++) {
    let run = 0;
    for (let at = size; at < words.length; at++) {
      run = words[at] === words[at - size] ? run + 1 : 0;
      if (run < size * (backToBack - 1)) continue;
      const piece = words.slice(at - size + 1, at + 1).join(" ");
      // Numbers may stand in rows.
      if (/\p{L}/u.test(piece)) return piece;
    }
  }
  const said = new Set<string>();
  let again = 0;
  for (const sentence of text.toLowerCase().split(/[.!?]+\s+|\n+/)) {
    const key = sentence.match(/[\p{L}\p{N}]+/gu) ?? [];
    if (said.has(key.join(" "))) again += key.length;
    said.add(key.join(" "));
    if (again > mostSaidAgain * words.length) return key.join(" ");
  }
  if (words.length >= longText) {
    const runs = words.slice(0, -3).map((_, at) => words.slice(at, at + 4).join(" "));
    const fresh = new Set(runs).size / runs.length;
    if (fresh < leastFresh) return `${Math.round(100 * (1 - fresh))} % of itself`;
  }
  return undefined;
}
