import { describe, expect, it } from "vitest";
import { one, pairsOf, rated } from "../../../test/rated";
import { toPair } from "../../data";
import { promptId } from "../prompt-id";
import { binarisePresets } from "./options";
import { OverlapFilter } from "./overlap";

describe("binarise", () => {
  it("makes rows of ultrafeedback_binarized", async () => {
    const { pairs } = await pairsOf([
      rated("why?", [
        [9, 2],
        [3, 5],
        [4, 1],
        [5, 3],
      ]),
    ]);
    const { prompt, prompt_id, chosen, rejected, messages, ...scores } = pairs[0]!.row;
    expect(prompt).toBe("why?");
    expect(prompt_id).toBe(promptId("why?"));
    expect(chosen).toEqual([
      { role: "user", content: "why?" },
      { role: "assistant", content: "answer 1 to why?" },
    ]);
    expect(messages).toEqual(chosen);
    expect(rejected[0]).toEqual(chosen[0]);
    expect(Object.keys(scores)).toEqual(["score_chosen", "score_rejected"]);
    expect(scores.score_chosen).toBe(5);
  });

  it("has knobs: score, rejected, ties, margin", async () => {
    const scores: Parameters<typeof rated>[1] = [
      [9, 2],
      [3, 5],
      [4, 1],
    ];
    expect(await one(scores, { score: "overall", rejected: "lowest" })).toEqual([9, 3]);
    expect(await one(scores, { score: "mean", rejected: "lowest" })).toEqual([5, 1]);
    expect(
      await one(
        [
          [9, 2],
          [8, 2],
          [2, 2],
        ],
        { score: "overall", rejected: "random", minMargin: 2 },
      ),
    ).toEqual([9, 2]);
    expect(
      await one(
        [
          [9, 2],
          [8, 2],
        ],
        { score: "overall", minMargin: 2 },
      ),
    ).toBe("margin");
    expect(
      await one(
        [
          [9, 2],
          [9, 2],
        ],
        { score: "overall" },
      ),
    ).toBe("tie");
    expect(
      await one(
        [
          [9, 2],
          [9, 2],
        ],
        { score: "overall", ties: "keep" },
      ),
    ).toEqual([9, 9]);
    expect(
      await one(
        [
          [9, null],
          [8, null],
        ],
        { score: "mean" },
      ),
    ).toBe("unscored");
    await expect(pairsOf([], { ties: "keep", minMargin: 1 })).rejects.toThrow(/equal scores have no margin/);
    await expect(pairsOf([], { preset: "zephyr" as "paper" })).rejects.toThrow(/there is no preset "zephyr"/);
    await expect(pairsOf([], { scores: "mean" } as object)).rejects.toThrow(/Did you mean score/);
  });

  it("follows its presets", async () => {
    const tie: Parameters<typeof rated>[1] = [
      [8.5, 4],
      [8.5, 2],
      [8.5, 3],
    ];
    expect(await one(tie, { preset: "h4-current" })).toEqual([8.5, 8.5]);
    const [chosen, rejected] = (await one(tie, { preset: "paper" })) as number[];
    expect([chosen, [2, 3].includes(rejected!)]).toEqual([4, true]);
    const rows = [
      rated(
        "is it true?",
        [
          [9, 5],
          [2, 1],
        ],
        "truthful_qa",
      ),
      rated("why?", [
        [9, 5],
        [2, 1],
      ]),
    ];
    expect((await pairsOf(rows, { preset: "paper" })).pairs).toHaveLength(2);
    for (const preset of ["h4-current", "argilla-clean"] as const) {
      const { pairs, report } = await pairsOf(rows, { preset });
      expect(pairs.map((each) => each.row.prompt)).toEqual(["why?"]);
      expect(report.dropped.source).toEqual({ count: 1, examples: ["is it true?"] });
    }
    expect(Object.keys(binarisePresets)).toEqual(["paper", "h4-current", "argilla-clean"]);
  });

  it("meets tens that were ones (UltraFeedback#8)", async () => {
    const scores: Parameters<typeof rated>[1] = [
      [10, 1.5],
      [7, 4],
      [10, 3],
      [10, 4.5],
    ];
    const options = { score: "overall", rejected: "lowest" } as const;
    const repaired = await pairsOf([rated("why?", scores)], options);
    expect(repaired.pairs[0]!.row).toMatchObject({ score_chosen: 10, score_rejected: 1 });
    expect(repaired.pairs[0]!.row.chosen[1]!.content).toContain("answer 3");
    expect(repaired.report.tens).toEqual({ repaired: 1, dropped: 1, kept: 0 });
    const kept = await pairsOf([rated("why?", scores)], { ...options, tens: "keep" });
    expect(kept.pairs[0]!.row.chosen[1]!.content).toContain("answer 0");
    expect(kept.report.tens).toEqual({ repaired: 0, dropped: 0, kept: 2 });
  });

  it("drops overlaps, duplicates, equal texts and answers without text, and counts everything", async () => {
    const overlap = new OverlapFilter(6);
    overlap.add("bench", "What happens to you if you eat watermelon seeds?");
    overlap.add("bench", "Is it so?");
    const same = rated("same", [
      [9, 5],
      [2, 1],
    ]);
    same.completions[1]!.response = same.completions[0]!.response;
    const silent = rated("silent", [
      [9, 5],
      [2, 1],
    ]);
    silent.completions[1]!.response = " ";
    const rows = [
      rated("what happens to you if you eat WATERMELON seeds", [
        [9, 5],
        [2, 1],
      ]),
      rated("Tell me: what happens to you if you swallow watermelon seeds?", [
        [9, 5],
        [2, 1],
      ]),
      rated("Is it so", [
        [9, 5],
        [2, 1],
      ]),
      rated("Is it so that it rains?", [
        [9, 5],
        [2, 1],
      ]),
      rated("Is it so that it rains?", [
        [9, 5],
        [2, 1],
      ]),
      same,
      silent,
    ];
    const { pairs, report } = await pairsOf(rows, { overlap });
    expect(pairs.map((each) => each.row.prompt)).toEqual(["Is it so that it rains?"]);
    expect(report.overlaps).toEqual({ "bench (exact)": 2, "bench (n-gram)": 1 });
    expect(Object.fromEntries(Object.entries(report.dropped).map(([reason, { count }]) => [reason, count]))).toEqual({
      overlap: 3,
      duplicate: 1,
      equal: 1,
      unscored: 1,
    });
    expect(report).toMatchObject({ rows: 7, pairs: 1, answersLeftOut: 1 });
  });

  it("continues conversations", async () => {
    const history = [
      { role: "user", content: "a" },
      { role: "assistant", content: "b" },
    ] as const;
    const { pairs } = await pairsOf([
      {
        ...rated("c", [
          [9, 5],
          [2, 1],
        ]),
        history,
      },
    ]);
    const found = pairs[0]!.row;
    expect(found.prompt).toBe("a\n\nb\n\nc");
    expect(found.chosen.map(({ content }) => content)).toEqual(["a", "b", "c", "answer 0 to c"]);
    expect(toPair(found, {})).toMatchObject({ kind: "chat", prompt: [...history, { role: "user", content: "c" }] });
  });

  it("names file, row and field of what it cannot read", async () => {
    const bad = rated("x", [
      [9, 5],
      [10.5, 1],
    ]);
    await expect(pairsOf([bad])).rejects.toMatchObject({
      code: "ZA_DATA_ROW",
      place: { element: 1, field: "completions[1].overall_score" },
    });
    const wild = rated("x", [
      [9, 5],
      [1, 6],
    ]);
    await expect(pairsOf([rated("a", []), wild])).rejects.toMatchObject({
      place: { element: 2, field: "completions[1].annotations.helpfulness.Rating" },
    });
    await expect(pairsOf([{ prompt: "x", chosen: "a", rejected: "b" }])).rejects.toMatchObject({
      code: "ZA_DATA_FORMAT",
      remedy: expect.stringContaining("pairs already"),
    });
    const { pairs, report } = await pairsOf(
      [
        bad,
        rated("y", [
          [9, 5],
          [2, 1],
        ]),
      ],
      { onBadRow: "skip" },
    );
    expect(pairs).toHaveLength(1);
    expect(report.dropped.unreadable!.count).toBe(1);
    // Published rows have N/A, and numbers as text.
    const published = rated("z", [
      [9, 5],
      [2, 1],
    ]) as unknown as { completions: Record<string, unknown>[] };
    published.completions[0]!.annotations = {
      honesty: { Rating: "N/A" },
      helpfulness: { Rating: "4", "Rationale For Rating": "x" },
    };
    published.completions[0]!.overall_score = "8.5";
    delete published.completions[0]!["fine-grained_score"];
    expect((await pairsOf([published])).pairs[0]!.row.score_chosen).toBe(4);
  });
});
