/**
 * Served models in our own pipeline, every part in a process of its own: they answer for ratings and for MT-Bench, and one
 * of them judges. So that a model of 1.3 million parameters can judge, it has first learnt to say its one verdict.
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, it } from "vitest";
import { Mistral, SftTrainer } from "../ts/index";
import { type Serving, startServing } from "./serving";
import { buildProgram, readJson, readJsonl, smallRows } from "./shared";

const root = fileURLToPath(new URL("..", import.meta.url));
const base = join(root, "recipes", "demo", "base");
const folder = mkdtempSync(join(tmpdir(), "zephyr-serve-pipeline-"));
const at = (...names: string[]) => join(folder, ...names);
const lines = (rows: readonly object[]) => rows.map((row) => `${JSON.stringify(row)}\n`).join("");

/** Of the judge: single answers, and second turns. */
const first = "grade.\n{question}\n{answer}";
const second = "grade.\n{question_1}\n{answer_1}\n{question_2}\n{answer_2}";

let server: Serving;

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
  const trainer = new SftTrainer({
    ...{ model: await Mistral.fromPretrained(base), dataset: verdicts, outputDir: at("judge"), samples: 0 },
    ...{ maxSteps: 40, batchSize: 8, learningRate: 3e-3, maxLength: 256 },
  } as never);
  await trainer.fit();
  server = await startServing(["--model", `judge=${at("judge", "model")}`, "--model", `plain=${base}`]);
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

it("rate: a pool of served models answers, several calls at once", { timeout: 300_000 }, async () => {
  const prompts = smallRows(6).chats.map(({ messages: [question] }) => ({ messages: [question!] }));
  writeFileSync(at("prompts.jsonl"), lines(prompts));
  const flags = ["--rater", "offline", "--answers", "2", "--max-tokens", "24", "--raw-only", "--out", at("rated")];
  run("rate", { pool: ["plain", "judge"] }, "--prompts", at("prompts.jsonl"), ...flags);
  const rated = readJsonl<{ completions: { model: string; response: string }[] }>(at("rated", "raw.jsonl"));
  expect(rated).toHaveLength(6);
  const said = rated.flatMap(({ completions }) => completions.map(({ model }) => model));
  expect([...new Set(said)].sort()).toEqual(["judge", "plain"]);
  expect((await server.metrics())['zephyr_answers_total{model="plain",end="length"}'] ?? 0).toBeGreaterThan(0);
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
