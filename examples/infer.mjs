// Ask a model in this process: an answer, a stream, a conversation's log-probabilities, a batch.
// usage: node examples/infer.mjs [MODEL] [QUESTION]
// MODEL is a folder in Hugging Face's layout, a .gguf file (kept in its own 4 to 8 bits), or hf:org/name:Q4_K_M. Without one it
// is the demo's small base. Run it from a clone after `npm run ready`, or with the package.
import { fileURLToPath } from "node:url";
import { Mistral } from "zephyr-align";

const [, , source = fileURLToPath(new URL("../recipes/demo/base", import.meta.url)), question = "Say nine."] =
  process.argv;
const model = await Mistral.fromPretrained(source, { quantization: "auto" });
console.log(`${model.source}: ${model.parameters.toLocaleString("en")} parameters, weights ${model.storage}`);

// 1. A whole answer. Temperature 0 always takes the likeliest token.
const messages = [{ role: "user", content: question }];
const answer = await model.generate(messages, { maxTokens: 40, temperature: 0 });
console.log(`\n${answer.text}\n  (${answer.ids.length} tokens, ended by ${answer.finishReason})`);

// 2. In pieces, as they come. Leaving the loop, or the signal, stops the work.
const sampling = { maxTokens: 40, temperature: 0.8, topP: 0.95, seed: 7, signal: AbortSignal.timeout(60_000) };
for await (const piece of model.stream(messages, sampling)) process.stdout.write(piece);
console.log();

// 3. How likely the model finds a given answer: log-probabilities in nats, of the assistant's tokens alone.
for (const content of ["Nine.", "Never."]) {
  const { answerLogprob, answerTokens } = await model.score([...messages, { role: "assistant", content }]);
  console.log(`${content.padEnd(6)} log-probability ${answerLogprob.toFixed(2)} over ${answerTokens} tokens`);
}

// 4. Many at once: the weights are read once a step for all of them, and whoever is done makes room for the next.
const questions = ["Say one.", "Say two.", "Say ten."];
const answers = await model.generateBatch(
  questions.map((content) => [{ role: "user", content }]),
  { maxTokens: 12 },
);
for (const [index, { text }] of answers.entries()) console.log(`${questions[index]} → ${JSON.stringify(text)}`);

// 5. The weights' memory goes back now, not when the garbage collector finds them.
model.dispose();
