// Fine-tune, align and ask a model, from a script. usage: node examples/align.mjs [MODEL_FOLDER]
// Without a folder it takes the demo's small base model. Run it from a clone after `npm run ready`, or with the package.
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { DpoTrainer, Mistral, SftTrainer } from "zephyr-align";

const folder = process.argv[2] ?? fileURLToPath(new URL("../recipes/demo/base", import.meta.url));
const out = mkdtempSync(join(tmpdir(), "align-example-"));
const ask = (content) => ({ role: "user", content });
const say = (content) => ({ role: "assistant", content });

const conversations = [
  ["what is two plus five?", "two plus five is seven."],
  ["what is one plus three?", "one plus three is four."],
  ["what is six plus two?", "six plus two is eight."],
];
const pairs = conversations.map(([question, right]) => ({
  prompt: [ask(question)],
  chosen: [say(right)],
  rejected: [say("the hat is red.")],
}));

// 1. dSFT: the loss stands on the assistant's tokens only.
const model = await Mistral.fromPretrained(folder);
const sft = new SftTrainer({
  model,
  dataset: conversations.map(([question, answer]) => ({ messages: [ask(question), say(answer)] })),
  learningRate: 1e-3,
  maxSteps: 10,
  logSteps: 5,
});
const fitted = sft.fit();
for await (const event of sft) {
  if (event.type === "step") console.log(`dSFT step ${event.step}: loss ${event.metrics.loss.toFixed(3)}`);
}
await fitted;

// 2. dDPO: the reference is the model as it is now; its log-probabilities are computed once.
const dpo = new DpoTrainer({ policy: model, dataset: pairs, beta: 0.1, learningRate: 1e-4, maxSteps: 5, logSteps: 5 });
const { metrics } = await dpo.fit();
console.log(`dDPO: margins ${metrics["rewards/margins"].toFixed(3)}`);

// 3. Save, load, ask; the answer streams.
await model.save(join(out, "aligned"));
const aligned = await Mistral.fromPretrained(join(out, "aligned"));
for await (const piece of aligned.stream([ask("what is two plus five?")], { maxTokens: 16 }))
  process.stdout.write(piece);
console.log(`\nsaved in ${join(out, "aligned")}`);
