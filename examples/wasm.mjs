// Ask a model through WebAssembly, without the native addon: the code that runs in a web page, in Node.
// usage: node examples/wasm.mjs [MODEL.gguf | FOLDER] [QUESTION]
// Without a model it takes the demo's small base. Run it from a clone after `npm run build:wasm`, or with the package.
import { pathToFileURL } from "node:url";
import { Mistral } from "zephyr-align/browser";

const [path, question = "what is two plus five?"] = process.argv.slice(2);
const source = path ? pathToFileURL(path) : new URL("../recipes/demo/base", import.meta.url);
const messages = [{ role: "user", content: question }];

const model = await Mistral.fromPretrained(source);
console.log(`${model.source}: ${(model.parameters / 1e6).toFixed(1)} M parameters, ${model.storage}`);
for await (const piece of model.stream(messages, { maxTokens: 48 })) process.stdout.write(piece);

const { answerLogprob, answerTokens } = await model.score([
  ...messages,
  { role: "assistant", content: "it is seven." },
]);
console.log(`\n"it is seven." has ${answerTokens} tokens and log-probability ${answerLogprob.toFixed(2)}`);
console.log(`WebAssembly took ${((await model.memoryBytes()) / 1e6).toFixed(0)} MB`);
model.dispose();
