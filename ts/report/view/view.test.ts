import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { dataset, fromArray } from "../../data";
import { jaccard } from "../../data/word-runs";
import { BrowsedData, promptOf } from "./browsed-data";
import { exactDuplicates, Groups, nearDuplicates } from "./duplicates";
import { Matches } from "./matches";
import { promptRuns, signatureLength, similarity, writeSignature } from "./minhash";
import { overviewOf } from "./overview-html";
import { filterOf, patternOf } from "./row-filter";
import { RowTable } from "./row-table";
import { viewDataset } from "./view-dataset";

const folder = mkdtempSync(join(tmpdir(), "zephyr-view-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const turn = (role: string, content: string) => ({ role, content });
const pair = (prompt: string, chosen: string, rejected: string, more = {}) => ({
  prompt: [turn("user", prompt)],
  chosen: [turn("assistant", chosen)],
  rejected: [turn("assistant", rejected)],
  ...more,
});

/** Words that do not repeat, so that nothing is alike by chance. */
const sentence = (seed: number, words = 30) =>
  Array.from({ length: words }, (_, i) => `w${(seed * 7919 + i * 104729) % 99991}`).join(" ");

async function tableOf(rows: readonly unknown[]) {
  const data = await BrowsedData.open(fromArray(rows));
  const table = new RowTable(data.length);
  await table.fill(data, new AbortController().signal);
  return { data, table };
}

const never = new AbortController().signal;

describe("similarity of prompts", () => {
  it("the signature estimates the Jaccard similarity of word runs", () => {
    const table = new Uint16Array(2 * signatureLength);
    const errors: number[] = [];
    for (let shared = 0; shared <= 60; shared += 4) {
      const [a, b] = [sentence(1, 60).split(" "), sentence(1, 60).split(" ")];
      for (let i = shared; i < 60; i++) b[i] = `other${i}`;
      const [left, right] = [promptRuns(a.join(" ")), promptRuns(b.join(" "))];
      writeSignature(left, table, 0);
      writeSignature(right, table, signatureLength);
      errors.push(similarity(table, 0, signatureLength) - jaccard(left, right));
    }
    // The standard error of one estimate is at most 1/16.
    expect(Math.max(...errors.map(Math.abs))).toBeLessThan(0.2);
    expect(Math.abs(errors.reduce((sum, each) => sum + each, 0) / errors.length)).toBeLessThan(0.05);
  });

  it("case, punctuation and white space do not count; every script has words", () => {
    const alike = (a: string, b: string) => jaccard(promptRuns(a), promptRuns(b));
    expect(alike("Say  NINE, please!", "say nine\nplease")).toBe(1);
    expect(alike("请写一首关于春天的诗", "请写一首关于冬天的诗")).toBeGreaterThan(0.4);
    expect(alike("请写一首关于春天的诗", "今天天气很好")).toBe(0);
    expect(alike("?!", "?!")).toBe(1);
    expect(alike("", "")).toBe(1);
  });

  it("finds what is the same, what is alike, and nothing else", async () => {
    const asked = sentence(1);
    const { table } = await tableOf([
      pair(asked, "yes", "no"),
      pair(sentence(2), "yes", "no"),
      pair(asked, "yes", "no"),
      pair(`${asked} please`, "other", "answers"),
      pair(sentence(3), "yes", "no"),
      { prompt: 3 },
    ]);
    expect([...exactDuplicates(table).all()].map((each) => [...each])).toEqual([[0, 2]]);
    const shares: number[] = [];
    const near = await nearDuplicates(table, never, (share) => shares.push(share));
    expect([...near.all()].map((each) => [...each])).toEqual([[0, 2, 3]]);
    expect([...near.of(3)]).toEqual([0, 2, 3]);
    expect(near.has(4) || near.has(5)).toBe(false);
    expect(shares.at(-1)).toBe(1);
  });

  it("a thousand alike are one group, a thousand different ones none", async () => {
    const rows = Array.from({ length: 2000 }, (_, i) =>
      pair(i % 2 === 0 ? `${sentence(0)} ${i}` : sentence(i + 10), `a${i}`, `b${i}`),
    );
    const near = await nearDuplicates((await tableOf(rows)).table, never, () => {});
    expect([...near.all()].map((each) => each.length)).toEqual([1000]);
  });

  it("groups hold each row once and know whose they are", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(8), { maxLength: 40 }), (classes) => {
        const root = Int32Array.from(classes, (each) => classes.indexOf(each));
        const groups = new Groups(root);
        const expected = [...new Set(classes)].map((each) =>
          classes.flatMap((other, row) => (other === each ? [row] : [])),
        );
        const several = expected.filter((each) => each.length > 1);
        expect([...groups.all()].map((each) => [...each])).toEqual(several);
        expect(groups.rows).toBe(several.flat().length);
        for (const row of classes.keys()) {
          expect([...groups.of(row)]).toEqual(several.find((each) => each.includes(row)) ?? []);
        }
      }),
    );
  });
});

describe("what is counted and found", () => {
  const rows = [
    pair("Name three primes.", "2, 3 and 5.", "1, 2 and 4.", { score_chosen: 9, score_rejected: 4 }),
    pair("Say nothing.", "…", "…", { score_chosen: 5, score_rejected: 5 }),
    pair("STRASSE oder Straße?", "Straße.", "Strasse.", { score_chosen: 6, score_rejected: 8 }),
    { prompt: [turn("user", "a [regex] (really)?")], chosen: 7, rejected: [] },
    {
      prompt: [turn("system", "Be brief."), turn("user", "one"), turn("assistant", "1"), turn("user", "two")],
      chosen: [turn("assistant", "2")],
      rejected: [turn("assistant", "deux deux deux deux deux deux")],
    },
  ];

  async function found(query: string) {
    const { data, table } = await tableOf(rows);
    const groups = { exact: exactDuplicates(table), near: await nearDuplicates(table, never, () => {}) };
    const matches = new Matches(filterOf(new URLSearchParams(query)), { data, table, groups });
    while (!matches.complete) await matches.advance(1000);
    const list = matches.slice(0, 100);
    expect(list.map((row) => matches.position(row))).toEqual([...list.keys()]);
    expect(matches.total).toBe(list.length);
    await matches.close();
    return list;
  }

  it("the overview adds up", async () => {
    const { table } = await tableOf(rows);
    expect(overviewOf(table, { exact: undefined, near: undefined })).toMatchObject({
      rows: 5,
      read: 5,
      usable: 4,
      bad: [{ code: "ZA_DATA_ROW", rows: 1 }],
      equalPairs: 1,
      exactDuplicates: null,
    });
    expect([...table.counts.user]).toEqual([1, 1, 1, 0, 2]);
    expect([...table.counts.assistant]).toEqual([2, 2, 2, 0, 3]);
    expect([...table.margin].map((each) => (Number.isNaN(each) ? null : each))).toEqual([5, 0, -2, null, null]);
  });

  it("filters and orders", async () => {
    expect(await found("")).toEqual([0, 1, 2, 3, 4]);
    expect(await found("kind=bad")).toEqual([3]);
    expect(await found("kind=bad&code=ZA_DATA_JSON")).toEqual([]);
    expect(await found("kind=usable")).toEqual([0, 1, 2, 4]);
    expect(await found("kind=equal")).toEqual([1]);
    expect(await found("kind=exact")).toEqual([]);
    expect(await found("role=system&messages-min=1")).toEqual([4]);
    expect(await found("messages-max=3&kind=usable")).toEqual([0, 1, 2]);
    expect(await found("margin-max=0")).toEqual([1, 2]);
    expect(await found("margin-min=0.5")).toEqual([0]);
    expect(await found("length-max=14&kind=usable")).toEqual([1]);
    expect(await found("order=margin-high")).toEqual([0, 1, 2, 3, 4]);
    expect(await found("order=margin-low")).toEqual([2, 1, 0, 3, 4]);
    expect(await found("kind=usable&order=longest")).toEqual([4, 0, 2, 1]);
    expect(await found("margin-min=nonsense&kind=nonsense&order=nonsense")).toEqual([0, 1, 2, 3, 4]);
  });

  it("searches literally, in every text and in rows that cannot be used", async () => {
    expect(await found("q=strasse")).toEqual([2]);
    expect(await found("q=STRAßE")).toEqual([2]);
    expect(await found(`q=${encodeURIComponent("[regex] (really)?")}`)).toEqual([3]);
    expect(await found("q=.")).toEqual([0, 1, 2, 3, 4].filter((row) => row !== 3));
    expect(await found("q=deux&margin-min=0")).toEqual([]);
    expect(await found("q=5")).toEqual([0]);
  });

  it("every text is found by itself", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme", minLength: 1 }), (text) => {
        expect(patternOf(text)!.test(`before ${text} after`)).toBe(true);
      }),
    );
  });

  it("a prompt leaves system messages and answers out", async () => {
    const { data } = await tableOf(rows);
    expect(promptOf((await data.row(4)).content!)).toBe("one\n1\ntwo");
    const chats = await tableOf([
      { messages: [turn("system", "s"), turn("user", "u"), turn("assistant", "a"), turn("user", "v")] },
    ]);
    expect(promptOf((await chats.data.row(0)).content!)).toBe("u");
  });
});

describe("any data", () => {
  async function overview(rows: unknown) {
    await using view = await viewDataset(dataset(rows as readonly unknown[]), { port: 0 });
    return await view.overview;
  }

  it("labelled answers, plain text, unknown columns and no rows at all", async () => {
    expect(await overview([{ prompt: "p", completion: "c", label: true }])).toMatchObject({ usable: 1 });
    expect(await overview([{ text: "one" }, { text: "" }])).toMatchObject({
      usable: 1,
      bad: [{ code: "ZA_DATA_ROW" }],
    });
    expect(await overview([{ colour: "red" }])).toMatchObject({
      usable: 0,
      bad: [{ code: "ZA_DATA_FORMAT", rows: 1 }],
    });
    expect(await overview([])).toMatchObject({ rows: 0, usable: 0 });
  });

  it("raw UltraFeedback: the pair that training makes of it, its means, and all answers in the row", async () => {
    const answer = (model: string, response: string, ...ratings: string[]) => ({
      model,
      response,
      annotations: Object.fromEntries(
        ratings.map((Rating, i) => [["helpfulness", "honesty"][i]!, { Rating, Rationale: `because <i>${model}</i>` }]),
      ),
      overall_score: 7,
      critique: "fine",
    });
    const rows = [
      {
        instruction: "q",
        completions: [answer("a", "yes", "5", "4"), answer("b", "no", "1", "N/A"), answer("c", "maybe", "3")],
      },
      { instruction: "r", completions: [answer("a", "one", "3"), answer("b", "two", "3")] },
    ];
    const { data, table } = await tableOf(rows);
    expect([...table.margin]).toEqual([3.5, Number.NaN]);
    expect(await data.row(0)).toMatchObject({ scores: { chosen: 4.5, rejected: 1 } });
    await using view = await viewDataset(rows, { port: 0 });
    for (const [row, texts] of [
      ["yes", "no", "maybe"],
      ["one", "two"],
    ].entries()) {
      const { html } = (await (await fetch(`${view.url}/row?row=${row}`)).json()) as { html: string };
      for (const text of texts) expect(html).toContain(`>${text}</div>`);
      expect(html).toContain("because &lt;i&gt;a&lt;/i&gt;");
    }
  });

  it("shows values that JSON does not know", async () => {
    const rows = [{ text: "one", id: 2n ** 63n, bytes: new Uint8Array(3) }, { text: 1n }];
    await using view = await viewDataset(rows, { port: 0 });
    const shown = async (row: number) => (await (await fetch(`${view.url}/row?row=${row}`)).json()) as { html: string };
    expect((await shown(0)).html).toContain("9223372036854775808");
    expect((await shown(0)).html).toContain("(3 bytes)");
    expect((await shown(1)).html).toContain("expected a string");
  });

  it("a JSON array that breaks off is refused with its place; of a JSONL file the last row is bad", async () => {
    const array = join(folder, "broken.json");
    writeFileSync(array, '[{"text": "one"}, {"text": "two"}, {"te');
    await expect(viewDataset(array, { port: 0 })).rejects.toMatchObject({
      code: "ZA_DATA_TRUNCATED",
      place: { byte: 39 },
    });
    const lines = join(folder, "broken.jsonl");
    writeFileSync(lines, '{"text": "one"}\n{"text": "two"}\n{"te');
    await using view = await viewDataset(lines, { port: 0 });
    expect(await view.overview).toMatchObject({ usable: 2, bad: [{ code: "ZA_DATA_JSON", rows: 1 }] });
  });

  it("a page that is closed before everything is known says so", async () => {
    const view = await viewDataset(
      Array.from({ length: 50_000 }, (_, i) => ({ text: sentence(i) })),
      { port: 0 },
    );
    await view.close();
    await expect(view.overview).rejects.toMatchObject({ code: "ZA_ABORTED" });
    await expect(view.duplicates).rejects.toMatchObject({ code: "ZA_ABORTED" });
  });

  it("a missing file is refused before a page is served", async () => {
    await expect(viewDataset(join(folder, "none.jsonl"), { port: 0 })).rejects.toMatchObject({ code: "ZA_DATA_FILE" });
  });
});
