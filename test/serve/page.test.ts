/** The chat page as a person in a browser sees it; the server is the built program in a process of its own. */
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Mistral, SftTrainer } from "../../ts/index";
import { browsable, drawingFaults, launch, looks, watchedPage } from "../chromium";
import { buildProgram, smallRows } from "../shared";
import { base, type Serving, saveSlow, startServing } from "./serving";

const folder = mkdtempSync(join(tmpdir(), "zephyr-serve-page-"));
/** Where pictures of the page are kept to be looked at. */
const pictures = process.env.ZEPHYR_PICTURES;

describe.runIf(browsable)("the chat page", () => {
  let server: Serving;
  let locked: Serving;
  beforeAll(async () => {
    buildProgram();
    await saveSlow(join(folder, "slow"), 256);
    server = await startServing(["--model", `demo=${base}`, "--model", join(folder, "slow")]);
    locked = await startServing(["--model", `demo=${base}`, "--api-key-env", "ZEPHYR_SERVE_KEY"], {
      ZEPHYR_SERVE_KEY: "sesame-4711",
    });
    if (pictures) mkdirSync(pictures, { recursive: true });
  });
  afterAll(async () => {
    await Promise.all([server?.stop(), locked?.stop()]);
    rmSync(folder, { recursive: true, force: true });
  });

  const settle = (page: Page) => expect.poll(() => page.isVisible("#send"), { timeout: 60_000 }).toBe(true);

  it("streams answers, keeps the conversation, stops, goes on, and starts anew; all of it by keys too", async () => {
    const browser = await launch();
    try {
      const { page, faults } = await watchedPage(browser, { viewport: { width: 1360, height: 860 } });
      const sent: { messages: { role: string; content: string }[]; [key: string]: unknown }[] = [];
      page.on("request", (request) => {
        if (request.method() === "POST") sent.push(JSON.parse(request.postData()!));
      });
      await page.goto(server.url);
      await expect.poll(() => page.locator("#left option").allTextContents()).toEqual(["demo", "slow"]);
      expect(await page.evaluate("document.activeElement.id")).toBe("question");

      // Settings hold, and are sent.
      await page.click("#set");
      await page.fill("#system", "say little.");
      await page.fill("#temperature", "0");
      await page.fill("#max_tokens", "24");
      await page.click("#set");
      await page.fill("#question", "say nine.");
      await page.press("#question", "Shift+Enter");
      expect(await page.inputValue("#question")).toBe("say nine.\n");
      await page.press("#question", "Enter");
      await settle(page);
      const own = await (await Mistral.fromPretrained(base)).generate(sent[0]!.messages as never, { maxTokens: 24 });
      expect(sent[0]).toMatchObject({
        model: "demo",
        temperature: 0,
        max_tokens: 24,
        messages: [
          { role: "system", content: "say little." },
          { role: "user", content: "say nine." },
        ],
      });
      expect(await page.textContent(".answer .words")).toBe(own.text);
      expect(await page.textContent(".answer .facts")).toMatch(/^\d+ tokens/);
      await page.fill("#question", "say ten.");
      await page.click("#send");
      await settle(page);
      expect(sent[1]!.messages.map(({ role }) => role)).toEqual(["system", "user", "assistant", "user"]);
      expect(sent[1]!.messages[2]!.content).toBe(own.text);

      // An answer of the first turn anew gives up what came behind it.
      await page.click(".again >> nth=0");
      await settle(page);
      expect(await page.locator(".turn").count()).toBe(1);
      expect(sent[2]!.messages).toEqual(sent[0]!.messages);

      // The slow model is stopped in the middle; the server is free again, and what came stays.
      await page.selectOption("#left", "slow");
      await page.click("#set");
      await page.fill("#max_tokens", "");
      await page.click("#set");
      await page.fill("#question", "go on.");
      await page.press("#question", "Enter");
      await expect
        .poll(async () => (await page.textContent(".turn:last-child .answer .words"))?.length, { timeout: 30_000 })
        .toBeGreaterThan(40);
      await page.keyboard.press("Escape");
      await settle(page);
      expect(await page.textContent(".turn:last-child .facts")).toBe("stopped");
      await expect.poll(async () => (await server.metrics()).zephyr_answers_running).toBe(0);
      expect((await page.textContent(".turn:last-child .answer .words"))!.length).toBeGreaterThan(40);

      // Keys outside of fields.
      await page.evaluate("document.activeElement.blur()");
      await page.keyboard.press("c");
      expect(await page.isVisible("#right")).toBe(true);
      await page.keyboard.press("c");
      await page.keyboard.press("s");
      expect(await page.isVisible("#settings")).toBe(true);
      await page.keyboard.press("s");
      await page.keyboard.press("n");
      expect(await page.locator(".turn").count()).toBe(0);
      expect(await page.evaluate("document.activeElement.id")).toBe("question");
      expect(faults).toEqual([]);
      // What was set is there when the page comes again.
      await page.reload();
      expect(await page.inputValue("#system")).toBe("say little.");
      await expect.poll(() => page.inputValue("#left")).toBe("slow");
    } finally {
      await browser.close();
    }
  });

  it("sets two models side by side, each with its own history", async () => {
    const browser = await launch();
    try {
      const { page, faults } = await watchedPage(browser);
      const sent: { model: string; messages: { content: string }[] }[] = [];
      page.on("request", (request) => {
        if (request.method() === "POST") sent.push(JSON.parse(request.postData()!));
      });
      await page.goto(server.url);
      await page.click("#compare");
      await page.click("#set");
      await page.fill("#temperature", "0");
      await page.fill("#max_tokens", "8");
      await page.click("#set");
      for (const question of ["say nine.", "say ten."]) {
        await page.fill("#question", question);
        await page.press("#question", "Enter");
        await settle(page);
      }
      expect(await page.locator(".turn").count()).toBe(2);
      expect(await page.locator(".turn:last-child .by b").allTextContents()).toEqual(["demo", "slow"]);
      const first = await page.locator(".turn:first-child .words:not(.question)").allTextContents();
      expect(first[0]).not.toBe(first[1]);
      const second = sent.slice(2);
      for (const [side, name] of ["demo", "slow"].entries()) {
        const body = second.find(({ model }) => model === name)!;
        expect(body.messages.map(({ content }) => content)).toEqual(["say nine.", first[side], "say ten."]);
      }
      expect(faults).toEqual([]);
    } finally {
      await browser.close();
    }
  });

  it("sets a model with its adapter beside the one without", async () => {
    const adapter = join(folder, "adapter");
    const model = await (await Mistral.fromPretrained(base)).withLora({ rank: 4, alpha: 64 });
    const trainer = new SftTrainer({
      model,
      dataset: smallRows(16).chats,
      maxSteps: 6,
      batchSize: 8,
      learningRate: 0.02,
    });
    const trained = (await trainer.fit()).model;
    await trained.saveAdapter(adapter);
    const words = { maxTokens: 12, temperature: 0 };
    const asked = [{ role: "user" as const, content: "say nine." }];
    const wanted = await Promise.all([trained, trained.withoutAdapter()].map((each) => each.generate(asked, words)));
    expect(wanted[0]!.text).not.toBe(wanted[1]!.text);
    const both = await startServing(["--model", `demo=${base}`, "--adapter", adapter]);
    const browser = await launch();
    try {
      const { page, faults } = await watchedPage(browser);
      await page.goto(both.url);
      await expect.poll(() => page.locator("#left option").allTextContents()).toEqual(["demo", "demo:base"]);
      await page.click("#compare");
      await page.click("#set");
      await page.fill("#temperature", "0");
      await page.fill("#max_tokens", "12");
      await page.click("#set");
      await page.fill("#question", "say nine.");
      await page.press("#question", "Enter");
      await settle(page);
      expect(await page.locator(".turn:last-child .by b").allTextContents()).toEqual(["demo", "demo:base"]);
      const said = await page.locator(".turn:last-child .words:not(.question)").allTextContents();
      expect(said).toEqual(wanted.map(({ text }) => text));
      expect(faults).toEqual([]);
    } finally {
      await browser.close();
      expect(await both.stop()).toBe(0);
    }
  });

  it("asks for the key, and shows what the server refuses", async () => {
    const browser = await launch();
    try {
      const page = await browser.newPage();
      await page.goto(locked.url);
      await expect.poll(() => page.textContent("#empty")).toContain("A key is needed");
      expect(await page.evaluate("document.activeElement.id")).toBe("key");
      await page.fill("#key", "sesame-4711");
      await page.press("#key", "Tab");
      await expect.poll(() => page.locator("#left option").allTextContents()).toEqual(["demo"]);
      expect(await page.isVisible("#compare")).toBe(false);
      await page.fill("#question", "say nine. ".repeat(300));
      await page.click("#send");
      await expect.poll(() => page.textContent(".problem")).toContain("maximum context length is 512 tokens");
      // Text is text.
      await page.click("#new");
      await page.fill("#question", `<img src=x onerror="document.title='broken in'">`);
      await page.click("#send");
      await expect.poll(() => page.isVisible("#send")).toBe(true);
      expect(await page.locator("#turns img").count()).toBe(0);
      expect(await page.title()).toBe("zephyr-align chat");
    } finally {
      await browser.close();
    }
  });

  it("is its own script and style, and nothing else", async () => {
    const response = await fetch(server.url);
    const policy = response.headers.get("content-security-policy")!;
    expect(policy).toMatch(
      /^default-src 'none'; script-src 'sha256-[^']+'; style-src 'sha256-[^']+'; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'$/,
    );
    const text = await response.text();
    expect(text).not.toMatch(/src=|url\(|@import|https?:\/\/|style=|onclick/);
    expect(text.match(/href="[^"]*"/g)).toEqual(['href="data:,"']);
  });

  it("is readable light and dark, wide and narrow", async () => {
    const browser = await launch();
    try {
      for (const look of looks) {
        const { page, faults } = await watchedPage(browser, look);
        const name = `${look.colorScheme}-${look.viewport.width}`;
        const picture = (part: string) => pictures && page.screenshot({ path: join(pictures, `${name}-${part}.png`) });
        await page.goto(server.url);
        await expect.poll(() => page.locator("#left option").count()).toBe(2);
        expect(await drawingFaults(page), name).toEqual([]);
        await picture("empty");
        await page.click("#compare");
        await page.click("#set");
        await page.fill("#max_tokens", "60");
        expect(await drawingFaults(page), name).toEqual([]);
        await picture("settings");
        await page.click("#set");
        const questions = [
          "say nine.",
          "what is a very long question that goes on and on, so that it takes more than a line of the page, and a word_that_is_so_long_that_it_does_not_fit_into_any_line_of_a_narrow_page?",
        ];
        for (const [asked, question] of questions.entries()) {
          await page.fill("#question", question);
          await page.click("#send");
          await expect.poll(() => page.locator(".turn").count()).toBe(asked + 1);
          await settle(page);
        }
        expect(await drawingFaults(page), name).toEqual([]);
        await picture("two");
        await page.fill("#question", "x".repeat(4000));
        await page.click("#send");
        await page.waitForSelector(".problem");
        expect(await drawingFaults(page), name).toEqual([]);
        await picture("problem");
        expect(faults.filter((fault) => !fault.includes("400"))).toEqual([]);
        await page.close();
      }
    } finally {
      await browser.close();
    }
  });
});
