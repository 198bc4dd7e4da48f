/** The system's Chromium, for pages as a person sees them. */
import { existsSync, readFileSync } from "node:fs";
import { type Browser, chromium, type Page } from "playwright-core";

const path = process.env.ZEPHYR_CHROMIUM ?? "/usr/bin/chromium";

/** Whether there is one; says so loudly when there is not. */
export const browsable = existsSync(path);
if (!browsable) console.warn(`SKIPPED: ${path} is missing, pages are not looked at in a browser`);

export function launch(flags: readonly string[] = []): Promise<Browser> {
  return chromium.launch({ executablePath: path, args: ["--no-sandbox", ...flags] });
}

/** A page whose faults are collected: errors, refused scripts and styles, and requests that leave this machine. */
export async function watchedPage(browser: Browser, options: Parameters<Browser["newPage"]>[0] = {}) {
  const page = await browser.newPage(options);
  const faults: string[] = [];
  page.on("pageerror", (error) => faults.push(error.message));
  page.on("console", (message) => message.type() === "error" && faults.push(message.text()));
  page.on("request", (request) => {
    const { protocol, hostname } = new URL(request.url());
    if (protocol !== "file:" && hostname !== "127.0.0.1") faults.push(`asked ${request.url()}`);
  });
  return { page, faults };
}

/** Light and dark, wide and narrow. */
export const looks = (["light", "dark"] as const).flatMap((colorScheme) =>
  [
    { width: 1360, height: 860 },
    { width: 360, height: 740 },
  ].map((viewport) => ({ colorScheme, viewport })),
);

const drawing = readFileSync(new URL("drawing-faults.js", import.meta.url), "utf8");

/** What is wrong with how the page is drawn: wider than the window, or text that stands out too little (WCAG AA). */
export function drawingFaults(page: Page): Promise<string[]> {
  return page.evaluate(drawing);
}
