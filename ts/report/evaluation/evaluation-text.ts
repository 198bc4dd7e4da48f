/** The report of judged runs without its texts: as Markdown for an issue or a model card, and as data for programs. */
import type { Figure, JudgeResult } from "../../judge/result";
import { packageVersion } from "../../native/load";
import { percent, whole } from "../format";
import type { RunComparison } from "./comparison";
import { alarmsOf, type Evaluation, evaluationOf, interval, type ProtocolRuns, shown, signed } from "./evaluation";
import type { EvaluationReportOptions } from "./evaluation-report";
import { type PublishedRow, publishedSources } from "./published";
import { shownColumns, shownPublished, shownSources } from "./results-table";

/** Version of {@link EvaluationSummary}. */
export const evaluationSummaryFormat = "zephyr-align/evaluation/1";

/** A judged run without questions, answers and texts of the judge. */
export type RunSummary = Omit<JudgeResult, "format" | "rows"> & { label: string };

/** Everything of a report but the texts. */
export interface EvaluationSummary {
  format: typeof evaluationSummaryFormat;
  runs: RunSummary[];
  /** By protocol: the first run and each other one. */
  comparisons: { protocol: JudgeResult["protocol"]; comparison: RunComparison }[];
  /** Rows that others have published, as the report shows them. */
  published: PublishedRow[];
  publishedSources: Record<string, string>;
  versions: Record<string, string>;
}

/** The report as data. */
export function evaluationSummary(results: readonly JudgeResult[]): EvaluationSummary {
  const evaluation = evaluationOf(results);
  return {
    format: evaluationSummaryFormat,
    runs: evaluation.runs.map(({ label, result: { format: _, rows: __, ...rest } }) => ({ label, ...rest })),
    comparisons: evaluation.protocols.flatMap(({ protocol, comparisons }) =>
      comparisons.map((comparison) => ({ protocol, comparison })),
    ),
    published: [...shownPublished(evaluation)],
    publishedSources: Object.fromEntries(shownSources(evaluation).map((name) => [name, publishedSources[name]])),
    versions: { "zephyr-align": packageVersion(), node: process.versions.node },
  };
}

/** The report as Markdown: tables and what a reader must know. */
export function renderEvaluationMarkdown(
  results: readonly JudgeResult[],
  { title = "Evaluation", createdAt }: EvaluationReportOptions = {},
): string {
  const evaluation = evaluationOf(results);
  const blocks = [
    `# ${plain(title)}`,
    ...(createdAt === undefined ? [] : [plain(createdAt)]),
    alarmsOf(evaluation)
      .map(({ run, text, alarm }) => `- ${alarm ? "**Alarm** " : ""}${plain(run)}: ${plain(text)}`)
      .join("\n"),
    ...resultsBlocks(evaluation),
    ...evaluation.protocols.flatMap(protocolBlocks),
    ...biasBlocks(evaluation),
    ...originBlocks(evaluation),
  ];
  return `${blocks.filter((block) => block !== "").join("\n\n")}\n`;
}

/** Text that means nothing to Markdown or HTML, in one line. */
function plain(text: string): string {
  return text
    .replaceAll(/\s+/g, " ")
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(/[\\`*_[\]|~#]/g, (character) => `\\${character}`);
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  // Names to the left, figures to the right.
  const rule = head.map((_, at) => (at === 0 ? "---" : "--:"));
  return [line(head), line(rule), ...rows.map(line)].join("\n");
}

function figureText(figure: Figure | undefined): string {
  if (!figure) return "–";
  const sure = interval(figure);
  return `**${shown(figure.value)}**${sure === "" ? "" : ` (${sure})`}, n ${whole(figure.n)}`;
}

function resultsBlocks(evaluation: Evaluation): string[] {
  if (evaluation.table.length === 0) return [];
  const columns = shownColumns(evaluation);
  const sources = shownSources(evaluation);
  const ours = evaluation.table.map(({ model, figures }) => [
    plain(model),
    "–",
    "–",
    ...columns.map(({ name }) => figureText(figures[name])),
  ]);
  const published = shownPublished(evaluation).map(({ model, size, align, figures }) => [
    `${model} (published)`,
    size ?? "–",
    align ?? "–",
    ...columns.map(({ name }) => {
      const figure = figures[name];
      return figure ? `${shown(figure.value)} [${sources.indexOf(figure.source) + 1}]` : "–";
    }),
  ]);
  const head = ["Model", "Size", "Align", ...columns.map(({ title, unit }) => `${title} (${unit})`)];
  const notes = sources.map((source, i) => `[${i + 1}] ${publishedSources[source]}.`);
  return [
    "## Results",
    table(head, [...ours, ...published]),
    `Behind our values: 95 % intervals by bootstrap over questions, and the judgments in them. Rows marked as published were measured by others. ${notes.join(" ")}`,
  ];
}

function protocolBlocks({ title, runs, comparisons }: ProtocolRuns): string[] {
  const figures = new Map(
    runs.flatMap(({ result }) => result.figures.map(({ name, label }) => [name, label] as const)),
  );
  const rows = [...figures].map(([name, label]) => [
    plain(label),
    ...runs.map(({ result }) => figureText(result.figures.find((each) => each.name === name))),
  ]);
  const counts = runs.map(({ result: { counts: c } }) => (c ? `${c.wins} / ${c.ties} / ${c.losses}` : "–"));
  if (counts.some((each) => each !== "–")) rows.push(["Wins, ties, losses", ...counts]);
  return [
    `## ${title}`,
    table(["Figure", ...runs.map(({ label }) => plain(label))], rows),
    ...comparisons.flatMap(comparisonBlocks),
  ];
}

function comparisonBlocks({ first, second, differences, turns, cautions }: RunComparison): string[] {
  const rows = differences.map(({ label, value, low, high, n }) => [
    plain(label),
    signed(value),
    low === null || high === null ? "–" : `${signed(low)} to ${signed(high)}`,
    whole(n),
  ]);
  return [
    `### ${plain(second)} less ${plain(first)}`,
    cautions.map((text) => `- ${plain(text)}`).join("\n"),
    `Turns scored higher ${turns.higher}, the same ${turns.same}, lower ${turns.lower}. Paired differences, 95 % intervals by bootstrap over questions.`,
    table(["Figure", "Difference", "95 % interval", "n"], rows),
  ];
}

function biasBlocks({ runs }: Evaluation): string[] {
  const rate = (figure: { rate: number; n: number } | null) =>
    figure === null ? "–" : `${percent(figure.rate)} (n ${whole(figure.n)})`;
  const rows: string[][] = [
    ["First shown wins", ...runs.map(({ result }) => rate(result.bias.firstPosition))],
    ["Winner changes on swap", ...runs.map(({ result }) => rate(result.bias.swapFlips))],
    ["Longer wins", ...runs.map(({ result }) => rate(result.bias.longerWins))],
    [
      "Correlation of score and length",
      ...runs.map(({ result: { bias } }) => bias.lengthCorrelation?.r.toFixed(2) ?? "–"),
    ],
    [
      "Canaries in alarm",
      ...runs.map(({ result: { canaries } }) =>
        canaries.length === 0 ? "–" : `${canaries.filter(({ flagged }) => flagged).length} of ${canaries.length}`,
      ),
    ],
  ];
  const known = rows.filter(([, ...cells]) => cells.some((cell) => cell !== "–"));
  if (known.length === 0) return [];
  return ["## Bias", table(["", ...runs.map(({ label, result }) => `${plain(label)} (${result.protocol})`)], known)];
}

function originBlocks({ runs }: Evaluation): string[] {
  const rows: string[][] = [
    ["Judge asked for", ...runs.map(({ result }) => plain(result.judge.asked))],
    [
      "Judge as returned",
      ...runs.map(({ result }) => plain(result.judge.returned.map(({ id }) => id).join(", ") || "–")),
    ],
    ["Mode", ...runs.map(({ result }) => result.mode)],
    ["Judged", ...runs.map(({ result: { completeness: c } }) => `${whole(c.judged)} of ${whole(c.expected)}`)],
    ["Chat template", ...runs.map(({ result }) => plain(result.model.template ?? "not known"))],
    ...(["questions", "prompts", "references", "answers"] as const).map((name) => [
      `sha256 of ${name}`,
      ...runs.map(({ result }) => `\`${result.hashes[name]?.slice(0, 16) ?? "–"}\``),
    ]),
    [
      "Cost",
      ...runs.map(({ result: { cost } }) => (cost.dollars === null ? "not known" : `$${cost.dollars.toFixed(2)}`)),
    ],
  ];
  return ["## How it was made", table(["", ...runs.map(({ label }) => plain(label))], rows)];
}
