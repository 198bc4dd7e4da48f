/** Numbers in words, both ways. The world speaks of zero to ninety-nine. */
const small = [
  "zero",
  "one",
  "two",
  "three",
  "four",
  "five",
  "six",
  "seven",
  "eight",
  "nine",
  "ten",
  "eleven",
  "twelve",
  "thirteen",
  "fourteen",
  "fifteen",
  "sixteen",
  "seventeen",
  "eighteen",
  "nineteen",
] as const;
const tens = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"] as const;

/** The words the numbers up to sixty-nine are built of. */
export const numberWords: readonly string[] = [...small, ...tens.slice(2, 7)];

/** 21 → "twenty-one". Whole numbers from 0 to 99 only. */
export function say(number: number): string {
  if (!Number.isInteger(number) || number < 0 || number > 99) {
    throw new RangeError(`say: ${number} is outside the world; give a whole number from 0 to 99.`);
  }
  if (number < 20) return small[number]!;
  const rest = number % 10;
  return rest === 0 ? tens[Math.floor(number / 10)]! : `${tens[Math.floor(number / 10)]}-${small[rest]}`;
}

const byWord = new Map<string, number>([
  ...Array.from({ length: 100 }, (_, n) => [say(n), n] as const),
  ["once", 1],
  ["twice", 2],
  ["thrice", 3],
]);

/** "twenty-one" or "21" → 21; undefined when the word is no number. */
export function readNumber(word: string): number | undefined {
  const known = byWord.get(word);
  if (known !== undefined) return known;
  return /^\d{1,6}$/.test(word) ? Number(word) : undefined;
}
