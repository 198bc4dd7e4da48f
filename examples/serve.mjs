// Serve a model with OpenAI's API, and ask it with the npm package `openai`.
// usage: node examples/serve.mjs [MODEL] [PORT]
// MODEL is a folder, a .gguf file or hf:org/name:Q4_K_M; without one it is the demo's small base. With a PORT the server stays:
// open its address in a browser to chat, point any OpenAI client at its /v1, end it with Ctrl-C.
// Run it from a clone after `npm run ready`, or with the packages zephyr-align and openai.
import { fileURLToPath } from "node:url";
import OpenAI from "openai";
import { Mistral, serve } from "zephyr-align";

const [, , source = fileURLToPath(new URL("../recipes/demo/base", import.meta.url)), port] = process.argv;
const model = await Mistral.fromPretrained(source, { quantization: "auto" });
const server = await serve({ mine: model }, { port: Number(port ?? 0) });
console.log(`${server.models.join(", ")} at ${server.url}/v1`);

const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "none" });
const messages = [{ role: "user", content: "Say nine." }];

// 1. A streamed answer.
const stream = await client.chat.completions.create({ model: "mine", messages, max_tokens: 40, seed: 7, stream: true });
for await (const { choices } of stream) process.stdout.write(choices[0]?.delta.content ?? "");
console.log();

// 2. An answer that fits a JSON schema, whatever the model would say.
const schema = {
  type: "object",
  properties: { grade: { type: "integer", minimum: 1, maximum: 10 }, reason: { type: "string", maxLength: 60 } },
  required: ["grade", "reason"],
  additionalProperties: false,
};
const graded = await client.chat.completions.create({
  model: "mine",
  messages,
  max_tokens: 100,
  response_format: { type: "json_schema", json_schema: { name: "grade", schema, strict: true } },
});
console.log(`grade ${JSON.parse(graded.choices[0].message.content).grade} of 10`);

// 3. Several answers at once are one batch.
const many = await client.chat.completions.create({ model: "mine", messages, max_tokens: 12, temperature: 1.2, n: 4 });
console.log(many.choices.map(({ message }) => JSON.stringify(message.content)).join(" "));

// 4. What cannot be honoured is refused by name, with OpenAI's error body.
try {
  await client.chat.completions.create({ model: "mine", messages, logit_bias: { 5: 100 } });
} catch (error) {
  console.log(`${error.status} ${error.code}: ${error.param}`);
}

if (port === undefined) await server.close();
else process.once("SIGINT", () => server.close());
