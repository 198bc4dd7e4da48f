/**
 * One measurement of our trainer, in a process of its own so that the peak memory is that of this run alone.
 * Prints one JSON line. Started by train.mjs, shared-prompt.mjs and memory.mjs.
 *
 * usage: node bench/measure.mjs '{"method":"sft"|"dpo","model":FOLDER,"rows":FILE,"steps":4,"batch":2,"maxLength":384,"threads":2,"precompute":true,"sharedPrompt":true,"lora":{"rank":16}}'
 */
import { DpoTrainer, Mistral, SftTrainer } from "../dist/index.js";

const job = JSON.parse(process.argv[2]);
const model = await Mistral.fromPretrained(job.model, job.load ?? {});
// Rows stay in the file's order and are cut as TRL cuts them: the same tokens at the same step.
const options = {
  dataset: job.rows,
  batchSize: job.batch,
  maxSteps: job.steps,
  maxLength: job.maxLength,
  threads: job.threads,
  learningRate: 5e-6,
  shuffle: false,
  logSteps: 1,
  truncation: "keep-start",
  answerEnd: "turn",
  specialsInContent: "parse",
  ...(job.recompute ? { recompute: job.recompute } : {}),
  ...(job.lora ? { lora: job.lora } : {}),
};
const trainer =
  job.method === "sft"
    ? new SftTrainer({ model, lossOn: "all", ...options })
    : new DpoTrainer({
        policy: model,
        beta: 0.1,
        precomputeRefLogps: job.precompute,
        sharedPrompt: job.sharedPrompt ?? true,
        ...options,
      });

/** Clock readings in milliseconds: the start event, then the end of each step. */
const marks = [];
const steps = [];
let predicted = 0;
async function watch() {
  for await (const event of trainer) {
    if (event.type !== "start" && event.type !== "step") continue;
    marks.push(performance.now());
    if (event.type === "start") predicted = event.supervisedTokens;
    if (event.type === "step") steps.push(event);
  }
}
await Promise.all([watch(), trainer.fit()]);

const total = steps.map(({ metrics }) => metrics.num_tokens);
const tokens = total.map((sum, index) => sum - (total[index - 1] ?? 0));
// The trainer's own clock starts after the reference was scored; what lies before is that work.
const firstStep = tokens[0] / steps[0].tokensPerSecond;
const seconds = marks.slice(1).map((mark, index) => (index === 0 ? firstStep : (mark - marks[index]) / 1000));
const sum = (values) => values.reduce((all, value) => all + value, 0);
console.log(
  JSON.stringify({
    tokens,
    predicted_tokens: predicted,
    computed_tokens: steps.map(({ metrics }) => metrics.computed_tokens),
    seconds,
    tokens_per_s: sum(tokens.slice(1)) / sum(seconds.slice(1)),
    precompute_seconds: Math.max(0, (marks[1] - marks[0]) / 1000 - firstStep),
    peak_rss_mib: process.resourceUsage().maxRSS / 1024,
    loss: steps.map(({ metrics }) => metrics.loss),
  }),
);
