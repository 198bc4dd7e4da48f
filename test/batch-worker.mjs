// One life of a process that has its calls made in batches; batch-kills.test.ts kills it. usage: node batch-worker.mjs JSON
import { OpenAiChat, PaidCalls } from "../dist/index.js";

const { url, journal, calls } = JSON.parse(process.argv[2]);
const batch = { maxRequests: 25, quietSeconds: 0.02, pollSeconds: 0.1, graceSeconds: 2 };
const paid = await PaidCalls.open({ journal, batch, breaker: false });
console.log("open");
const model = paid.guard(new OpenAiChat({ model: "teacher", baseUrl: url, facts: { input: 1, output: 2 } }));
const questions = Array.from({ length: calls }, (_, i) => `Question ${i}?`);
const answers = await Promise.all(
  questions.map((content) => model.complete({ messages: [{ role: "user", content }], sampling: { maxTokens: 50 } })),
);
await paid.close();
console.log(JSON.stringify(answers.map(({ text }) => text)));
