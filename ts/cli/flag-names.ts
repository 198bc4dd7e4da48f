import type { Command } from "commander";

/** `learningRate` as `learning-rate`. */
export function kebab(key: string): string {
  return key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** What the library calls otherwise than the command line. */
const otherNames: Readonly<Record<string, string>> = {
  outputDir: "out",
  evalDataset: "evalData",
  timeoutSeconds: "timeout",
};

/** The flags of the command that runs, in camel case. */
let running: readonly string[] = [];

/** From now on errors and warnings are told in the flags of this command. */
export function speakOf(command: Command): void {
  running = command.options.map((option) => option.attributeName());
}

/** `maxLength` as `--max-length`, `lora.rank` as `--lora-rank`; undefined where no flag is called so. */
export function flagOf(option: string, keys: readonly string[] = running): string | undefined {
  const key = option.replace(/\.(\w)/g, (_, letter: string) => letter.toUpperCase());
  const name = otherNames[key] ?? key;
  return keys.includes(name) ? `--${kebab(name)}` : undefined;
}

/**
 * `maxLength` in a sentence of the library as `--max-length`; what no flag is called stays as it is.
 *
 * @param keys the flags in camel case; left out, those of the command that runs
 */
export function withFlagNames(text: string, keys: readonly string[] = running): string {
  // Keys of one word (beta, seed, epochs) are words of prose as well and stay as they are.
  return text.replace(/(?<![\w./-])[a-z]+(?:[A-Z][a-z0-9]*)+(?!\w)/g, (word) => flagOf(word, keys) ?? word);
}

/** `resume: true`, `{ overwrite: true }`, `truncation to "keep-start"`, `lora: { rank: 16 }`. */
const optionInCode =
  /(?<open>\{ )?(?<![\w"'./-])(?<key>[a-z]\w*)(?:: | to )(?:\{ (?<inner>\w+): (?<value>[^\s{}]+) \}|(?<plain>true|false|"[^"\s]+"|\d[\d.]*(?!\w)))(?<close> \})?/g;

/** What an error or a warning of the library advises, in the words of the command line: `resume: true` as `--resume`. */
export function inFlags(text: string, keys: readonly string[] = running): string {
  const advised = text.replace(optionInCode, (whole, ...rest) => {
    const { open = "", key, inner, value, plain, close = "" } = rest.at(-1) as Record<string, string | undefined>;
    const flag = flagWith(inner ? `${key}.${inner}` : key!, (value ?? plain)!, keys);
    if (flag === undefined) return whole;
    return open && close ? flag : `${open}${flag}${close}`;
  });
  return withFlagNames(advised, keys);
}

function flagWith(option: string, value: string, keys: readonly string[]): string | undefined {
  const flag = flagOf(option, keys);
  if (flag === undefined || value === "true") return flag;
  return value === "false" ? flag.replace("--", "--no-") : `${flag} ${value.replaceAll('"', "")}`;
}
