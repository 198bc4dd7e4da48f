/**
 * Mends what UltraChat 200k's card calls truecasing: "Hello. how are you?" becomes "Hello. How are you?".
 *
 * Only a text that itself begins some sentences with capitals and others without is touched: one that is in lower case
 * throughout has a style of its own. A sentence ends at . ! ? before a space and a letter; not after an abbreviation, a
 * single letter or a number, not inside code. "i" alone, and before an apostrophe, becomes "I".
 */
export function truecased(text: string): string {
  if (!isMixed(text)) return text;
  return outsideCode(text, (part) =>
    part
      .replace(boundary, (whole, before: string, mark: string, space: string, letter: string) =>
        isAbbreviation(before) ? whole : `${before}${mark}${space}${letter.toUpperCase()}`,
      )
      .replace(/(?<=^|[\s("“])i(?=['’](?:m|d|ll|ve)\b|\s|[,;:.!?)]|$)/gm, "I"),
  );
}

/** The word before a sentence's end, the mark, the space, and a small letter that begins the next. */
const boundary = /(\S*?)([.!?]["”')]*)([ \t]+)(\p{Ll})/gu;

const abbreviations = new Set("e.g i.e etc vs mr mrs ms dr prof st fig cf al approx dept est inc jr sr".split(" "));

function isAbbreviation(word: string): boolean {
  const letters = word.replace(/^[("“']+/, "").toLowerCase();
  return abbreviations.has(letters) || /^\p{L}$/u.test(letters) || /\d$/.test(letters) || letters.endsWith(".");
}

function isMixed(text: string): boolean {
  const starts = [...text.matchAll(/(?:^|[.!?]["”')]*\s+)["“(]*(\p{L})/gu)].map((match) => match[1]!);
  const capitals = starts.filter((letter) => letter !== letter.toLowerCase()).length;
  return capitals > 0 && (capitals < starts.length || /(?<=^|\s)i(?=\s|['’])/.test(text));
}

/** Fenced blocks and `spans` stay as they are. */
function outsideCode(text: string, change: (part: string) => string): string {
  return text
    .split(/(```[\s\S]*?(?:```|$)|`[^`\n]*`)/)
    .map((part, index) => (index % 2 === 0 ? change(part) : part))
    .join("");
}
