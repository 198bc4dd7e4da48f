// A logger of your own: sends every logged step to an HTTP address. usage: node examples/wandb-logger.mjs URL
// For Weights & Biases put its client in the place of `post`: start → wandb.init, log → run.log, end → run.finish.
import { fileURLToPath } from "node:url";
import { Mistral, SftTrainer } from "zephyr-align";

/** Posts the start, each line and the end as JSON. What it throws becomes a warning; the run goes on. */
function httpLogger(url, headers = {}) {
  const post = async (path, body) => {
    const response = await fetch(new URL(path, url), {
      method: "POST",
      headers: { "content-type": "application/json", ...headers },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(5000),
    });
    if (!response.ok) throw new Error(`${url} answers ${response.status}`);
  };
  return {
    name: "http",
    start: (run) => post("start", run),
    log: (step, metrics) => post("log", { step, ...metrics }),
    end: () => post("end", {}),
  };
}

const url = process.argv[2];
if (!url) throw new Error("usage: node examples/wandb-logger.mjs URL");
const say = (question, answer) => ({
  messages: [
    { role: "user", content: question },
    { role: "assistant", content: answer },
  ],
});
const model = await Mistral.fromPretrained(fileURLToPath(new URL("../recipes/demo/base", import.meta.url)));
const dataset = [say("what is two plus five?", "two plus five is seven."), say("say nine.", "nine.")];
const trainer = new SftTrainer({ model, dataset, maxSteps: 10, logSteps: 2, loggers: [httpLogger(url)] });
const { metrics } = await trainer.fit();
console.log(`loss ${metrics.loss.toFixed(3)} after ${metrics.step} steps`);
