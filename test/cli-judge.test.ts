/** `eval mt-bench`, `eval alpaca-eval` and `eval choice` on the command line; models and judges are a server in its own process. */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { buildProgram } from "../ts/cli/program";
import { alpacaEvalProtocols, evaluateChoices, type JudgeResult, Mistral, readChoices } from "../ts/index";
import { encodedChoice } from "../ts/judge/multiple-choice";
import { type Server, startServer } from "./server/start.mjs";
import { data, present, readJson } from "./shared";

const work = mkdtempSync(join(tmpdir(), "zephyr-cli-judge-"));
let server: Server;
beforeAll(async () => {
  server = await startServer({ answer: fileURLToPath(new URL("server/judge-answer.mjs", import.meta.url)) });
});
afterAll(async () => {
  await server.stop();
  rmSync(work, { recursive: true, force: true });
});

/** Calls that the server billed since the last time, by model. */
let seen = 0;
function billed(): Record<string, number> {
  const calls = server.billed().slice(seen);
  seen += calls.length;
  const counts: Record<string, number> = {};
  for (const { model } of calls) counts[model] = (counts[model] ?? 0) + 1;
  return counts;
}

/** Runs the program in this process; what it printed. */
async function run(...args: string[]): Promise<string> {
  const printed: string[] = [];
  const spy = vi.spyOn(process.stdout, "write").mockImplementation((text) => printed.push(String(text)) > 0);
  const progress = vi.spyOn(process.stderr, "write").mockImplementation(() => true);
  try {
    await buildProgram().parseAsync(["node", "zephyr-align", ...args]);
  } finally {
    spy.mockRestore();
    progress.mockRestore();
  }
  return printed.join("");
}

const at = (...path: string[]) => join(work, ...path);
const mtBench = join(data, "mt_bench");
/** A model of 1.3 million parameters. */
const tiny = fileURLToPath(new URL("../recipes/demo/base", import.meta.url));
const judgedBy = (name: string) => ["--judge", name, "--judge-url", server.url];
const answeredBy = (name: string) => ["--model", name, "--model-url", server.url];

describe.runIf(present(join(mtBench, "expected.json")))("eval mt-bench", () => {
  const command = ["eval", "mt-bench", "--bench", mtBench];

  it("estimates, answers, judges, prints, and goes on without asking again", async () => {
    const args = [...command, ...answeredBy("ours"), ...judgedBy("rater"), "--out", at("mt")];
    const estimate = await run(...args, "--dry-run");
    expect(estimate).toMatch(/ours +160 +0/);
    expect(estimate).toMatch(/rater +\d+ +0/);
    expect([billed(), existsSync(at("mt", "model_answer")), existsSync(at("mt", "model_judgment"))]).toEqual([
      {},
      false,
      false,
    ]);

    const printed = await run(...args, "--json", at("mt.json"), "--markdown", at("mt.md"));
    expect(billed()).toEqual({ ours: 160, rater: 160 + 24 });
    expect(printed).toMatch(/MT-Bench judged by rater \(rater-2026-01-01\)/);
    expect(printed).toMatch(/ours +\d\.\d\d +\d\.\d\d–\d\.\d\d/);
    expect(printed).toMatch(/Humanities/);
    expect(printed).toMatch(/judge mt-bench +rater +184/);
    const result = readJson<JudgeResult>(at("mt.json"));
    expect(result.model).toMatchObject({ name: "ours", answers: "generated", sampling: { maxTokens: 1024 } });
    expect(result.rows.length).toBe(80);
    expect(result.rows[20]!.turns[1]).toMatchObject({
      turn: 2,
      reference: expect.any(String),
      answer: expect.stringMatching(/^o/),
    });
    expect(readFileSync(at("mt.md"), "utf8")).toContain(
      `| ours | – | – | **${result.figures[0]!.value!.toFixed(2)}** (`,
    );
    await run(...args, "--quiet");
    expect(billed()).toEqual({});
    // The files are lost, the journal is not.
    rmSync(at("mt", "model_judgment"), { recursive: true });
    await run(...args, "--quiet", "--json", at("again.json"));
    expect(billed()).toEqual({});
    expect(readJson<JudgeResult>(at("again.json")).figures).toEqual(result.figures);
  });

  it("a cap ends the run, what was judged is kept, and a higher cap goes on", async () => {
    const args = [
      ...command,
      "--model",
      "zephyr-7b-beta",
      ...judgedBy("rater"),
      "--out",
      at("cap"),
      "--limit",
      "6",
      "--no-canaries",
      "--quiet",
    ];
    const stopped = run(...args, "--max-calls", "5", "--concurrency", "1");
    await expect(stopped).rejects.toMatchObject({ code: "ZA_CLIENT_CAP" });
    expect(billed()).toEqual({ rater: 5 });
    await run(...args, "--max-calls", "12");
    expect(billed()).toEqual({ rater: 7 });
  });

  it("compares two models with a baseline by name, and all with all", async () => {
    const pair = [...command, ...judgedBy("first"), "--no-canaries", "--concurrency", "2"];
    const two = ["--model", "zephyr-7b-beta", "--model", "mistral-orpo"];
    const baseline = ["--mode", "pairwise-baseline", "--baseline", "gpt-4", "--out", at("pair"), "--limit", "3"];
    const printed = await run(...pair, ...two, ...baseline, "--json", at("pair.json"));
    expect(billed()).toEqual({ first: 2 * 3 * 2 * 2 });
    expect(printed).toMatch(/zephyr-7b-beta vs gpt-4 +50\.00 %/);
    expect(printed).toMatch(/0 \/ 0 \/ 6/);
    expect(printed).toMatch(/the first shown wins 100\.0 % of 12/);
    expect(readJson<JudgeResult[]>(at("pair.json")).map(({ model, opponent }) => [model.name, opponent!.name])).toEqual(
      [
        ["zephyr-7b-beta", "gpt-4"],
        ["mistral-orpo", "gpt-4"],
      ],
    );
    const all = ["--mode", "pairwise-all", "--out", at("all"), "--limit", "1", "--json", at("all.json")];
    await run(...pair, ...two, "--model", "gpt-4", ...all);
    expect(readJson<JudgeResult[]>(at("all.json")).length).toBe(3);
    expect(billed()).toEqual({ first: 12 });
    const unknown = run(...pair, ...two, "--mode", "pairwise-baseline", "--baseline", "nobody", "--out", at("pair"));
    await expect(unknown).rejects.toMatchObject({ problems: [{ field: "--baseline" }] });
  });

  it("judges a local model with its template, by the offline judge", async () => {
    const local = ["--model", tiny, "--name", "tiny", "--template", "zephyr", "--max-tokens", "8", "--limit", "4"];
    await run(...command, ...local, "--judge", "offline", "--out", at("local"), "--json", at("local.json"), "--quiet");
    const result = readJson<JudgeResult>(at("local.json"));
    expect(result.model).toMatchObject({
      name: "tiny",
      template: expect.stringMatching(/^zephyr sha256:[0-9a-f]{16}$/),
    });
    expect(result.judge.asked).toBe("offline");
    expect(result.figures[0]!.n).toBe(8);
    const server = run(
      ...command,
      ...answeredBy("ours"),
      "--template",
      "zephyr",
      ...judgedBy("rater"),
      "--out",
      at("no"),
    );
    await expect(server).rejects.toMatchObject({ problems: [{ field: "template" }] });
  });

  it("counts judgments that were made elsewhere, and refuses the doubled model", async () => {
    const args = [...command, "--judgments", join(mtBench, "model_judgment", "gpt-4_single.jsonl")];
    const compat = await run(...args, "--compat");
    expect(compat).toMatch(/as the benchmark's own scripts/);
    expect(compat).toMatch(/mistral-orpo-trl +7\.17 /);
    expect(compat).toMatch(/mistral-orpo +5\.86 /);
    expect(compat.indexOf("mistral-orpo-trl")).toBeLessThan(compat.indexOf("mistral-orpo-mix"));
    await expect(run(...args)).rejects.toMatchObject({ code: "ZA_JUDGE_DUPLICATE" });
    expect(await run(...args, "--model", "mistral-orpo-trl")).toMatch(/Writing +█+▊? +8\.78/);
    const pairs = join(mtBench, "model_judgment", "gpt-4_pair.jsonl");
    const pair = await run(...command, "--judgments", pairs, "--mode", "pairwise-all", "--compat");
    expect(pair).toMatch(/18 \/ 20 \/ 35/);
    expect(pair).toMatch(/the first shown wins 64\.8 % of 122/);
  });

  it("refuses what is missing, with the flag", async () => {
    await expect(run(...command)).rejects.toMatchObject({ problems: [{ field: "--judge" }] });
    await expect(run(...command, ...judgedBy("rater"))).rejects.toMatchObject({ problems: [{ field: "--model" }] });
    const two = run(...command, ...judgedBy("rater"), "--judge", "first", "--model", "gpt-4", "--out", at("no"));
    await expect(two).rejects.toMatchObject({ problems: [{ field: "--judge" }] });
    await expect(run("eval", "mt-bench", "--bench", work)).rejects.toMatchObject({ code: "ZA_JUDGE_FILES" });
    expect(billed()).toEqual({});
  });
});

describe("eval alpaca-eval", () => {
  it("answers, judges, counts again, with a length-controlled rate", async () => {
    const prompts = at("prompts");
    const { prompt } = alpacaEvalProtocols["2.0"];
    mkdirSync(join(prompts, prompt, ".."), { recursive: true });
    writeFileSync(join(prompts, prompt), "<|im_start|>user\n{instruction}\nm: {output_1}\nM: {output_2}\n<|im_end|>");
    const baseline = Array.from({ length: 40 }, (_, i) => ({
      instruction: `Say ${"so ".repeat(i % 4)}${i}.`,
      output: "b".repeat(1 + (i % 9)),
      generator: "base",
      dataset: "koala",
    }));
    writeFileSync(at("baseline.json"), JSON.stringify(baseline));
    writeFileSync(
      at("difficulty.csv"),
      `index,instruction_difficulty\n${baseline.map((_, i) => `${i},${Math.cos(i)}\n`).join("")}`,
    );
    const args = [
      ...["eval", "alpaca-eval", "--prompts", prompts, "--baseline", at("baseline.json")],
      ...["--out", at("ae"), "--difficulty", at("difficulty.csv")],
    ];
    const printed = await run(...args, ...answeredBy("ours"), ...judgedBy("weigher"), "--json", at("ae.json"));
    expect(billed()).toEqual({ ours: 40, weigher: 40 + 24 });
    expect(printed).toMatch(/AlpacaEval 2\.0 judged by weigher \(weigher-2026-01-01\)/);
    expect(printed).toMatch(/ours vs base +71\.09 %/);
    expect(printed).toMatch(/length-controlled win rate/);
    expect(printed).toMatch(/40 \/ 0 \/ 0/);
    const result = readJson<JudgeResult>(at("ae.json"));
    const outputs = ["--model", at("ae", "ours.outputs.jsonl")];
    const again = await run(...args, ...outputs, "--json", at("again.json"));
    expect(billed()).toEqual({});
    expect(again).toMatch(/ours vs base +71\.09 %/);
    expect(readJson<JudgeResult>(at("again.json")).figures).toEqual(result.figures);
    const nothing = run(...args, ...outputs, "--annotations", at("none"));
    await expect(nothing).rejects.toMatchObject({ problems: [{ field: "--judge" }] });
    // A judge without log-probabilities is refused before the model answers.
    const plain = run(...args, ...answeredBy("other"), "--judge", tiny);
    await expect(plain).rejects.toMatchObject({ code: "ZA_JUDGE_CAPABILITY" });
    expect(billed()).toEqual({});
  });
});

describe("eval choice", () => {
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
    const loaded = await Mistral.fromPretrained(tiny);
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
      tiny,
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
      tiny,
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
    const { tokenizer } = await Mistral.fromPretrained(tiny);
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
