import { appendFileSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { dataset, toSft } from "../../data";
import { offlineModel } from "../offline";
import { generateConversations } from "./generate";
import { conversationFiles, writeConversations } from "./write";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "zephyr-distil-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const at = (name: string) => join(folder, name);
const make = (options = {}) =>
  generateConversations({
    teacher: offlineModel(),
    conversations: 25,
    truecase: false,
    minAnswerWords: 1,
    testShare: 0.3,
    ...options,
  });
const read = (out: string) => conversationFiles.map((name) => readFileSync(join(out, `${name}.jsonl`), "utf8"));
const linesOf = (text: string) =>
  text
    .split("\n")
    .filter(Boolean)
    .map((line) => JSON.parse(line));

describe("writeConversations", () => {
  it("writes ultrachat_200k's splits, which our readers take", async () => {
    await writeConversations(make(), at("a"));
    const [trainSft, testSft, trainGen, testGen, origins] = read(at("a")).map(linesOf);
    expect(trainSft!.length + testSft!.length).toBe(25);
    expect(testSft!.length).toBeGreaterThan(1);
    expect(trainGen).toHaveLength(trainSft!.length);
    expect(testGen).toHaveLength(testSft!.length);
    expect(origins).toHaveLength(25);
    for (const [index, row] of trainSft!.entries()) {
      expect(trainGen![index].messages).toEqual(row.messages.slice(0, -1));
      expect(trainGen![index].messages.at(-1).role).toBe("user");
    }
    for await (const row of dataset(at("a"), { split: "train_sft" }).rows())
      expect(toSft(row.value, row.place).kind).toBe("chat");
    expect(JSON.parse(readFileSync(join(at("a"), "report.json"), "utf8")).conversations).toBe(25);
  });

  it("goes on after a stop at any byte, and ends with the bytes of the undisturbed run", async () => {
    await writeConversations(make(), at("whole"));
    const whole = read(at("whole"));
    for (const bytes of [0, 1, 700, 2000]) {
      await writeConversations(make(), at(`cut-${bytes}`));
      for (const name of conversationFiles) {
        const file = join(at(`cut-${bytes}`), `${name}.jsonl`);
        truncateSync(file, Math.min(bytes, readFileSync(file).length));
      }
      await writeConversations(make(), at(`cut-${bytes}`));
      expect(read(at(`cut-${bytes}`))).toEqual(whole);
    }
    const stopped = new AbortController();
    const part = make({ signal: stopped.signal });
    const stop = writeConversations(part, at("stopped"), {
      onConversation: () => part.report.conversations > 4 && stopped.abort(),
    });
    await expect(stop).rejects.toThrow(/abort/);
    expect(JSON.parse(readFileSync(join(at("stopped"), "report.json"), "utf8")).conversations).toBeLessThan(25);
    await writeConversations(make({ concurrency: 1 }), at("stopped"));
    expect(read(at("stopped"))).toEqual(whole);
  });

  it("extends a smaller run", async () => {
    await writeConversations(make({ conversations: 10 }), at("grown"));
    await writeConversations(make(), at("grown"));
    await writeConversations(make(), at("whole"));
    expect(read(at("grown"))).toEqual(read(at("whole")));
    await expect(writeConversations(make({ conversations: 10 }), at("grown"))).rejects.toThrow(
      /conversations \(was 25, is 10\)/,
    );
  });

  it("refuses other options, other rows and foreign folders, and replaces when told to", async () => {
    await writeConversations(make(), at("a"));
    await expect(writeConversations(make({ seed: 3 }), at("a"))).rejects.toMatchObject({ code: "ZA_RESUME_DIFFERS" });
    const file = join(at("a"), "train_sft.jsonl");
    const rows = readFileSync(file, "utf8").split("\n");
    writeFileSync(file, [rows[1], rows[0], ...rows.slice(2)].join("\n"));
    await expect(writeConversations(make(), at("a"))).rejects.toMatchObject({
      code: "ZA_RESUME_DIFFERS",
      place: { file, row: 1 },
    });
    await writeConversations(make({ seed: 3 }), at("a"), { overwrite: true });
    expect(linesOf(readFileSync(join(at("a"), "origins.jsonl"), "utf8"))).toHaveLength(25);
    appendFileSync(at("other"), "x");
    await expect(writeConversations(make(), folder)).rejects.toMatchObject({ code: "ZA_FOLDER_NOT_EMPTY" });
  });
});
