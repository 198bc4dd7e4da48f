/** The pages of one run, live and as its report: what they count is what happened, and they can be read in every look. */
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { afterAll, describe, expect, it } from "vitest";
import { DpoTrainer, Mistral } from "../ts/index";
import { browsable, drawingFaults, launch, looks, watchedPage } from "./chromium";
import { gate } from "./runs";
import { smallRows } from "./shared";

const base = fileURLToPath(new URL("../recipes/demo/base", import.meta.url));
const scratch = mkdtempSync(join(tmpdir(), "zephyr-pages-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** Rows with one of each kind that is counted: a repeated pair, equal answers, one that is cut, one without an answer. */
function countedRows() {
  const { pairs } = smallRows(12);
  const [first] = pairs;
  const long = { ...first!, prompt: [{ role: "user", content: `say ${"seven ".repeat(60)}.` }] };
  const empty = { ...first!, chosen: [{ role: "assistant", content: "" }] };
  return [...pairs, first!, { ...pairs[1]!, rejected: pairs[1]!.chosen }, long, empty];
}

/** A watched run that holds still after its last step until it is let go. */
async function run(outputDir: string) {
  const end = gate();
  const waiting = { name: "waiting", start() {}, log() {}, end: () => end.opened };
  const trainer = new DpoTrainer({
    policy: await Mistral.fromPretrained(base),
    dataset: countedRows(),
    evalDataset: smallRows(3).pairs,
    evalSteps: 5,
    onBadRow: "skip",
    packing: true,
    maxLength: 64,
    batchSize: 2,
    maxSteps: 12,
    logSteps: 1,
    saveSteps: 5,
    samples: 1,
    sampleSteps: 5,
    learningRate: 1e-4,
    loggers: [waiting],
    watch: { port: 0 },
    outputDir,
  });
  const events = trainer[Symbol.asyncIterator]();
  const fitted = trainer.fit();
  let url = "";
  while (url === "") {
    const { value } = await events.next();
    if (value?.type === "watch") url = value.url;
  }
  return { url, fitted, letGo: end.open };
}

/** Labels and values of the tables of a page. */
function facts(text: string): Record<string, string> {
  const rows = [...text.matchAll(/<th scope="row">([^<]*)<\/th><td>([^<]*)<\/td>/g)];
  return Object.fromEntries(rows.map(([, label, value]) => [label!, value!]));
}

describe.runIf(browsable)("the pages of a run", () => {
  it("count what happened, and can be read light and dark, wide and narrow", async () => {
    const outputDir = join(scratch, "run");
    const { url, fitted, letGo } = await run(outputDir);
    const browser = await launch();
    try {
      for (const look of looks) {
        const { page, faults } = await watchedPage(browser, look);
        await page.goto(url);
        // All steps are made; the run waits for its logger.
        await page.waitForSelector('[aria-valuenow="12"]');
        await page.waitForSelector("#samples pre");
        expect(await page.locator("#charts svg").count()).toBeGreaterThan(6);
        expect(await drawingFaults(page), `live ${JSON.stringify(look)}`).toEqual([]);
        expect(facts(await page.content())["Measured against"]).toBe("the model as it started");
        expect(faults).toEqual([]);
        await page.close();
      }
      letGo();
      const { report, history } = await fitted;
      expect(report).toMatchObject({ rows: 16, kept: 15, skipped: 1, duplicates: 1, equalPairs: 1, cutRows: 1 });
      const path = join(outputDir, "report.html");
      expect(existsSync(path)).toBe(true);
      const written = readFileSync(path, "utf8");
      const counted = facts(written);
      expect(counted).toMatchObject({
        "Rows read": "16",
        "Pairs trained on": "15",
        "Left out": "1",
        "Equal to an earlier row": "1",
        "Chosen equal to rejected": "1",
        "Cut to the maximal length": `1 rows, ${report.cutTokens} tokens`,
        "Tokens of an epoch": report.tokens.toLocaleString("en"),
      });
      expect(counted.Packs).toMatch(/^\d+, \d+\.\d % full$/);
      expect(written).toMatch(/<h4>Before<\/h4><pre>[^<]+<\/pre>[\s\S]*<h4>After<\/h4><pre>[^<]+<\/pre>/);
      expect(history.filter((line) => "eval_loss" in line)).toHaveLength(3);
      for (const look of looks) {
        const { page, faults } = await watchedPage(browser, look);
        await page.goto(pathToFileURL(path).href);
        expect(await drawingFaults(page), `report ${JSON.stringify(look)}`).toEqual([]);
        expect(faults).toEqual([]);
        await page.close();
      }
    } finally {
      letGo();
      await browser.close();
    }
  });
});
