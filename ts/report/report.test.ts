import { describe, expect, it } from "vitest";
import { figure, percent, ticks, whole } from "./format";
import { escapeText, html } from "./html";
import {
  type DemoReportInput,
  type RunReportInput,
  renderDemoReport,
  renderRunReport,
  type ScoreSummary,
} from "./index";
import { lineChart } from "./line-chart";

const evil = `<script>alert("x")</script>&'`;

function run(overrides: Partial<RunReportInput> = {}): RunReportInput {
  const metrics = Array.from({ length: 60 }, (_, i) => ({
    step: i + 1,
    loss: Math.LN2 * Math.exp(-i / 60) + 0.02 * Math.sin(i * 1.7),
    ...(i % 20 === 19 ? { eval_loss: 0.6 - i / 200 } : {}),
    learning_rate: 5e-7 * Math.cos((i / 60) * 1.57),
    grad_norm: 4 + Math.sin(i),
    "rewards/chosen": -0.01 * i,
    "rewards/rejected": -0.03 * i,
    "rewards/margins": 0.02 * i,
    "rewards/accuracies": Math.min(1, 0.5 + i / 120),
    "logps/chosen": -260 - i,
    "logps/rejected": -262 - 2 * i,
    mean_token_accuracy: 0.5 + i / 300,
    tokens_per_second: 300 + 20 * Math.sin(i / 3),
  }));
  return {
    title: "Zephyr dDPO",
    method: "dpo",
    model: "runs/sft/model",
    metrics,
    summary: { steps: 60, seconds: 754, tokens: 231_000 },
    config: { beta: 0.01, lossType: ["sigmoid"], learningRate: 5e-7, outputDir: null },
    data: {
      source: "pairs.jsonl",
      description: "Each row is a preference {prompt, chosen, rejected}.",
      rows: 482,
      kept: 480,
      skipped: 2,
      skippedRows: [
        {
          place: { file: "pairs.jsonl", row: 7, field: "chosen" },
          code: "ZA_DATA_ROW",
          problem: "the field is missing",
        },
      ],
      duplicates: 3,
      droppedLeadingAssistant: 0,
      equalPairs: 1,
      tokens: 231_000,
      supervisedTokens: 120_000,
      cutRows: 12,
      cutTokens: 803,
      straddlingTokens: 4,
      packing: { packs: 100, fillRate: 0.973 },
    },
    samples: [{ prompt: "Name three primes.", before: "2, 4, 6", after: "2, 3 and 5." }],
    warnings: ["12 rows were cut to maxLength."],
    versions: { "zephyr-align": "0.1.0", node: "20.20.2" },
    createdAt: "2026-11-25",
    ...overrides,
  };
}

const score = (mean: number, half = 0.3, n = 80): ScoreSummary => ({ mean, low: mean - half, high: mean + half, n });
const categories = ["arithmetic", "sorting", "counting", "units", "strings", "tables", "format", "refusal"];

function demo(overrides: Partial<DemoReportInput> = {}): DemoReportInput {
  const names = ["base", "dSFT", "dSFT + dDPO", "dDPO without dSFT"];
  const means = [1.8, 6.4, 7.6, 2.1];
  return {
    title: "zephyr-align demo",
    introduction: "A model of two million parameters is aligned on this machine and judged on prompts it has not seen.",
    scale: [1, 10],
    models: names.map((name, i) => ({
      name,
      note: i === 0 ? "pre-trained on plain text only" : undefined,
      score: score(means[i]!),
      turn1: score(means[i]! + 0.2),
      turn2: score(means[i]! - 0.2),
      categories: Object.fromEntries(
        categories.map((category, c) => [category, score(Math.max(1, means[i]! + Math.sin(c + i)), 0.6, 10)]),
      ),
    })) as DemoReportInput["models"],
    winRates: [
      { model: "dSFT + dDPO", against: "dSFT", wins: 40, ties: 25, losses: 15, rate: 0.656, low: 0.55, high: 0.75 },
    ],
    claims: [
      { text: "base is below dSFT, without overlap of the intervals", holds: true },
      { text: "dSFT is below dDPO by more than its standard error", holds: false },
    ],
    examples: [
      {
        category: "sorting",
        turns: [1, 2].map((turn) => ({
          prompt: `Sort 3, 1 and 2, please (${turn}).`,
          answers: names.map((model, i) => ({
            model,
            text: i === 0 ? "" : "1, 2, 3",
            score: Math.round(means[i]!),
            rationale: "The values are right and in the asked format.",
          })),
        })),
      },
    ],
    training: [{ title: "dDPO", metrics: run().metrics, steps: 60, seconds: 61, tokens: 80_000 }],
    facts: [["Time of everything", "4:12"]],
    versions: { "zephyr-align": "0.1.0" },
    ...overrides,
  };
}

/** Nothing may be fetched: every address in the page is a fragment or a name space. */
function expectSelfContained(text: string): void {
  expect(text).not.toMatch(/(src|href)=|url\(|@import|https?:\/\//);
}

describe("html", () => {
  it("escapes what is put in, and only that", () => {
    expect(html`<b>${evil}</b>`.text).toBe(`<b>${escapeText(evil)}</b>`);
    expect(escapeText(evil)).toBe("&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;&amp;&#39;");
    expect(html`${[html`<i>`, "<", 1, null, undefined, false]}`.text).toBe("<i>&lt;1");
  });
});

describe("figures", () => {
  it("are readable", () => {
    expect([0, 0.65432198, 1.2e-7, 5e-7, 12345, 1234.567, -3.24159, Number.NaN].map(figure)).toEqual([
      "0",
      "0.6543",
      "1.2e-7",
      "5e-7",
      "12,345",
      "1234.6",
      "-3.242",
      "NaN",
    ]);
    expect(percent(0.9734)).toBe("97.3 %");
    expect(whole(1234567)).toBe("1,234,567");
  });

  it("ticks are round and lie inside", () => {
    expect(ticks(0, 1, 4)).toEqual([0, 0.5, 1]);
    expect(ticks(0.55, 0.72, 4)).toEqual([0.55, 0.6, 0.65, 0.7]);
    expect(ticks(0, 5e-7, 4)).toEqual([0, 2e-7, 4e-7]);
    expect(ticks(-263, -258, 4)).toEqual([-262, -260, -258]);
    expect(ticks(3, 3, 4).every((tick) => tick === 3)).toBe(true);
  });
});

describe("lineChart", () => {
  const chart = (ys: number[]) =>
    lineChart({ title: "t", xLabel: "step", series: [{ name: "a", color: 1, points: ys.map((y, x) => ({ x, y })) }] });

  it("draws nothing without a finite point, and a dot for one", () => {
    expect(chart([])).toBeNull();
    expect(chart([Number.NaN])).toBeNull();
    expect(chart([3])?.text).toContain("<circle");
  });

  it("labels levels that differ with texts that differ", () => {
    const text = chart([1e-6, 0.999991e-6, 0.99998e-6])!.text;
    const labels = [...text.matchAll(/dominant-baseline="central">([^<]+)</g)].map(([, label]) => label);
    expect(labels.length).toBeGreaterThan(2);
    expect(new Set(labels).size).toBe(labels.length);
  });

  it("keeps every point inside, and averages when there are too many", () => {
    const many = chart(Array.from({ length: 10_000 }, (_, i) => Math.sin(i / 100)))!.text;
    const points = /points="([^"]+)"/.exec(many)![1]!.split(" ");
    expect(points).toHaveLength(400);
    for (const point of points) {
      const [x, y] = point.split(",").map(Number) as [number, number];
      expect(x >= 0 && x <= 560 && y >= 0 && y <= 224).toBe(true);
    }
  });
});

describe("renderRunReport", () => {
  it("is one self-contained page with curves, configuration, data counts, samples and versions", () => {
    const text = renderRunReport(run());
    expectSelfContained(text);
    for (const title of ["Loss", "Rewards", "Learning rate", "Gradient norm", "Tokens per second", "Log-probs"]) {
      expect(text).toContain(`<figcaption>${title}`);
    }
    for (const part of ["prefers-color-scheme", "lossType", "480", "12 rows, 803 tokens", "pairs.jsonl:7, chosen"]) {
      expect(text).toContain(part);
    }
    expect(text).toContain("ln 2");
  });

  it("prints every count of the data, what the run is measured against, and the answers", () => {
    const given = run();
    const text = renderRunReport(run({ data: { ...given.data, droppedLeadingAssistant: 6, reference: "start" } }));
    const rows = [...text.matchAll(/<th scope="row">([^<]*)<\/th><td>([^<]*)<\/td>/g)];
    expect(Object.fromEntries(rows.map(([, label, value]) => [label, value]))).toMatchObject({
      "Measured against": "the model as it started",
      "Rows read": "482",
      "Pairs trained on": "480",
      "Left out": "2",
      "Equal to an earlier row": "3",
      "Cut to the maximal length": "12 rows, 803 tokens",
      "Tokens of an epoch": "231,000",
      "Supervised tokens": "120,000 (51.9 %)",
      "Tokens across template and message": "4",
      Packs: "100, 97.3 % full",
      "Leading assistant turns cut": "6",
      "Chosen equal to rejected": "1",
    });
    expect(text).toMatch(/<h4>Before<\/h4><pre>2, 4, 6<\/pre>[\s\S]*<h4>After<\/h4><pre>2, 3 and 5\.<\/pre>/);
    expect(text).toContain("<h2>Rows left out (the first 1 of 2)</h2>");
    expect(renderRunReport(given)).not.toContain("Measured against");
  });

  it("shows only what the run has", () => {
    const text = renderRunReport(run({ method: "sft", metrics: [{ step: 1, loss: 2 }], samples: [], warnings: [] }));
    expect(text.match(/<figure/g)).toHaveLength(1);
    expect(text).not.toContain("ln 2");
    expect(text).not.toContain("Samples");
    expect(renderRunReport(run({ metrics: [] }))).not.toContain("<figure");
    expect(renderRunReport(run({ metrics: [{ step: 1, loss: null }] }))).not.toContain("<figure");
  });

  it("escapes every text", () => {
    const given = run({
      title: evil,
      model: evil,
      config: { [evil]: evil },
      samples: [{ prompt: evil, before: evil, after: evil }],
      warnings: [evil],
      versions: { [evil]: evil },
      createdAt: evil,
    });
    const data = { ...given.data, source: evil, description: evil };
    data.skippedRows = [{ place: { file: evil, field: evil }, code: evil, problem: evil }];
    const text = renderRunReport({ ...given, data });
    expect(text).not.toContain("<script>alert");
    expect(text.match(/<script>/g)).toHaveLength(1);
  });
});

describe("renderDemoReport", () => {
  it("has the scores, the categories, the win rates, answers side by side, and the curves", () => {
    const text = renderDemoReport(demo());
    expectSelfContained(text);
    expect(text).toContain("<b>7.60</b> ± 0.30");
    expect(text).toContain("65.6 %");
    for (const category of categories) expect(text).toContain(`>${category}</text>`);
    expect(text.match(/<title>[a-z]+, /g)).toHaveLength(32);
    expect(text).toContain("not borne out in this run");
    expect(text).toContain("(no text)");
  });

  it("escapes every text", () => {
    const base = demo();
    const model = { ...base.models[0]!, name: evil, note: evil, categories: { [evil]: score(3) } };
    const text = renderDemoReport({
      ...base,
      title: evil,
      introduction: evil,
      models: [model],
      claims: [{ text: evil, holds: true }],
      winRates: [{ ...base.winRates[0]!, model: evil, against: evil }],
      examples: [
        {
          category: evil,
          turns: [{ prompt: evil, answers: [{ model: evil, text: evil, score: 1, rationale: evil }] }],
        },
      ],
      training: [{ ...base.training[0]!, title: evil }],
      facts: [[evil, evil]],
    });
    expect(text.match(/<script>/g)).toHaveLength(1);
  });
});

// Looking at the pages: `ZEPHYR_REPORT_OUT=folder npx vitest run ts/report` writes them there.
const out = process.env.ZEPHYR_REPORT_OUT;
describe.skipIf(!out)("pages to look at", () => {
  it("are written", async () => {
    const { mkdir, writeFile } = await import("node:fs/promises");
    await mkdir(out!, { recursive: true });
    await writeFile(`${out}/run.html`, renderRunReport(run()));
    await writeFile(`${out}/demo.html`, renderDemoReport(demo()));
  });
});
