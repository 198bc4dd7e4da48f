/** `eval mt-bench`, `eval alpaca-eval` and `eval choice` on the command line. */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, describe, expect, it, vi } from "vitest";
import { readyModels } from "../ts/cli/judge-models";
import { buildProgram } from "../ts/cli/program";
import { alpacaEvalProtocols, evaluateChoices, type JudgeResult, Mistral, readChoices } from "../ts/index";
import { encodedChoice } from "../ts/judge/multiple-choice";
import { asked, ruleModel } from "./judges";
import { data, present, readJson } from "./shared";

const work = mkdtempSync(join(tmpdir(), "zephyr-cli-judge-"));
afterAll(() => rmSync(work, { recursive: true, force: true }));
afterEach(() => readyModels.clear());

/** Runs the program in this process; what it printed. */
async function run(...args: string[]): Promise<string> {
  const printed: string[] = [];
  const spy = vi.spyOn(process.stdout, "write").mockImplementation((text) => printed.push(String(text)) > 0);
  try {
    await buildProgram().parseAsync(["node", "zephyr-align", ...args]);
  } finally {
    spy.mockRestore();
  }
  return printed.join("");
}

const at = (...path: string[]) => join(work, ...path);
const mtBench = join(data, "mt_bench");

describe.runIf(present(join(mtBench, "expected.json")))("eval mt-bench", () => {
  it("answers, judges, prints, and goes on without asking again", async () => {
    const ours = ruleModel("runs/dpo/model", (request) => `About ${asked(request).length} characters.`);
    const judge = ruleModel("gpt-4", (request) => `Rating: [[${1 + (asked(request).length % 10)}]]`);
    for (const model of [ours, judge]) readyModels.set(model.name, model);
    const args = [
      "eval",
      "mt-bench",
      "--bench",
      mtBench,
      "--model",
      ours.name,
      "--judge",
      "gpt-4",
      "--out",
      at("mt"),
      "--template",
      "zephyr",
    ];
    const printed = await run(...args, "--json", at("mt.json"), "--markdown", at("mt.md"));
    expect(ours.requests.length).toBe(160);
    expect(judge.requests.length).toBe(160 + 24);
    expect(printed).toMatch(/MT-Bench judged by gpt-4 \(gpt-4-0613\)/);
    expect(printed).toMatch(/dpo +\d\.\d\d +\d\.\d\d–\d\.\d\d/);
    expect(printed).toMatch(/Humanities/);
    expect(printed).toMatch(/template zephyr/);
    const result = readJson<JudgeResult>(at("mt.json"));
    expect(result.model).toMatchObject({
      name: "dpo",
      answers: "generated",
      template: "zephyr",
      sampling: { maxTokens: 1024 },
    });
    expect(result.rows.length).toBe(80);
    expect(result.rows[20]!.turns[1]).toMatchObject({
      turn: 2,
      reference: expect.any(String),
      answer: expect.stringMatching(/^About/),
    });
    expect(readFileSync(at("mt.md"), "utf8")).toContain(`| dpo | – | – | **${result.figures[0]!.value!.toFixed(2)}** (`);
    expect(existsSync(at("mt", "model_answer", "dpo.jsonl"))).toBe(true);
    await run(...args, "--quiet");
    expect([ours.requests.length, judge.requests.length]).toEqual([160, 184]);
  });

  it("compares two models with a baseline by name", async () => {
    const judge = ruleModel("gpt-4", (request) => (asked(request).length % 3 === 0 ? "[[A]]" : "[[C]]"));
    readyModels.set(judge.name, judge);
    const printed = await run(
      ...["eval", "mt-bench", "--bench", mtBench, "--judge", "gpt-4", "--out", at("pair"), "--limit", "3"],
      ...[
        "--model",
        "zephyr-7b-beta",
        "mistral-orpo",
        "--mode",
        "pairwise-baseline",
        "--baseline",
        "gpt-4",
        "--no-canaries",
      ],
      ...["--json", at("pair.json")],
    );
    expect(judge.requests.length).toBe(2 * 3 * 2 * 2);
    expect(printed).toMatch(/zephyr-7b-beta vs gpt-4/);
    expect(printed).toMatch(/won \/ lost \/ tied/);
    expect(readJson<JudgeResult[]>(at("pair.json")).map(({ model, opponent }) => [model.name, opponent!.name])).toEqual(
      [
        ["zephyr-7b-beta", "gpt-4"],
        ["mistral-orpo", "gpt-4"],
      ],
    );
    await run(
      ...[
        "eval",
        "mt-bench",
        "--bench",
        mtBench,
        "--judge",
        "gpt-4",
        "--out",
        at("all"),
        "--limit",
        "1",
        "--no-canaries",
      ],
      ...["--model", "zephyr-7b-beta", "mistral-orpo", "gpt-4", "--mode", "pairwise-all", "--json", at("all.json")],
    );
    expect(readJson<JudgeResult[]>(at("all.json")).length).toBe(3);
  });

  it("counts judgments that were made elsewhere, and refuses the doubled model", async () => {
    const judgments = join(mtBench, "model_judgment", "gpt-4_single.jsonl");
    const args = ["eval", "mt-bench", "--bench", mtBench, "--judgments", judgments];
    const compat = await run(...args, "--compat");
    expect(compat).toMatch(/as the benchmark's own scripts/);
    expect(compat).toMatch(/mistral-orpo-trl +7\.17 /);
    expect(compat).toMatch(/mistral-orpo +5\.86 /);
    expect(compat.indexOf("mistral-orpo-trl")).toBeLessThan(compat.indexOf("mistral-orpo-mix"));
    await expect(run(...args)).rejects.toMatchObject({ code: "ZA_JUDGE_DUPLICATE" });
    expect(await run(...args, "--model", "mistral-orpo-trl")).toMatch(/Writing +█+▊? +8\.78/);
    const pairs = join(mtBench, "model_judgment", "gpt-4_pair.jsonl");
    const pair = await run(
      "eval",
      "mt-bench",
      "--bench",
      mtBench,
      "--judgments",
      pairs,
      "--mode",
      "pairwise-all",
      "--compat",
    );
    expect(pair).toMatch(/18 \/ 20 \/ 35/);
    expect(pair).toMatch(/the first shown wins 64\.8 % of 122/);
  });

  it("refuses what is missing, with the flag", async () => {
    const bench = ["eval", "mt-bench", "--bench", mtBench];
    await expect(run(...bench)).rejects.toMatchObject({ problems: [{ field: "--judge" }] });
    await expect(run(...bench, "--judge", "nobody", "--model", "gpt-4")).rejects.toMatchObject({
      problems: [{ field: "--judge" }],
    });
    await expect(run("eval", "mt-bench", "--bench", work)).rejects.toMatchObject({ code: "ZA_JUDGE_FILES" });
  });
});

describe("eval alpaca-eval", () => {
  it("answers, judges, counts again, with a length-controlled rate", async () => {
    const prompts = at("prompts");
    const { prompt } = alpacaEvalProtocols["2.0"];
    mkdirSync(join(prompts, prompt, ".."), { recursive: true });
    writeFileSync(join(prompts, prompt), "<|im_start|>user\n{instruction}\nm: {output_1}\nM: {output_2}\n<|im_end|>");
    const baseline = Array.from({ length: 40 }, (_, i) => ({
      instruction: `Say ${i}.`,
      output: "b".repeat(1 + (i % 9)),
      generator: "base",
      dataset: "koala",
    }));
    writeFileSync(at("baseline.json"), JSON.stringify(baseline));
    writeFileSync(
      at("difficulty.csv"),
      `index,instruction_difficulty\n${baseline.map((_, i) => `${i},${Math.cos(i)}\n`).join("")}`,
    );
    const ours = ruleModel("ours", (request) => `o${asked(request)}`.repeat(1 + (asked(request).length % 3)));
    const judge = ruleModel(
      "judge",
      (request) => {
        const top = [
          { token: "m", logprob: asked(request).includes("m: o") ? -0.3 : -1.2 },
          { token: "M", logprob: asked(request).includes("m: o") ? -1.2 : -0.3 },
        ];
        return { text: "m", logprobs: [{ ...top[0]!, top }] };
      },
      { topLogprobs: 5 },
    );
    for (const model of [ours, judge]) readyModels.set(model.name, model);
    const args = [
      "eval",
      "alpaca-eval",
      "--prompts",
      prompts,
      "--baseline",
      at("baseline.json"),
      "--out",
      at("ae"),
      "--difficulty",
      at("difficulty.csv"),
    ];
    const printed = await run(...args, "--model", "ours", "--judge", "judge", "--json", at("ae.json"));
    expect(ours.requests.length).toBe(40);
    expect(judge.requests.length).toBe(40 + 24);
    expect(printed).toMatch(/AlpacaEval 2\.0 judged by judge \(judge-0613\)/);
    expect(printed).toMatch(/ours vs base +71\.09 %/);
    expect(printed).toMatch(/length-controlled win rate/);
    expect(printed).toMatch(/40 \/ 0 \/ 0/);
    const result = readJson<JudgeResult>(at("ae.json"));
    const again = await run(...args, "--model", at("ae", "ours.outputs.jsonl"), "--json", at("again.json"));
    expect(again).toMatch(/ours vs base +71\.09 %/);
    expect(readJson<JudgeResult>(at("again.json")).figures).toEqual(result.figures);
    await expect(
      run(...args, "--model", at("ae", "ours.outputs.jsonl"), "--annotations", at("none")),
    ).rejects.toMatchObject({
      problems: [{ field: "--judge" }],
    });
  });
});

describe("eval choice", () => {
  const model = fileURLToPath(new URL("../recipes/demo/base", import.meta.url));
  const arc = [
    {
      id: "a",
      question: "Which is red?",
      choices: { text: ["the sky", "a rose", "snow"], label: ["A", "B", "C"] },
      answerKey: "B",
    },
    {
      id: "b",
      question: "Two and two?",
      choices: { text: ["four", "nine", "one hundred and seven"], label: ["1", "2", "3"] },
      answerKey: "3",
    },
    {
      id: "c",
      question: {
        stem: "Where do fish live?",
        choices: [
          { text: "in water", label: "A" },
          { text: "in trees", label: "B" },
        ],
      },
      answerKey: "A",
    },
  ];

  it("sums the log-probabilities of each choice, and normalises by characters", async () => {
    writeFileSync(at("arc.jsonl"), arc.map((row) => `${JSON.stringify(row)}\n`).join(""));
    const loaded = await Mistral.fromPretrained(model);
    const found = await evaluateChoices(loaded, at("arc.jsonl"));
    const { questions, format } = await readChoices(at("arc.jsonl"));
    expect(format).toBe("arc");
    expect(questions[1]).toEqual({
      context: "Question: Two and two?\nAnswer:",
      choices: ["four", "nine", "one hundred and seven"],
      answer: 2,
    });
    let right = 0;
    let rightNorm = 0;
    for (const [i, { context, choices, answer }] of questions.entries()) {
      const sums: number[] = [];
      for (const choice of choices) {
        // By another way of the core: the log-probabilities of all tokens, of which the choice's are the last.
        const ids = loaded.tokenizer.encode(`${context} ${choice}`, { addSpecialTokens: true });
        const before = loaded.tokenizer.encode(context, { addSpecialTokens: true }).length;
        sums.push((await loaded.score(ids)).slice(before - 1).reduce((a, b) => a + b, 0));
      }
      for (const [j, sum] of sums.entries()) expect(found.rows[i]!.logprobs[j]).toBeCloseTo(sum, 3);
      const best = (values: number[]) => values.indexOf(Math.max(...values));
      if (best(sums) === answer) right++;
      if (best(sums.map((sum, j) => sum / Array.from(choices[j]!).length)) === answer) rightNorm++;
    }
    expect(found.acc.value).toBeCloseTo(right / 3, 12);
    expect(found.accNorm.value).toBeCloseTo(rightNorm / 3, 12);
    const p = found.acc.value;
    expect(found.acc.error).toBeCloseTo(Math.sqrt((p * (1 - p)) / 2), 12);
    const printed = await run(
      "eval",
      "choice",
      "--model",
      model,
      "--data",
      at("arc.jsonl"),
      "--json",
      at("choice.json"),
    );
    expect(printed).toMatch(/acc_norm/);
    expect(printed).toMatch(/n = 3 questions \(arc\)/);
    expect(readJson<{ rows: unknown[] }>(at("choice.json")).rows).toEqual(JSON.parse(JSON.stringify(found.rows)));
    const shots = await run(
      "eval",
      "choice",
      "--model",
      model,
      "--data",
      at("arc.jsonl"),
      "--shots",
      "2",
      "--shots-data",
      at("arc.jsonl"),
    );
    expect(shots).toMatch(/2 solved in front/);
  });

  it("spaces at the end of a context go over to the choice; a context that is too long loses its beginning", async () => {
    const { tokenizer } = await Mistral.fromPretrained(model);
    const plain = encodedChoice(tokenizer, "say:", "ten hat", 100);
    expect(plain.supervised.reduce((a, b) => a + b, 0)).toBe(
      plain.ids.length - tokenizer.encode("say:", { addSpecialTokens: true }).length,
    );
    const spaced = encodedChoice(tokenizer, "say: ", "ten hat", 100);
    expect(spaced.ids).toEqual(tokenizer.encode("say:  ten hat", { addSpecialTokens: true }));
    const bare = encodedChoice(tokenizer, "", "ten hat", 100);
    expect(bare.supervised[0]).toBe(0);
    const short = encodedChoice(tokenizer, "say: seven nine ten", "ten hat", plain.ids.length);
    expect(short.cut).toBe(true);
    expect(short.ids.length).toBe(plain.ids.length);
    expect(short.ids.at(-1)).toBe(plain.ids.at(-1));
  });

  it("HellaSwag's texts are tidied, MMLU's letters are read, and what fits nothing is refused with its place", async () => {
    const write = (row: object) => {
      writeFileSync(at("row.jsonl"), `${JSON.stringify(row)}\n`);
      return at("row.jsonl");
    };
    const swag = {
      activity_label: "Cooking",
      ctx_a: "[header] How to fry [title] Take a pan.",
      ctx_b: "THEN she",
      endings: ["adds  oil.", "[step] sings."],
      label: "1",
    };
    expect((await readChoices(write(swag))).questions).toEqual([
      {
        context: "Cooking: How to fry. Take a pan. Then she",
        choices: ["adds oil.", " sings."],
        answer: 1,
      },
    ]);
    expect((await readChoices(write({ question: "Q", choices: ["x", "y"], answer: "B" }))).questions[0]).toEqual({
      context: "Q",
      choices: ["x", "y"],
      answer: 1,
    });
    await expect(readChoices(write({ text: "x" }))).rejects.toMatchObject({ code: "ZA_DATA_FORMAT" });
    const wrong = readChoices(write({ ...arc[0], answerKey: "E" }));
    await expect(wrong).rejects.toMatchObject({ code: "ZA_DATA_ROW", place: { row: 1, field: "answerKey" } });
    await expect(readChoices(write({ ...swag, label: "" }))).rejects.toMatchObject({ place: { field: "label" } });
  });
});
