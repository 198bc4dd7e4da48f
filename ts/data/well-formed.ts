/** Texts that no UTF-8 can spell, and so no tokenizer: those with half a character, as `slice()` leaves it. */

/** Half of a pair of code units. */
const half = /\p{Surrogate}/u;

/** What is wrong with a text that holds half a character; undefined when it holds none. */
export function brokenCharacter(text: string): string | undefined {
  const at = text.search(half);
  return at < 0
    ? undefined
    : `half a character (\\u${text.charCodeAt(at).toString(16)}) stands at place ${at} of the text`;
}

/** What to do about half a character. */
export const brokenCharacterRemedy = "Cut texts between whole characters, or repair them with toWellFormed().";
