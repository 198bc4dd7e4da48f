/** A judged run on the terminal: figures with their intervals, what pulls the judge, what it was made of. */
import type { Figure, JudgeResult } from "../judge/result";
import { percent, figure as plain, whole } from "../report/format";
import { bar, type CellInput, columns } from "./columns";
import { type Style, styleOf } from "./style";

const titles: Readonly<Record<JudgeResult["protocol"], string>> = {
  "mt-bench": "MT-Bench",
  "mt-bench-pair": "MT-Bench, pairs",
  "alpaca-eval-1.0": "AlpacaEval 1.0",
  "alpaca-eval-2.0": "AlpacaEval 2.0",
};

/** The results of one protocol. */
export function judgeText(results: readonly JudgeResult[]): string {
  const [first] = results;
  if (!first) return "";
  const style = styleOf(process.stdout);
  const judge = judgeName(first);
  const mode = first.mode === "compat" ? ", as the benchmark's own scripts" : "";
  const parts = [
    `\n${style.bold(titles[first.protocol])} ${style.dim(`judged by ${judge}${mode}`)}\n`,
    headline(results, style),
    categories(results, style),
    ...results.map((result) => notes(result, results.length > 1, style)),
  ];
  return parts.join("");
}

/** The judge as asked for, and as it named itself. */
export function judgeName({ judge: { asked, returned } }: JudgeResult): string {
  const ids = returned.map(({ id }) => id).filter((id) => id !== asked);
  return ids.length > 0 ? `${asked} (${ids.join(", ")})` : asked;
}

/** A figure with two decimals, as benchmarks print them. */
export function rounded({ value, unit }: Pick<Figure, "value" | "unit">): string {
  return value === null ? "–" : `${value.toFixed(2)}${unit === "percent" ? " %" : ""}`;
}

/** `6.53–7.81`; empty without an interval. */
export function interval({ low, high }: Pick<Figure, "low" | "high">): string {
  return low === null || high === null ? "" : `${low.toFixed(2)}–${high.toFixed(2)}`;
}

/** A line for each model: the headline with its interval, the figures of turns, counts. */
function headline(results: readonly JudgeResult[], { bold, dim, cyan }: Style): string {
  const [first] = results as [JudgeResult];
  const more = first.figures.slice(1).filter(({ group }) => group !== "category");
  const versus = first.opponent !== null;
  const head = [
    "",
    first.figures[0]!.label.toLowerCase(),
    "95 %",
    ...more.map(({ label }) => label.toLowerCase()),
    ...(versus ? ["won / lost / tied"] : []),
    "n",
    ...(results.some(({ figures }) => figures[0]!.spread !== null) ? ["spread"] : []),
  ];
  const rows = [...results]
    .sort((a, b) => (b.figures[0]!.value ?? 0) - (a.figures[0]!.value ?? 0))
    .map((result) => {
      const [main] = result.figures as [Figure];
      const of = (name: string) => result.figures.find((each) => each.name === name);
      const { wins, losses, ties } = result.counts ?? {};
      const name = versus ? `${result.model.name} vs ${result.opponent!.name}` : result.model.name;
      const cells: CellInput[] = [
        { text: name, paint: cyan },
        { text: rounded(main), paint: bold },
        { text: interval(main), paint: dim },
        ...more.map((each) => {
          const found = of(each.name);
          return found ? rounded(found) : "–";
        }),
        ...(versus ? [`${wins} / ${losses} / ${ties}`] : []),
        { text: whole(main.n), paint: dim },
        ...(main.spread === null ? [] : [{ text: `${main.spread.toFixed(2)} over ${main.repeats}`, paint: dim }]),
      ];
      return cells;
    });
  return columns([head.map((text) => ({ text, paint: dim })), ...rows]);
}

/** One result: bars with intervals. Several: a column for each model. */
function categories(results: readonly JudgeResult[], { dim, cyan }: Style): string {
  const [first] = results as [JudgeResult];
  const listed = first.figures.filter(({ group }) => group === "category");
  if (listed.length === 0) return "";
  if (results.length > 1) {
    const rows = listed.map(({ name, label }) => [
      { text: label, paint: dim },
      ...results.map(({ figures }) => {
        const found = figures.find((each) => each.name === name);
        return found ? rounded(found) : "–";
      }),
    ]);
    return `\n${columns([["", ...results.map(({ model }) => ({ text: model.name, paint: cyan }))], ...rows])}`;
  }
  const width = 24;
  const most = first.scale === "rating" ? 10 : 100;
  const rows = listed.map((each): CellInput[] => [
    { text: each.label, paint: dim },
    { text: bar((each.value ?? 0) / most, width).padEnd(width), paint: cyan },
    rounded(each),
    { text: interval(each), paint: dim },
  ]);
  return `\n${columns(rows, [0, 1])}`;
}

/** What a score is to be read with. */
function notes(result: JudgeResult, named: boolean, { dim, yellow, green, cyan }: Style): string {
  const { bias, cost, hashes, canaries, flaggedAnswers } = result;
  const part = <T>(value: T | null, text: (value: T) => string) => (value === null ? [] : [text(value)]);
  const pulls = [
    ...part(bias.firstPosition, ({ rate, n }) => `the first shown wins ${percent(rate)} of ${whole(n)}`),
    ...part(bias.swapFlips, ({ rate, n }) => `the order flips ${percent(rate)} of ${whole(n)}`),
    ...part(bias.longerWins, ({ rate, n }) => `the longer wins ${percent(rate)} of ${whole(n)}`),
    ...part(bias.lengthCorrelation, ({ r }) => `score and length r = ${r.toFixed(2)}`),
  ];
  const made = [
    ...part(hashes.prompts, (hash) => `prompts ${hash.slice(0, 8)}`),
    ...part(hashes.references, (hash) => `references ${hash.slice(0, 8)}`),
    ...part(hashes.answers, (hash) => `answers ${hash.slice(0, 8)}`),
    ...part(result.model.template, (template) => `template ${template}`),
    ...part(result.model.meanLength, (length) => `mean answer ${whole(Math.trunc(length))} characters`),
  ];
  const spent = [
    `${whole(cost.calls)} calls`,
    ...(cost.reused > 0 ? [`${whole(cost.reused)} judged before`] : []),
    ...(cost.promptTokens > 0 ? [`${whole(cost.promptTokens + cost.completionTokens)} tokens`] : []),
    ...(cost.dollars !== null && cost.dollars > 0 ? [`$${cost.dollars.toFixed(2)}`] : []),
  ];
  const shown = canaries.map(({ name, score, flagged }) => {
    const text = `${name} ${score === null ? "–" : plain(score)}`;
    return flagged ? yellow(text) : text;
  });
  const warned = result.warnings.map((text) => `  ${yellow("!")} ${text}\n`);
  const flagged = flaggedAnswers.map(({ id, turn }) => `${id}/${turn}`);
  return [
    `\n${named ? `  ${cyan(result.model.name)}\n` : ""}`,
    pulls.length > 0 ? `  ${dim(pulls.join(" · "))}\n` : "",
    `  ${dim([...made, ...spent].join(" · "))}\n`,
    shown.length > 0
      ? `  ${canaries.some((each) => each.flagged) ? yellow("✗") : green("✓")} ${dim("canaries")} ${shown.join(dim(", "))}\n`
      : "",
    flagged.length > 0
      ? `  ${yellow("!")} ${flagged.length} answers speak to the judge (${flagged.slice(0, 5).join(", ")})\n`
      : "",
    ...warned,
  ].join("");
}
