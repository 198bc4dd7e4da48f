/** `learningRate` as `learning-rate`. */
export function kebab(key: string): string {
  return key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** `maxLength` in a sentence of the library as `--max-length`, the name that a user of the command line knows. */
export function withFlagNames(text: string, keys: readonly string[]): string {
  // Keys of one word (beta, seed, epochs) are words of prose as well and stay as they are.
  const compound = keys.filter((key) => /[A-Z]/.test(key));
  const pattern = new RegExp(`(?<![\\w-])(${compound.join("|")})(?!\\w)`, "g");
  return text.replace(pattern, (key) => (key === "outputDir" ? "--out" : `--${kebab(key)}`));
}
