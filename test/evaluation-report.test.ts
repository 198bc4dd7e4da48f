import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openMtBench } from "../ts/judge/mt-bench/bench";
import { contestantFrom, scoreMtBench } from "../ts/judge/mt-bench/run";
import type { JudgeResult } from "../ts/judge/result";
import { renderEvaluationReport } from "../ts/report/evaluation/evaluation-report";
import { browsable, drawingFaults, launch, looks, watchedPage } from "./chromium";
import { judged } from "./judged";
import { buildProgram, data, present, readJson, runProgram } from "./shared";

const folder = mkdtempSync(join(tmpdir(), "zephyr-report-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const at = (name: string) => join(folder, name);
const evil = `<script>document.title = "broken in"</script><img src=x onerror="document.title='broken in'">`;

const alarmed = judged({
  model: "second",
  score: (question, turn) => (question === 4 ? null : 1 + ((question * 5 + turn) % 9)),
  overrides: {
    canaries: [{ name: "constant", answer: "Thank you.", n: 8, score: 7.5, limit: 5, flagged: true }],
    flaggedAnswers: [{ id: 90, turn: 2, excerpt: evil }],
    warnings: ["The judge judges itself."],
  },
});
const results: JudgeResult[] = [
  judged(),
  alarmed,
  judged({ model: "third", text: evil }),
  judged({ protocol: "alpaca-eval-1.0" }),
  judged({ protocol: "alpaca-eval-2.0" }),
  judged({ protocol: "mt-bench-pair", opponent: "second" }),
];

describe.runIf(browsable)("the report in Chromium", () => {
  beforeAll(() => writeFileSync(at("all.html"), renderEvaluationReport(results)));
  const address = () => pathToFileURL(at("all.html")).href;

  it("filters, orders and links to questions, and runs no text", async () => {
    const browser = await launch();
    try {
      const { page, faults } = await watchedPage(browser, { viewport: { width: 1360, height: 900 } });
      await page.goto(address());
      const first = page.locator(".browser").first();
      const questions = () => first.locator(".question").count();
      const shown = () => first.locator("output").textContent();
      const ofSecond = (): Promise<(number | null)[]> =>
        first
          .locator(".question")
          .evaluateAll((list) => list.map((each) => JSON.parse(each.getAttribute("data-scores") ?? "[]")[1]));
      expect(await page.title()).toBe("Evaluation");
      expect(await page.locator("img").count()).toBe(0);
      expect(await shown()).toBe("24 of 24");

      await first.locator("[name=category]").selectOption("math");
      expect(await shown()).toBe("3 of 24");
      await first.locator(".question summary").first().click();
      const text = await first.locator(".question").first().textContent();
      expect(text).toContain("Turn 1");
      expect(text).toContain("Turn 2");
      expect(text).toContain("Reference answer");
      expect(text).toContain("zephyr says word");
      await first.locator(".verdict summary").first().click();
      expect(await first.locator(".question").first().textContent()).toMatch(/The answer to 9 earns \[\[\d+\]\]/);

      await first.locator("[name=category]").selectOption("");
      await first.locator("[name=run]").selectOption({ label: "second" });
      await first.locator("[name=most]").fill("3");
      const low = await questions();
      expect(low).toBeGreaterThan(0);
      const scores = await ofSecond();
      expect(scores.every((score) => score !== null && score <= 3)).toBe(true);
      await first.locator("[name=most]").fill("");
      await first.locator("[name=order]").selectOption("low");
      const ordered = await ofSecond();
      // The question without a score comes last.
      expect(ordered.at(-1)).toBeNull();
      const known = ordered.slice(0, -1) as number[];
      expect(known).toEqual([...known].sort((a, b) => a - b));
      await first.locator("[name=text]").fill("question 7, turn 2");
      expect(await shown()).toBe("1 of 24");

      // A link to a question that the filter has taken out.
      const link = page.locator(".changed a").first();
      const target = (await link.getAttribute("href"))!.slice(1);
      await link.click();
      await expect.poll(() => page.locator(`#${target}`).getAttribute("open")).toBe("");
      expect(await shown()).toBe("24 of 24");
      expect(
        await page
          .locator("svg[role=img]")
          .evaluateAll((list) => list.every((each) => each.getAttribute("aria-label"))),
      ).toBe(true);
      expect(faults).toEqual([]);
    } finally {
      await browser.close();
    }
  });

  it("is readable light and dark, wide and narrow, without its script, and on paper", async () => {
    const browser = await launch();
    try {
      for (const look of looks) {
        const { page, faults } = await watchedPage(browser, look);
        await page.goto(address());
        await page.locator(".question").evaluateAll((list) => {
          for (const each of list.slice(0, 3)) each.setAttribute("open", "");
        });
        expect(await drawingFaults(page), JSON.stringify(look)).toEqual([]);
        expect(faults).toEqual([]);
        await page.close();
      }
      const { page } = await watchedPage(browser, { javaScriptEnabled: false });
      await page.goto(address());
      expect(await page.isVisible(".filters")).toBe(false);
      await page.locator(".question summary").first().click();
      expect(await page.locator(".question .turn").first().isVisible()).toBe(true);
      const pdf = await page.pdf({ format: "A4" });
      expect(pdf.subarray(0, 5).toString()).toBe("%PDF-");
    } finally {
      await browser.close();
    }
  });
});

describe("zephyr-align report", () => {
  const run = (...args: string[]) => runProgram(["report", ...args]);
  beforeAll(() => {
    buildProgram();
    for (const [index, result] of results.entries()) writeFileSync(at(`${index}.json`), JSON.stringify(result));
  });

  it("writes the page, Markdown and figures", () => {
    const files = results.map((_, index) => at(`${index}.json`));
    const { status, stderr } = run(
      ...files,
      "--out",
      at("out/report.html"),
      "--markdown",
      at("out/report.md"),
      "--json",
      at("out/report.json"),
      "--title",
      "Six runs",
    );
    expect(status, stderr).toBe(0);
    expect(readFileSync(at("out/report.html"), "utf8")).toContain("<h1>Six runs</h1>");
    expect(readFileSync(at("out/report.md"), "utf8")).toContain("# Six runs");
    const summary = readJson<{ runs: { label: string }[]; comparisons: unknown[] }>(at("out/report.json"));
    expect(summary.runs).toHaveLength(6);
    expect(summary.comparisons).toHaveLength(2);
  });

  it("refuses what is no judged run, with exit code 77 and the file", () => {
    writeFileSync(at("other.json"), "{}");
    const { status, stderr } = run(at("0.json"), at("other.json"), "--out", at("none.html"));
    expect(status).toBe(77);
    expect(stderr).toContain("ZA_JUDGE_RESULT");
    expect(stderr).toContain(at("other.json"));
    expect(run().status).not.toBe(0);
  });
});

const bench = join(data, "mt_bench");
describe.runIf(present(join(bench, "model_judgment")))("on real judgments", () => {
  it("800 of them fit into 5 MB, with their own numbers", async () => {
    const expected = readJson<{
      single: Record<string, { average: number; duplicates: number; categories: Record<string, number> }>;
    }>(bench, "expected.json").single;
    const opened = await openMtBench(bench);
    const file = join(bench, "model_judgment", "gpt-4_single.jsonl");
    const real = await Promise.all(
      Object.keys(expected).map(async (model) => {
        const twice = expected[model]!.duplicates > 0;
        const answers = join(bench, "model_answer", `${model}.jsonl`);
        return scoreMtBench({
          bench: opened,
          file,
          model: twice ? model : await contestantFrom(answers),
          mode: twice ? "compat" : "strict",
        });
      }),
    );
    const page = renderEvaluationReport(real);
    writeFileSync(at("real.html"), page);
    expect(statSync(at("real.html")).size).toBeLessThan(5e6);
    expect(page.match(/class="verdict"/g)!.length).toBeGreaterThanOrEqual(640);
    for (const [model, { average, categories }] of Object.entries(expected)) {
      expect(page).toContain(`<b>${average.toFixed(2)}</b>`);
      for (const [category, value] of Object.entries(categories)) {
        const label = category === "stem" ? "STEM" : category[0]!.toUpperCase() + category.slice(1);
        expect(page.includes(`<title>${label}, ${model}: ${value.toFixed(2)} (`), `${model} ${category}`).toBe(true);
      }
    }
    if (!browsable) return;
    const browser = await launch();
    try {
      const { page: tab, faults } = await watchedPage(browser);
      await tab.goto(pathToFileURL(at("real.html")).href);
      await tab.locator(".browser [name=text]").fill("white house");
      await expect.poll(() => tab.locator(".browser output").textContent()).toMatch(/^[1-9]\d* of 80$/);
      expect(await drawingFaults(tab)).toEqual([]);
      expect(faults).toEqual([]);
    } finally {
      await browser.close();
    }
  });
});
