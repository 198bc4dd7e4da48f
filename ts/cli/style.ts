/** Colours of the terminal, and none where they would be noise: not a terminal, or NO_COLOR (no-color.org). */

/** What a text can look like. */
export interface Style {
  readonly coloured: boolean;
  bold(text: string): string;
  dim(text: string): string;
  red(text: string): string;
  green(text: string): string;
  yellow(text: string): string;
  cyan(text: string): string;
  /** Black on green. */
  marked(text: string): string;
}

const escapeCode = "\u001b[";

/** The style of a stream; FORCE_COLOR (not "0") gives colours to a pipe as well. */
export function styleOf(stream: { isTTY?: boolean | undefined }): Style {
  const { NO_COLOR, FORCE_COLOR } = process.env;
  const forced = FORCE_COLOR !== undefined && FORCE_COLOR !== "0";
  const coloured = !NO_COLOR && (forced || (stream.isTTY === true && process.env.TERM !== "dumb"));
  const paint = (open: string, close: string) => (text: string) =>
    // Every line by itself: pagers and log viewers forget colours at a line break.
    coloured ? text.replace(/[^\n]+/g, (line) => `${escapeCode}${open}m${line}${escapeCode}${close}m`) : text;
  return {
    coloured,
    bold: paint("1", "22"),
    dim: paint("2", "22"),
    red: paint("31", "39"),
    green: paint("32", "39"),
    yellow: paint("33", "39"),
    cyan: paint("36", "39"),
    marked: paint("30;42", "39;49"),
  };
}
