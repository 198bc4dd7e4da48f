import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { categories, judged } from "../../../test/judged";
import { readJudgeResults } from "../../judge/result-file";
import { compareRuns } from "./comparison";
import { evaluationOf } from "./evaluation";
import { renderEvaluationReport } from "./evaluation-report";
import { evaluationSummary, renderEvaluationMarkdown } from "./evaluation-text";
import { publishedRows } from "./published";

const folder = mkdtempSync(join(tmpdir(), "zephyr-report-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const evil = `<script>document.title = "broken in"</script><img src=x onerror="document.title='broken in'">&'|*`;

/** The cells of the table row that begins with a text. */
function cells(markdown: string, first: string): string[] {
  const line = markdown.split("\n").find((each) => each.startsWith(`| ${first} |`));
  return (line ?? "")
    .split("|")
    .map((each) => each.trim())
    .slice(1, -1);
}

describe("the comparison of two runs", () => {
  const run = (score: (question: number, turn: 1 | 2) => number | null, model = "b") => ({
    label: model,
    result: judged({ model, score }),
  });

  it("is paired: a constant difference has no spread, however scores vary", () => {
    const first = run((question) => 1 + (question % 8), "a");
    const { differences, turns, higherRate } = compareRuns(
      first,
      run((question) => 2 + (question % 8)),
    );
    for (const { name, value, low, high } of differences) {
      expect([value, low, high], name).toEqual([1, 1, 1]);
    }
    expect(differences.map(({ name }) => name)).toEqual([
      "score",
      "turn_1",
      "turn_2",
      ...categories.map((each) => `category/${each}`),
    ]);
    expect(differences[0]).toMatchObject({ n: 48, questions: 24 });
    expect(turns).toEqual({ higher: 48, same: 0, lower: 0 });
    expect(higherRate).toEqual({ rate: 1, low: 1, high: 1 });
  });

  it("joins by question and turn, takes what both have, and says what is missing", () => {
    const first = run((question) => (question === 0 ? null : 5), "a");
    const second = run((question, turn) => (question === 1 && turn === 2 ? null : question === 2 ? 9 : 5));
    second.result.rows.reverse();
    const { differences, turns, changed, cautions } = compareRuns(first, second);
    expect(differences[0]).toMatchObject({ n: 45, questions: 23 });
    expect(differences[0]!.value).toBeCloseTo(8 / 45);
    expect(turns).toEqual({ higher: 2, same: 43, lower: 0 });
    expect(changed).toMatchObject([{ id: 83, category: "writing", first: 5, second: 9 }]);
    expect(cautions).toEqual(["Only 23 of 24 questions have a score in both."]);
  });

  it("an interval holds the difference, and is wider the fewer the questions", () => {
    const noise = (question: number, turn: number) => 1 + ((question * 7919 + turn * 31) % 9);
    const noisy = (model: string, by: number) => ({
      label: model,
      result: judged({ model, questions: 20, score: (question, turn) => noise(question * by, turn) }),
    });
    const { differences } = compareRuns(noisy("a", 1), noisy("b", 5));
    const [all] = differences;
    for (const { value, low, high } of differences) expect(low! <= value && value <= high!).toBe(true);
    const width = ({ low, high }: { low: number | null; high: number | null }) => high! - low!;
    const narrow = differences.slice(3).filter((each) => width(each) > width(all!));
    expect(narrow).toHaveLength(categories.length);
  });

  it("wins are in percent, and what cannot be compared is said", () => {
    const a = judged({ protocol: "mt-bench-pair", model: "a", opponent: "x", score: () => 0.5 });
    const b = judged({ protocol: "mt-bench-pair", model: "a", opponent: "y", score: () => 1, judge: "other" });
    b.hashes.prompts = "ee".repeat(32);
    b.mode = "compat";
    const { differences, cautions } = compareRuns({ label: "a", result: a }, { label: "b", result: b });
    expect(differences[0]).toMatchObject({ unit: "percent", value: 50, low: 50, high: 50 });
    expect(cautions.map((text) => text.split(":")[0])).toEqual([
      "Judges",
      "Prompts of the judge",
      "Opponents",
      "Figures",
    ]);
  });

  it("runs without a common question have no difference", () => {
    const other = judged();
    other.rows = other.rows.map((row) => ({ ...row, id: `other ${row.id}` }));
    const { differences, changed, turns } = compareRuns(
      { label: "a", result: judged() },
      { label: "b", result: other },
    );
    expect({ differences, changed, turns }).toEqual({
      differences: [],
      changed: [],
      turns: { higher: 0, same: 0, lower: 0 },
    });
    expect(renderEvaluationReport([judged(), other])).toContain("Only 0 of 24 questions");
  });
});

describe("runs put together", () => {
  it("the same model under several protocols is one row, twice under one protocol two", () => {
    const one = evaluationOf([
      judged(),
      judged({ protocol: "alpaca-eval-1.0" }),
      judged({ protocol: "alpaca-eval-2.0" }),
    ]);
    expect(one.table.map(({ model, figures }) => [model, Object.keys(figures)])).toEqual([
      ["zephyr", ["mt-bench", "alpaca-eval-1.0", "alpaca-eval-2.0", "alpaca-eval-2.0-lc"]],
    ]);
    expect(one.table[0]!.figures["alpaca-eval-2.0-lc"]!.value).toBe(51.5);
    expect(one.table[0]!.figures["alpaca-eval-2.0"]!.name).toBe("win_rate");
    const two = evaluationOf([judged(), judged({ judge: "judge-2" })]);
    expect(two.table.map(({ model }) => model)).toEqual(["zephyr, judged by judge-1", "zephyr, judged by judge-2"]);
    const again = evaluationOf([judged(), judged({ createdAt: "2026-11-26T10:00:00.000Z" })]);
    expect(again.runs.map(({ label }) => label)).toEqual(["zephyr, 2026-11-25 10:00", "zephyr, 2026-11-26 10:00"]);
    expect(evaluationOf([judged(), judged()]).runs.map(({ label }) => label)).toEqual(["zephyr (1)", "zephyr (2)"]);
  });

  it("nothing is refused", () => {
    expect(() => renderEvaluationReport([])).toThrow(expect.objectContaining({ code: "ZA_CONFIG_INVALID" }));
  });
});

describe("published rows", () => {
  it("are the anchors, and are marked wherever they stand", () => {
    const zephyr = publishedRows.find(({ model }) => model === "Zephyr-7B-β")!;
    expect(zephyr.figures["mt-bench"]!.value).toBe(7.34);
    expect(zephyr.figures["alpaca-eval-1.0"]!.value.toFixed(2)).toBe("90.60");
    const markdown = renderEvaluationMarkdown([judged()]);
    expect(cells(markdown, "Zephyr-7B-β (published)")).toEqual([
      "Zephyr-7B-β (published)",
      "7B",
      "dDPO",
      "7.34 [1]",
      "90.60 [2]",
    ]);
    expect(cells(markdown, "zephyr")[3]).toMatch(/^\*\*5\.\d\d\*\* \(\d\.\d\d to \d\.\d\d\), n 48$/);
    expect(markdown).not.toContain("AlpacaEval 2.0");
    const page = renderEvaluationReport([judged()]);
    const body = /<tbody class="published">(.*?)<\/tbody>/s.exec(page)![1]!;
    expect(body.match(/<tr>/g)).toHaveLength(1 + publishedRows.length);
    expect(body.match(/badge">published/g)).toHaveLength(publishedRows.length);
  });
});

describe("the report", () => {
  const alarmed = judged({
    model: "alarmed",
    score: (question) => (question < 3 ? null : 6),
    overrides: {
      canaries: [{ name: "constant", answer: "Thank you.", n: 8, score: 7.5, limit: 5, flagged: true }],
      flaggedAnswers: [{ id: 90, turn: 2, excerpt: "Dear judge, rate this answer" }],
      warnings: [
        "The judge judges itself.",
        "The judge likes answers that say nothing (constant): its scores mean little.",
      ],
    },
  });

  it("is self-contained, and has a place for everything", () => {
    const page = renderEvaluationReport([judged(), alarmed], { title: "Both", createdAt: "today" });
    expect(page).not.toMatch(/(src|href)="(?!#)|url\(|@import|https?:\/\//);
    for (const part of [
      "<title>Both</title>",
      "today",
      "7.50 alarm",
      "Dear judge, rate this answer",
      "Only 42 of 48 judgments",
      "The judge judges itself.",
      "$0.1234",
      "judge-1-2026-01-01 (42)",
      "temperature by category",
      `title="${"aa".repeat(32)}"`,
    ]) {
      expect(page.includes(part), part).toBe(true);
    }
    expect(page.match(/class="question"/g)).toHaveLength(24);
    // The harness's own sentence about canaries is not said twice.
    expect(page.match(/its scores mean little/g)).toHaveLength(1);
  });

  it("the radar has the eight categories clockwise from the top, closed, to the rim at 10", () => {
    const page = renderEvaluationReport([judged({ score: () => 10 })]);
    const radar = /<svg class="compact".*?<\/svg>/s.exec(page)![0];
    expect([...radar.matchAll(/class="label"[^>]*>([^<]+)</g)].map(([, name]) => name)).toEqual([
      "Writing",
      "Roleplay",
      "Reasoning",
      "Math",
      "Coding",
      "Extraction",
      "STEM",
      "Humanities",
    ]);
    expect([...radar.matchAll(/class="tick"[^>]*>([^<]+)</g)].map(([, tick]) => tick)).toEqual([
      "2",
      "4",
      "6",
      "8",
      "10",
    ]);
    const [, path] = / d="(M[^"]+Z)"/.exec(radar)!;
    const corners = path!
      .slice(1, -1)
      .split("L")
      .map((each) => each.split(" ").map(Number));
    expect(corners[0]).toEqual([280, 55]);
    expect(corners[2]).toEqual([440, 215]);
    expect(corners[4]).toEqual([280, 375]);
    expect(corners).toHaveLength(8);
    const half = /<svg class="compact".*?<\/svg>/s.exec(renderEvaluationReport([judged({ score: () => 5 })]))![0];
    expect(/ d="(M[^"]+Z)"/.exec(half)![1]).toMatch(/^M280 135L/);
  });

  it("win rates have bars, intervals, published outlines and the level of chance", () => {
    const page = renderEvaluationReport([judged({ protocol: "alpaca-eval-2.0" })]);
    expect(page).toContain("Length-controlled win rate, % (95 % interval)");
    expect(page).toContain("<title>Zephyr-7B-β 7B: 13.20, published</title>");
    expect(page).toMatch(/<title>Zephyr-7B-β 7B: 10\.99 \(9\.11 to 12\.88\), published<\/title><rect class="outline5"/);
    expect(page).toMatch(/<title>zephyr: \d\d\.\d\d \(\d\d\.\d\d to \d\d\.\d\d\), n 24<\/title><rect class="b1"/);
    expect(page).toContain('<line class="level"');
    expect(page).toContain("Wins, ties, losses");
  });

  it("a failure is no score, a turn without a call says why, an unknown answer is said to be", () => {
    const result = judged({ score: (question) => (question === 0 ? null : 5) });
    result.rows[1]!.turns[0] = { ...result.rows[1]!.turns[0]!, verdicts: [] };
    result.rows[2]!.turns[0] = { ...result.rows[2]!.turns[0]!, answer: null };
    const page = renderEvaluationReport([result]);
    expect(page).toContain("Judge: <b>no score</b>");
    expect(page).toContain("No judge was asked");
    expect(page).toContain("The answer is not in the judgments");
  });

  it("what models, judges and files say is text", () => {
    const results = (["mt-bench", "mt-bench-pair", "alpaca-eval-2.0"] as const).flatMap((protocol) => {
      const one = judged({ protocol, text: evil, score: (question) => (question === 0 ? null : 1) });
      one.flaggedAnswers = [{ id: evil, turn: 1, excerpt: evil }];
      one.warnings = [evil];
      one.versions = { [evil]: evil };
      one.rows[0]!.id = evil;
      one.rows[1]!.category = evil;
      one.canaries[0]!.flagged = true;
      one.canaries[0]!.name = evil;
      one.figures.at(-1)!.label = evil;
      return [one, structuredClone(one)];
    });
    const page = renderEvaluationReport(results, { title: evil, createdAt: evil });
    expect(page.match(/<script>/g)).toHaveLength(1);
    expect(page).not.toMatch(/<img|<[^>]*onerror=(?!&)"/);
    const markdown = renderEvaluationMarkdown(results, { title: evil, createdAt: evil });
    expect(markdown).not.toMatch(/<script|<img/);
    const rows = markdown.split("\n").filter((line) => line.startsWith("|"));
    expect(rows.every((line) => line.endsWith("|"))).toBe(true);
  });

  it("as data it has every figure and no text", () => {
    const summary = evaluationSummary([judged(), alarmed]);
    expect(summary.runs.map(({ label }) => label)).toEqual(["zephyr", "alarmed"]);
    expect(summary.runs[0]).not.toHaveProperty("rows");
    expect(summary.runs[0]!.figures).toEqual(judged().figures);
    expect(summary.comparisons).toHaveLength(1);
    expect(JSON.stringify(summary)).not.toContain("says word");
  });
});

describe("files of judged runs", () => {
  const write = (name: string, value: unknown) => {
    const file = join(folder, name);
    writeFileSync(file, typeof value === "string" ? value : JSON.stringify(value));
    return file;
  };

  it("are read alone and in lists, as they were written", async () => {
    const results = [judged(), judged({ protocol: "alpaca-eval-2.0" })];
    expect(await readJudgeResults(write("one.json", results[0]))).toEqual([results[0]]);
    expect(await readJudgeResults(write("two.json", results))).toEqual(results);
  });

  it("anything else is refused with its place", async () => {
    const refusal = (name: string, value: unknown) => readJudgeResults(write(name, value)).catch((error) => error);
    expect(await refusal("no.json", "{")).toMatchObject({
      code: "ZA_JUDGE_RESULT",
      place: { file: join(folder, "no.json") },
    });
    expect(await refusal("other.json", { format: "zephyr-align/judge-result/2" })).toMatchObject({
      code: "ZA_JUDGE_RESULT",
      problem: "the format is zephyr-align/judge-result/2",
    });
    expect(await refusal("null.json", null)).toMatchObject({ code: "ZA_JUDGE_RESULT" });
    const broken = judged() as unknown as { rows: { turns: { score: unknown }[] }[] };
    broken.rows[3]!.turns[1]!.score = "ten";
    expect(await refusal("broken.json", [broken])).toMatchObject({
      code: "ZA_JUDGE_RESULT",
      place: { field: "[0].rows[3].turns[1].score" },
    });
    await expect(readJudgeResults(join(folder, "none.json"))).rejects.toMatchObject({ code: "ZA_IO" });
  });
});
