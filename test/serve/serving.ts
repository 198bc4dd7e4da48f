/** `zephyr-align serve` in a process of its own, and what is asked of it in several files. */
import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import OpenAI from "openai";
import { expect } from "vitest";
import { Mistral } from "../../ts/index";

const root = fileURLToPath(new URL("../..", import.meta.url));
const program = join(root, "dist", "cli.js");

/** The demo's base model. */
export const base = join(root, "recipes", "demo", "base");

/** Where chats are asked for. */
export const chat = "/v1/chat/completions";

export const say = (content: string) => [{ role: "user" as const, content }];

/** A server that runs. */
export interface Serving {
  url: string;
  child: ChildProcess;
  /** What it has written to standard error. */
  said: () => string;
  /** The client of the npm package, at this server. It never tries again by itself. */
  openai: OpenAI;
  post: (path: string, body: unknown, init?: RequestInit) => Promise<Response>;
  /** The figures of `/metrics`, by name and labels. */
  metrics: () => Promise<Record<string, number>>;
  /** Sends a signal (SIGTERM) and waits for the end; gives the exit code. */
  stop: (signal?: NodeJS.Signals) => Promise<number | null>;
}

/** Starts the built program with these flags, on a free port. */
export async function startServing(flags: readonly string[], env: Record<string, string> = {}): Promise<Serving> {
  const args = [program, "serve", "--port", "0", ...flags];
  const child = spawn(process.execPath, args, { env: { ...process.env, NO_COLOR: "1", ...env } });
  let said = "";
  child.stderr.setEncoding("utf8").on("data", (text) => {
    said += text;
  });
  const exited = new Promise<number | null>((resolve) => child.once("exit", resolve));
  const url = await new Promise<string>((resolve, reject) => {
    child.stderr.on("data", () => {
      const found = /^(http:\/\/\S+?) /m.exec(said)?.[1];
      if (found) resolve(found);
    });
    exited.then((code) => reject(new Error(`serve ended with ${code}: ${said}`)));
  });
  const key = env.ZEPHYR_SERVE_KEY;
  const authorization: Record<string, string> = key === undefined ? {} : { authorization: `Bearer ${key}` };
  return {
    url,
    child,
    said: () => said,
    openai: new OpenAI({ baseURL: `${url}/v1`, apiKey: key ?? "none", maxRetries: 0 }),
    post: (path, body, init = {}) =>
      fetch(`${url}${path}`, {
        method: "POST",
        body: typeof body === "string" ? body : JSON.stringify(body),
        ...init,
        headers: { "content-type": "application/json", ...authorization, ...init.headers },
      }),
    metrics: async () => {
      const text = await (await fetch(`${url}/metrics`, { headers: authorization })).text();
      const lines = text.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
      return Object.fromEntries(
        lines.map((line) => [line.slice(0, line.lastIndexOf(" ")), Number(line.split(" ").at(-1))]),
      );
    },
    stop: (signal = "SIGTERM") => {
      child.kill(signal);
      return exited;
    },
  };
}

/** A server of the demo's base model, under the name `demo`. */
export const startDemo = () => startServing(["--model", `demo=${base}`]);

/**
 * Saves a model with random weights and hidden states of that width that answers long enough to be caught at work, and without
 * an end: random weights rarely say the end token, greedily never.
 */
export async function saveSlow(folder: string, width: number): Promise<void> {
  const small = await Mistral.fromPretrained(base);
  const sizes = { hidden_size: width, intermediate_size: 3 * width, head_dim: width / 4 };
  const config = { ...small.config, ...sizes, max_position_embeddings: 32_768 };
  await (await Mistral.random(config, small.tokenizer, 5)).save(folder);
}

/** The events of a body, each checked to be framed as `data: …` and a blank line. */
export function eventsIn(body: string): string[] {
  const events = body.split("\n\n");
  if (events.pop() !== "") throw new Error("the last event has no blank line behind it");
  return events.map((event) => {
    if (!/^data: [^\n\r]+$/.test(event)) throw new Error(`not an event of one line: ${JSON.stringify(event)}`);
    return event.slice(6);
  });
}

/** The status of an answer, and its error object. */
export async function refusal(response: Response) {
  const { error } = (await response.json()) as {
    error: { message: string; code: string | null; param: string | null; type: string };
  };
  return { status: response.status, ...error };
}

/** Waits until the figures are as they should be. */
export async function settled(of: Serving, wanted: Record<string, number>): Promise<void> {
  await expect.poll(() => of.metrics(), { timeout: 20_000, interval: 50 }).toMatchObject(wanted);
}
