/** The journal of calls on disks and files that are not as they should be. */
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from "vitest";
import { type ChatRequest, OpenAiChat, PaidCalls } from "../ts/index";
import { type Server, startServer } from "./server/start.mjs";
import { mountSmallDisk, unmount } from "./shared";

let server: Server;
let folder: string;
beforeAll(async () => {
  server = await startServer();
});
afterAll(() => server.stop());
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "zephyr-journal-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const teacher = () => new OpenAiChat({ model: "teacher", baseUrl: server.url, facts: { input: 1, output: 2 } });
const request = (content: string): ChatRequest => ({
  messages: [{ role: "user", content }],
  sampling: { maxTokens: 50 },
});

it("files that are no journal, damaged or of another version are refused by name", async () => {
  const journal = join(folder, "calls.sqlite");
  const opening = () => PaidCalls.open({ journal });
  writeFileSync(journal, "rows of somebody else, and more of them");
  await expect(opening()).rejects.toMatchObject({
    name: "ClientError",
    code: "ZA_JOURNAL_FOREIGN",
    remedy: expect.stringMatching(/\S/),
  });
  rmSync(journal);
  const calls = await opening();
  const model = calls.guard(teacher());
  await Promise.all(
    Array.from({ length: 40 }, (_, i) => model.complete(request(`Question ${i} ${"and more ".repeat(50)}?`))),
  );
  await calls.close();
  const bytes = readFileSync(journal);
  truncateSync(journal, Math.floor(bytes.length / 2));
  await expect(opening()).rejects.toMatchObject({ code: "ZA_JOURNAL_DAMAGED" });
  writeFileSync(journal, bytes);
  const again = await opening();
  expect((await again.guard(teacher()).complete(request(`Question 7 ${"and more ".repeat(50)}?`))).journalled).toBe(
    true,
  );
  await again.close();
});

it("a full disk: nothing is sent that cannot be written down, and what is paid for waits for room", async () => {
  const small = join(folder, "small");
  if (!mountSmallDisk(small, 700 * 1024)) return;
  try {
    const ballast = join(small, "ballast");
    const notices: string[] = [];
    const calls = await PaidCalls.open({
      journal: join(small, "calls.sqlite"),
      onNotice: (text) => notices.push(text),
    });
    const model = calls.guard(teacher());
    const first = await model.complete(request("before"));
    await server.set({ milliseconds: 700 });
    const before = server.billed().length;
    const pending = model.complete(request("in the middle"));
    while (server.requests().at(-1)?.question !== "in the middle")
      await new Promise((resolve) => setTimeout(resolve, 10));
    fill(ballast);
    const freed = setTimeout(() => rmSync(ballast), 2500);
    const answer = await pending;
    clearTimeout(freed);
    expect(notices).toEqual(["the disk is full: an answer that is paid for waits in memory; free some space"]);
    expect(answer.text).toMatch(/^Answer/);
    await server.set({ milliseconds: 0 });
    fill(ballast);
    const requests = server.requests().length;
    const long = request("x".repeat(60_000));
    await expect(model.complete(long)).rejects.toMatchObject({ code: "ZA_DISK_FULL" });
    expect(server.requests().length).toBe(requests);
    rmSync(ballast);
    expect((await model.complete(request("before"))).text).toBe(first.text);
    expect((await model.complete(request("in the middle"))).journalled).toBe(true);
    expect(server.billed().length - before).toBe(1);
    await calls.close();
  } finally {
    unmount(small);
  }
});

/** Writes until there is no room for another byte. */
function fill(path: string): void {
  for (const size of [64 * 1024, 4096, 512, 1]) {
    for (;;) {
      try {
        writeFileSync(path, Buffer.alloc(size), { flag: "a" });
      } catch {
        break;
      }
    }
  }
}
