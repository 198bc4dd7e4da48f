/** `zephyr-align serve`: OpenAI's API over models of this machine, and a page to chat. */
import { existsSync } from "node:fs";
import { basename, resolve } from "node:path";
import type { Command } from "commander";
import { aborted } from "../errors";
import { isRepositoryId } from "../hub/repository";
import { Mistral } from "../model/mistral";
import { whole } from "../report/format";
import type { RequestLog } from "../serve";
import { checkAddress, serve, servePort } from "../serve/serve";
import { wholeNumber } from "./arguments";
import { templateOf, usageProblem } from "./config-options";
import { interruptible } from "./interrupt";
import { addLoadingOptions, type LoadingFlags, loadingToUse } from "./loading";
import { styleOf } from "./style";

interface ServeFlags extends LoadingFlags {
  model: string[];
  adapter?: string;
  template?: string;
  host: string;
  port: number;
  apiKeyEnv?: string;
  withoutKey?: boolean;
  queue: number;
  timeout: number;
  context?: number;
  maxBody: number;
  cors?: string[];
  grace: number;
  quiet?: boolean;
}

const collect = (text: string, before: string[] = []) => [...before, text];

/** Adds `serve`. */
export function addServe(program: Command): void {
  const command = program
    .command("serve")
    .helpGroup("Use and judge:")
    .description("Serve models with OpenAI's API, and a page to chat.")
    .requiredOption(
      "--model <name=path>",
      "Model: a folder in Hugging Face's layout, or a GGUF file; with a name for requests. Repeatable.",
      collect,
    )
    .option("--adapter <folder>", "LoRA adapter over the model, as PEFT writes it; without it the model is NAME:base.");
  addLoadingOptions(command)
    .option("--template <name|file>", "Chat template: model, zephyr, or a Jinja file.", "model")
    .optionsGroup("Network:")
    .option("--host <address>", "Interface to listen on; beyond this machine a key is needed.", "127.0.0.1")
    .option("--port <n>", "Port; 0 takes a free one.", wholeNumber(0, 65_535), servePort)
    .option("--api-key-env <name>", "Environment variable with the key that requests must bring. (default: no key)")
    .option("--without-key", "Listen beyond this machine without a key.")
    .option("--cors <origin...>", "Pages elsewhere that may ask, for example https://example.com. (default: none)")
    .optionsGroup("Limits:")
    .option("--queue <n>", "Requests that wait while another is answered; more get a 429.", wholeNumber(0), 64)
    .option("--timeout <seconds>", "Longest time of a request, waiting included.", wholeNumber(1), 600)
    .option("--context <n>", "Most tokens of prompt and answer together. (default: the model's)", wholeNumber(2))
    .option("--max-body <mib>", "Largest body of a request.", wholeNumber(1), 8)
    .option("--grace <seconds>", "Time for requests inside when the server is stopped.", wholeNumber(0), 10)
    .option("--quiet", "No line for each model and request.")
    .addHelpText(
      "after",
      `
Examples:
  $ zephyr-align serve --model runs/dpo/model
  $ zephyr-align serve --model zephyr=base --adapter runs/dpo/adapter     zephyr, and zephyr:base without the adapter
  $ zephyr-align serve --model old=runs/sft/model --model new=runs/dpo/model --port 9000
  $ curl localhost:9000/v1/chat/completions -H content-type:application/json \\
      -d '{"model": "new", "messages": [{"role": "user", "content": "Name three trees."}]}'

The page is at /, the API at /v1, figures at /metrics: docs/serve.md.`,
    )
    .action((flags: ServeFlags) => interruptible((signal) => run(flags, signal)));
}

async function run(flags: ServeFlags, signal: AbortSignal): Promise<void> {
  const key = keyOf(flags);
  const { host, port, withoutKey, queue, timeout, context, maxBody, cors, grace, quiet } = flags;
  const address = {
    ...{ host, port },
    ...(key === undefined ? {} : { key }),
    ...(withoutKey === undefined ? {} : { withoutKey }),
  };
  // Loading may take minutes.
  await checkAddress(address);
  const models = await load(flags, signal);
  const server = await serve(models, {
    ...address,
    ...{ queue, timeoutSeconds: timeout, bodyBytes: maxBody * 2 ** 20 },
    ...(context === undefined ? {} : { context }),
    ...(cors === undefined ? {} : { cors }),
    ...(quiet ? {} : { onRequest: (entry: RequestLog) => process.stderr.write(`${lineOf(entry)}\n`) }),
  });
  const { bold, dim } = styleOf(process.stderr);
  const api = `${server.url}/v1`;
  process.stderr.write(`${bold(server.url.padEnd(api.length))}  ${dim(`to chat with ${server.models.join(", ")}`)}\n`);
  process.stderr.write(`${bold(api)}  ${dim("OpenAI's API; Ctrl-C ends the server")}\n`);
  await new Promise<void>((resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener("abort", () => resolve(), { once: true });
  });
  await server.close(grace);
}

function keyOf({ apiKeyEnv }: ServeFlags): string | undefined {
  if (apiKeyEnv === undefined) return undefined;
  const key = process.env[apiKeyEnv];
  if (key) return key;
  throw usageProblem(
    "--api-key-env",
    `the environment has no ${apiKeyEnv}`,
    "Set it to the key that requests must bring.",
  );
}

/** Loads the models of the flags, by name. */
async function load(flags: ServeFlags, signal: AbortSignal): Promise<Record<string, Mistral>> {
  const { model: given, adapter, template } = flags;
  if (adapter !== undefined && given.length > 1) {
    const remedy = "Give one --model, or the adapters' own folders as models.";
    throw usageProblem("--adapter", `there are ${given.length} models to put it over`, remedy);
  }
  const sources = new Map<string, string>();
  for (const each of given) {
    const [name, path] = namedPath(each);
    if (sources.has(name)) {
      throw usageProblem("--model", `two models have the name ${name}`, `Give them names: --model ${name}-2=${path}.`);
    }
    sources.set(name, path);
  }
  const jinja = templateOf(template ?? "model");
  const options = { ...loadingToUse(flags), ...(adapter === undefined ? {} : { adapter }) };
  const models: Record<string, Mistral> = {};
  const { dim } = styleOf(process.stderr);
  for (const [name, path] of sources) {
    if (signal.aborted) throw aborted(signal.reason);
    if (!flags.quiet) process.stderr.write(`${dim(`loading ${name}`)}\n`);
    models[name] = (await Mistral.fromPretrained(path, options)).withTemplate(jinja);
  }
  return models;
}

/** `NAME=PATH`, or a path whose last part is the name. */
function namedPath(text: string): [name: string, path: string] {
  const at = text.indexOf("=");
  if (at > 0 && !existsSync(text) && !/[\\/]/.test(text.slice(0, at))) return [text.slice(0, at), text.slice(at + 1)];
  const name = !existsSync(text) && isRepositoryId(text) ? text : basename(resolve(text)).replace(/\.gguf$/i, "");
  return [name, text];
}

function lineOf({ method, path, status, model, promptTokens, completionTokens, problem, seconds }: RequestLog): string {
  const { dim, red } = styleOf(process.stderr);
  const tokens =
    completionTokens === undefined ? "" : ` ${whole(promptTokens ?? 0)} + ${whole(completionTokens)} tokens`;
  const code = status < 400 ? String(status) : red(String(status));
  return `${dim(new Date().toISOString().slice(11, 19))} ${method} ${path} ${code}${model ? ` ${model}` : ""}${tokens} ${dim(`${seconds.toFixed(2)} s`)}${problem ? ` ${red(problem)}` : ""}`;
}
