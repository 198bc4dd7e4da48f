/** The page of a data set, as an HTTP client and as a person in a browser see it. */
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { get } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { folderTokenizer } from "../ts/model/tokenizer";
import { type DatasetView, viewDataset } from "../ts/report/view/view-dataset";
import type { SeenOptions } from "../ts/train/seen-row";
import { browsable, drawingFaults, launch, looks, watchedPage } from "./chromium";
import { buildProgram } from "./shared";

const base = fileURLToPath(new URL("../recipes/demo/base", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "zephyr-view-"));
const file = join(folder, "pairs.jsonl");
const evil = `<script>document.title = "broken in"</script><img src=x onerror="document.title='broken in'">`;

const turn = (role: string, content: string) => ({ role, content });
const pair = (index: number, prompt: string, rejected = `wrong ${index}`) => ({
  prompt: [turn("user", prompt)],
  chosen: [turn("assistant", `right ${index}`)],
  rejected: [turn("assistant", rejected)],
  score_chosen: 8,
  score_rejected: 8 - (index % 5),
  [evil]: evil,
});

/** 130 rows: three pages of the list. Row 3 is bad, 5 no JSON, 7 equal, 11 the same as 13, 17's prompt like 19's. */
const rows: unknown[] = Array.from({ length: 130 }, (_, index) =>
  pair(index, `question ${"abcdefgh"[index % 8]}${index} about ${index * 7}`),
);
rows[2] = pair(2, evil, evil);
rows[3] = { prompt: [turn("user", evil)], chosen: evil, rejected: 3 };
rows[7] = pair(7, "the same twice", "right 7");
rows[13] = rows[11];
const long = Array.from({ length: 30 }, (_, i) => `word${i}`).join(" ");
rows[17] = pair(17, long);
rows[19] = pair(19, `${long} please`);
const lines = rows.map((row) => JSON.stringify(row));
lines[5] = '{"broken';
writeFileSync(file, `${lines.join("\n")}\n`);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const options: SeenOptions = {
  maxLength: 1e6,
  maxPromptLength: null,
  truncation: "keep-answer",
  lossOn: "assistant",
  answerEnd: "eos",
  specialsInContent: "text",
  onBadRow: "skip",
};

let view: DatasetView;
beforeAll(async () => {
  view = await viewDataset(file, { port: 0, tokenizer: await folderTokenizer(base), encoding: options });
});
afterAll(() => view.close());

const ask = async (path: string) => (await fetch(`${view.url}${path}`)).json() as Promise<Record<string, never>>;

describe("the page over HTTP", () => {
  it("answers this machine's own pages only, with GET only, and names no address", async () => {
    const status = (path: string, headers: Record<string, string> = {}, method = "GET") =>
      new Promise((resolve, reject) => {
        const request = get(`${view.url}${path}`, { method, headers }, (response) => {
          response.resume();
          resolve(response.statusCode);
        });
        request.on("error", reject);
      });
    expect(await status("/")).toBe(200);
    for (const host of ["localhost:1", "[::1]:80", "127.0.0.1"]) expect(await status("/list", { host })).toBe(200);
    for (const host of ["example.com", "localhost.example.com", "127.0.0.1.example.com"]) {
      expect(await status("/list", { host })).toBe(403);
    }
    expect(await status("/list", { "sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors" })).toBe(403);
    expect(await status("/list", { "sec-fetch-site": "same-origin", "sec-fetch-mode": "cors" })).toBe(200);
    expect(await status("/", { "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate" })).toBe(200);
    expect(await status("/list", {}, "POST")).toBe(405);
    expect(await status("/../etc/passwd")).toBe(404);
    expect(await status("/constructor")).toBe(404);
    expect(await status("/row?row=130")).toBe(400);
    expect(await status("/row?row=-1")).toBe(400);
    expect(await status("/row")).toBe(400);
    const response = await fetch(view.url);
    expect(response.headers.get("content-security-policy")).toBe("frame-ancestors 'none'");
    expect(await response.text()).not.toMatch(/(src|href)=|url\(|@import|https?:\/\//);
  });

  it("lists pages, the page of a row, and the rows of a filter", async () => {
    await view.overview;
    expect(await ask("/list")).toMatchObject({ page: 0, pages: 3, complete: true, status: "130 of 130 rows" });
    expect(await ask("/list?row=129")).toMatchObject({ page: 2, rows: Array.from({ length: 30 }, (_, i) => 100 + i) });
    expect(await ask("/list?page=99")).toMatchObject({ page: 2 });
    expect(await ask("/list?page=-3")).toMatchObject({ page: 0 });
    expect((await ask("/list?kind=bad")).rows).toEqual([3, 5]);
    expect((await ask("/list?kind=exact")).rows).toEqual([11, 13]);
    expect((await ask("/list?kind=near")).rows).toEqual([11, 13, 17, 19]);
    expect((await ask("/list?kind=equal")).rows).toEqual([7]);
    expect((await ask("/list?margin-min=4")).rows).toEqual(expect.arrayContaining([4, 9]));
    expect(await ask("/list?q=nowhere")).toMatchObject({ rows: [], page: 0, pages: 1 });
    expect(await ask("/row?row=17")).toMatchObject({ title: `row 17 · ${file}` });
    expect((await ask("/row?row=17")).html).toMatch(/#row=19">19 <small>9\d\.\d %/);
  });

  it("what is written in the data is text, wherever it is shown", async () => {
    for (const path of [
      "/list",
      "/list?q=script",
      "/row?row=2",
      "/row?row=2&q=img",
      "/row?row=2&panel=tokens",
      "/row?row=2&panel=json",
      "/row?row=3",
      `/row?row=0&q=${encodeURIComponent(evil)}&kind=${encodeURIComponent(evil)}`,
    ]) {
      const { html } = await ask(path);
      expect(html).not.toMatch(/<script|<img|<[^>]*onerror=(?!&)"/);
    }
  });
});

describe.runIf(browsable)("the page in Chromium", () => {
  it("shows the whole, goes through rows by keys and pages, searches, filters, and links", async () => {
    const browser = await launch();
    try {
      const { page, faults } = await watchedPage(browser, { viewport: { width: 1360, height: 860 } });
      const heading = () => page.textContent("#content h1");
      const listed = () => page.locator("#list a").count();
      await page.goto(view.url);
      await page.waitForSelector("#content .chart");
      expect(await page.title()).toBe(`${file} · zephyr-align view`);
      expect(await page.textContent("#content .table")).toContain("ZA_DATA_JSON");
      expect(await page.textContent("#status")).toBe("130 of 130 rows");
      expect(await listed()).toBe(50);

      await page.keyboard.press("j");
      await expect.poll(heading).toBe("Row 0");
      await page.keyboard.press("j");
      await page.keyboard.press("ArrowRight");
      await expect.poll(heading).toBe("Row 2");
      expect(new URL(page.url()).hash).toBe("#row=2");
      expect(await page.textContent("#content .answer.chosen")).toContain("right 2");
      expect(await page.textContent("#content .answer.rejected")).toContain("<script>");
      expect(await page.textContent("#content .answer.rejected h2 b")).toBe("6");
      expect(await page.locator("#content img, #content script").count()).toBe(0);
      expect(await page.title()).not.toContain("broken");
      await page.keyboard.press("]");
      await expect.poll(heading).toBe("Row 50");
      await page.keyboard.press("k");
      await expect.poll(heading).toBe("Row 49");
      await expect.poll(() => page.textContent("#pages")).toBe("page 1 of 3");

      // Tokens by colour, the row as it is written.
      await page.keyboard.press("2");
      await page.waitForSelector(".tokens .learnt");
      expect((await page.locator(".answer.chosen .learnt").allTextContents()).join("")).toBe("right 49");
      expect(await page.locator(".answer.chosen .end").count()).toBe(1);
      await page.keyboard.press("3");
      await expect.poll(() => page.textContent("pre.json")).toContain('"score_chosen": 8');
      await page.keyboard.press("1");
      await page.waitForSelector(".answer.chosen .words");

      // Search marks what it finds, and steps go through what is found.
      await page.keyboard.press("/");
      await page.keyboard.type("WRONG 12");
      await expect.poll(() => page.textContent("#status")).toBe("11 of 130 rows");
      await page.keyboard.press("Escape");
      await page.keyboard.press("j");
      await expect.poll(heading).toBe("Row 12");
      expect(await page.locator("#content mark").allTextContents()).toEqual(["wrong 12"]);
      await page.keyboard.press("j");
      await expect.poll(heading).toBe("Row 120");
      await page.click("summary");
      await page.selectOption("#kind", "bad");
      await expect.poll(listed).toBe(0);
      await page.click("#clear");
      await expect.poll(listed).toBe(30);
      expect(await page.inputValue("input[name=q]")).toBe("");
      await expect.poll(() => page.textContent("#list [aria-current] b")).toBe("120");

      // From the whole to the bad rows, to the error of one.
      await page.keyboard.press("o");
      await page.click("#content a[href*=ZA_DATA_ROW]");
      await expect.poll(() => page.textContent("#status")).toBe("1 of 130 rows");
      await page.click("#list a");
      await expect.poll(heading).toBe("Row 3");
      expect(await page.textContent(".problem")).toContain("expected a string, found a number");
      await page.goBack();
      await page.waitForSelector("#content .chart");

      await page.keyboard.press("g");
      await page.keyboard.type("77");
      await page.keyboard.press("Enter");
      await expect.poll(heading).toBe("Row 77");
      await page.keyboard.press("?");
      expect(await page.isVisible("#help")).toBe(true);
      await page.keyboard.press("Escape");
      expect(faults).toEqual([]);

      // A link to a row under a filter, in a new page.
      const other = await watchedPage(browser);
      await other.page.goto(`${view.url}/#row=19&kind=near&panel=tokens`);
      await other.page.waitForSelector(".tokens .learnt");
      await expect.poll(() => other.page.textContent("#list [aria-current] b")).toBe("19");
      await other.page.click(".twins a");
      await expect.poll(() => other.page.textContent("#content h1")).toBe("Row 17");
      expect(other.faults).toEqual([]);
      await other.page.goto(`${view.url}/#row=1300`);
      await expect.poll(() => other.page.textContent("#lost")).toContain("there is no row 1300");
    } finally {
      await browser.close();
    }
  });

  it("is readable light and dark, wide and narrow", async () => {
    const browser = await launch();
    try {
      for (const look of looks) {
        const { page, faults } = await watchedPage(browser, look);
        for (const hash of ["", "#list=1", "#row=2", "#row=3", "#row=17&panel=tokens", "#row=2&panel=json&q=script"]) {
          await page.goto("about:blank");
          await page.goto(`${view.url}/${hash}`);
          await page.waitForSelector("#content > *", { state: "attached" });
          await page.waitForSelector("#list a", { state: "attached" });
          if (await page.isVisible("summary")) await page.click("summary");
          expect(await drawingFaults(page), `${hash} ${JSON.stringify(look)}`).toEqual([]);
        }
        expect(faults).toEqual([]);
        if (look.viewport.width < 800) {
          await page.goto(`${view.url}/#row=2`);
          await page.waitForSelector("#content h1");
          expect(await page.isVisible("#list")).toBe(false);
          await page.click("#back");
          expect(await page.isVisible("#content")).toBe(false);
          await page.click("#list a >> nth=4");
          await expect.poll(() => page.textContent("#content h1")).toBe("Row 4");
        }
        await page.close();
      }
    } finally {
      await browser.close();
    }
  });
});

describe("zephyr-align view", () => {
  it("prints the address, writes the counts, and ends at Ctrl-C; --no-serve only counts", async () => {
    const program = buildProgram();
    const json = join(folder, "counts.json");
    const started = spawn(process.execPath, [
      program,
      "view",
      file,
      "--model",
      base,
      "--port",
      "0",
      "--row",
      "17",
      "--json",
      json,
    ]);
    let said = "";
    started.stderr.setEncoding("utf8").on("data", (part) => {
      said += part;
    });
    await expect.poll(() => said, { timeout: 30_000 }).toContain("130 rows, 128 can be used");
    const [, url] = /(http:\/\/127\.0\.0\.1:\d+\/#row=17)/.exec(said) ?? [];
    expect((await fetch(url!)).status).toBe(200);
    const ended = new Promise((resolve) => started.on("exit", (code) => resolve(code)));
    started.kill("SIGINT");
    expect(await ended).toBe(0);
    const counts = JSON.parse(readFileSync(json, "utf8"));
    expect(counts).toMatchObject({ rows: 130, usable: 128, equalPairs: 1, groups: { exact: [[11, 13]] } });

    const only = spawn(process.execPath, [program, "view", file, "--no-serve"]);
    expect(await new Promise((resolve) => only.on("exit", resolve))).toBe(0);
    const missing = spawn(process.execPath, [program, "view", join(folder, "none.jsonl")]);
    expect(await new Promise((resolve) => missing.on("exit", resolve))).toBe(77);
  });
});
