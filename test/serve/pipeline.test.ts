/**
 * Served models in our own pipeline, every part in a process of its own: as teacher, pool, rater and judge. So that a model
 * of 1.3 million parameters can teach and judge, it has first learnt to say its few sentences. The rater has learnt
 * nothing: its weights are random, and all that makes its ratings ratings is the schema.
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, it } from "vitest";
import { generateSettings } from "../../ts/distill/generate/options";
import { userLengths } from "../../ts/distill/generate/sectors";
import {
  assistantPrompt,
  kinds,
  openingsPrompt,
  subtopicsPrompt,
  topicsPrompt,
} from "../../ts/distill/prompts/conversation";
import { Mistral, SftTrainer } from "../../ts/index";
import { buildProgram, readJson, readJsonl, smallRows } from "../shared";
import { base, type Serving, startServing } from "./serving";

const root = fileURLToPath(new URL("../..", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "zephyr-serve-pipeline-"));
const at = (...names: string[]) => join(folder, ...names);
const lines = (rows: readonly object[]) => rows.map((row) => `${JSON.stringify(row)}\n`).join("");

/** Of the judge: single answers, and second turns. */
const first = "grade.\n{question}\n{answer}";
const second = "grade.\n{question_1}\n{answer_1}\n{question_2}\n{answer_2}";

const topic = "numbers";
const subtopic = "small numbers";
const openings = ["two", "three", "five", "six", "seven", "nine", "ten"].map((word) => `tell me what ${word} is.`);
const listed = (items: readonly string[]) => items.map((item, index) => `${index + 1}. ${item}`).join("\n");

/** What the teacher is asked in a plan of one topic, and what it learns to say. */
function lessons() {
  const kind = kinds.world;
  const settings = generateSettings({ conversations: 5 });
  const { first: length } = userLengths.world;
  const plan = { kind, topic, subtopic, length, count: settings.openings, others: "" };
  const system = assistantPrompt.fill({ words: settings.sectors.world.answerWords });
  const said = (content: string, answer: string, before: object[] = []) => ({
    messages: [...before, { role: "user", content }, { role: "assistant", content: answer }],
  });
  return [
    said(topicsPrompt.fill({ kind, count: 1 }), listed([topic])),
    said(subtopicsPrompt.fill({ kind, topic, count: 1 }), listed([subtopic])),
    said(openingsPrompt.fill(plan), listed(openings)),
    ...openings.map((opening) =>
      said(opening, "it is one of the small numbers.", [{ role: "system", content: system }]),
    ),
  ];
}

let server: Serving;

/** The demo's base, tuned on rows. */
async function tuned(name: string, dataset: readonly object[], maxSteps: number): Promise<string> {
  const trainer = new SftTrainer({
    ...{ model: await Mistral.fromPretrained(base), dataset, outputDir: at(name), samples: 0 },
    ...{ maxSteps, batchSize: 8, learningRate: 3e-3, maxLength: 512 },
  } as never);
  await trainer.fit();
  return at(name, "model");
}

beforeAll(async () => {
  buildProgram();
  const { chats } = smallRows(64);
  const verdicts = chats.map(({ messages: [question, answer] }, index) => {
    const more = index % 2 === 0 ? "" : `\n${answer!.content}\n${question!.content}`;
    const content = first.replace("{question}", question!.content).replace("{answer}", answer!.content) + more;
    return {
      messages: [
        { role: "user", content },
        { role: "assistant", content: "[[7]]" },
      ],
    };
  });
  const small = await Mistral.fromPretrained(base);
  await (await Mistral.random({ ...small.config, max_position_embeddings: 8192 }, small.tokenizer, 3)).save(
    at("rater"),
  );
  const judge = await tuned("judge", verdicts, 40);
  const teacher = await tuned("teacher", lessons(), 60);
  const models = [`judge=${judge}`, `teacher=${teacher}`, `rater=${at("rater")}`, `plain=${base}`];
  server = await startServing(models.flatMap((model) => ["--model", model]));
});

afterAll(async () => {
  await server?.stop();
  rmSync(folder, { recursive: true, force: true });
});

/** Runs a command; models of the server play these roles. */
function run(command: string, roles: Record<string, string[]>, ...args: string[]) {
  const played = Object.entries(roles).flatMap(([role, models]) => [
    ...[`--${role}`, ...models.map((model) => `server:${model}`)],
    ...[`--${role}-url`, `${server.url}/v1`],
  ]);
  const words = [join(root, "dist", "cli.js"), ...command.split(" "), ...played, ...args];
  const env = { ...process.env, NO_COLOR: "1" };
  const { status, stdout, stderr } = spawnSync(process.execPath, words, { encoding: "utf8", env });
  expect(status, `${command}: ${stderr}${stdout}`).toBe(0);
  return stdout;
}

it("distil: a served teacher plans and answers", { timeout: 300_000 }, () => {
  const plan = ["--sectors", "world=1", "--topics", "1", "--subtopics", "1", "--rounds", "1", "--limit", "5"];
  const flags = ["--user-temperature", "0", "--temperature", "0", "--no-truecase", "--near-duplicates", "1"];
  const printed = run(
    "distil",
    { teacher: ["teacher"] },
    ...plan,
    ...flags,
    "--max-tokens",
    "40",
    "--out",
    at("chats"),
  );
  expect(printed).toContain("5 conversations");
  const rows = ["train_sft", "test_sft"].flatMap((split) =>
    readJsonl<{ messages: { content: string }[] }>(at("chats", `${split}.jsonl`)),
  );
  expect(rows).toHaveLength(5);
  for (const { messages } of rows) expect(openings).toContain(messages[0]!.content);
  expect(new Set(rows.map(({ messages }) => messages[0]!.content)).size).toBe(5);
});

it("rate: served models answer, and one with random weights rates by the schema", { timeout: 300_000 }, async () => {
  const prompts = openings.slice(0, 2).map((content) => ({ messages: [{ role: "user", content }] }));
  writeFileSync(at("prompts.jsonl"), lines(prompts));
  const flags = ["--answers", "2", "--max-tokens", "24", "--reasks", "0", "--raw-only", "--out", at("rated")];
  const roles = { pool: ["plain", "teacher"], rater: ["rater"] };
  const printed = run("rate", roles, "--prompts", at("prompts.jsonl"), ...flags);
  expect(printed).toContain("2 prompts rated");
  expect(readJsonl(at("rated", "failures.jsonl"))).toEqual([]);
  interface Rated {
    completions: {
      model: string;
      overall_score: number;
      critique: string;
      annotations: Record<string, { Rating: string }>;
    }[];
  }
  const rated = readJsonl<Rated>(at("rated", "raw.jsonl"));
  expect(rated).toHaveLength(2);
  for (const { completions } of rated) {
    expect(completions.map(({ model }) => model).sort()).toEqual(["plain", "teacher"]);
    for (const { overall_score, annotations } of completions) {
      expect(overall_score).toBeGreaterThanOrEqual(1);
      expect(overall_score).toBeLessThanOrEqual(10);
      const ratings = Object.values(annotations).map(({ Rating }) => Number(Rating));
      expect(ratings).toHaveLength(4);
      for (const rating of ratings) expect([1, 2, 3, 4, 5]).toContain(rating);
    }
  }
  const found = await server.metrics();
  expect(found['zephyr_answers_total{model="plain",end="length"}'] ?? 0).toBeGreaterThan(0);
  // No rating and no critique was cut.
  expect(found['zephyr_answers_total{model="rater",end="stop"}']).toBe(2 + 4);
  expect(found['zephyr_answers_total{model="rater",end="length"}']).toBeUndefined();
});

it("eval mt-bench: one served model answers, another judges", { timeout: 300_000 }, async () => {
  mkdirSync(at("bench"));
  const questions = [81, 82].map((question_id) => ({
    question_id,
    category: "writing",
    turns: ["say nine.", "say ten."],
  }));
  const judge = (name: string, prompt_template: string) => ({
    ...{ name, type: "single", system_prompt: "", prompt_template },
    ...{ description: "", category: "general", output_format: "[[rating]]" },
  });
  writeFileSync(at("bench", "question.jsonl"), lines(questions));
  const templates = [judge("single-v1", first), judge("single-v1-multi-turn", second)];
  writeFileSync(at("bench", "judge_prompts.jsonl"), lines(templates));
  const flags = [
    "--bench",
    at("bench"),
    "--max-tokens",
    "12",
    "--no-canaries",
    "--out",
    at("judged"),
    "--json",
    at("judged.json"),
  ];
  const printed = run("eval mt-bench", { model: ["plain"], judge: ["judge"] }, ...flags);
  expect(printed).toContain("judged by");
  const { figures, judge: by } = readJson<{ figures: { value: number }[]; judge: object }>(at("judged.json"));
  expect(figures[0]!.value).toBe(7);
  // The judge is known by the name that the server gave with its answers.
  expect(JSON.stringify(by)).toContain('"judge"');
  const found = await server.metrics();
  expect(found['zephyr_requests_total{path="/v1/chat/completions",status="200"}']).toBeGreaterThanOrEqual(14);
  expect(found.zephyr_requests_underway).toBe(0);
});
