/** Judged runs as a Markdown table. */
import type { Figure, JudgeResult } from "./result";

/** The figures of results of one protocol, each with its interval, and what they were made of. */
export function judgeMarkdown(results: readonly JudgeResult[]): string {
  const [first] = results;
  if (!first) return "";
  const versus = first.opponent !== null;
  const names = first.figures.map(({ name }) => name);
  const head = ["model", ...(versus ? ["against"] : []), ...first.figures.map(({ label }) => label), "n"];
  const rows = results.map((result) => [
    result.model.name,
    ...(versus ? [result.opponent!.name] : []),
    ...names.map((name) => cell(result.figures.find((each) => each.name === name))),
    String(result.figures[0]!.n),
  ]);
  const lines = [head, head.map(() => "---"), ...rows].map((row) => `| ${row.map(escaped).join(" | ")} |`);
  const { judge, hashes, mode } = first;
  const hashed = Object.entries({ questions: hashes.questions, prompts: hashes.prompts, references: hashes.references })
    .filter(([, hash]) => hash !== null)
    .map(([name, hash]) => `${name} ${hash!.slice(0, 12)}`);
  const returned = judge.returned.map(({ id }) => id).join(", ") || "nothing";
  return [
    ...lines,
    "",
    `Judge ${judge.asked}, answered as ${returned}; ${mode} mode; 95 % intervals by bootstrap over questions. sha256: ${hashed.join(", ")}.`,
    ...[...new Set(results.flatMap(({ warnings }) => warnings))].map((text) => `\n> ${text}`),
    "",
  ].join("\n");
}

function cell(figure: Figure | undefined): string {
  if (figure?.value == null) return "–";
  const { value, low, high } = figure;
  return low === null || high === null
    ? value.toFixed(2)
    : `${value.toFixed(2)} (${low.toFixed(2)}–${high.toFixed(2)})`;
}

function escaped(text: string): string {
  return text.replaceAll("|", "\\|");
}
