import { JudgeError } from "../../errors";

/** `{{`, `}}`, a placeholder, or a brace that is none of them. */
const parts = /\{\{|\}\}|\{([A-Za-z_]\w*)\}|[{}]/g;

/**
 * Python's `str.format` with named values, as far as FastChat's prompts use it. What is put in is never read again: an
 * answer may hold braces and the names of placeholders.
 *
 * @param name of the template, for errors
 * @throws JudgeError `ZA_JUDGE_PROMPT` for a placeholder without a value, or a form of `str.format` that no prompt uses.
 */
export function pythonFormat(template: string, values: Readonly<Record<string, string>>, name: string): string {
  return template.replace(parts, (part, key: string | undefined, at: number) => {
    if (part === "{{") return "{";
    if (part === "}}") return "}";
    const value = key === undefined || !Object.hasOwn(values, key) ? undefined : values[key];
    if (value !== undefined) return value;
    throw new JudgeError(
      "ZA_JUDGE_PROMPT",
      key === undefined
        ? `the prompt ${name} has a lone "${part}" at character ${at}`
        : `the prompt ${name} asks for {${key}}, which is not known there`,
      {
        place: { field: "prompt_template" },
        remedy: `Known are ${Object.keys(values).join(", ")}; a brace itself is written twice.`,
      },
    );
  });
}
