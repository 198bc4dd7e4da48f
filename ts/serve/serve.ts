/** A server with OpenAI's API over models in memory. */
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { getRequestListener } from "@hono/node-server";
import { wait } from "../client/wait";
import { typeName } from "../data/messages";
import { aborted } from "../errors";
import { Mistral } from "../model/mistral";
import { optionError } from "../model/option-rules";
import { isLoopback } from "./access";
import { startProblem } from "./api-error";
import { buildApp, type RequestLog } from "./app";
import { Engine } from "./engine";
import { Metrics } from "./metrics";
import { ServedModels } from "./served-model";

/** Options of {@link serve}. */
export interface ServeOptions {
  /** Interface to listen on; `0.0.0.0` is all. @default "127.0.0.1" */
  host?: string;
  /** 0 takes a free one. @default 8080 */
  port?: number;
  /** Key that requests must bring (`Authorization: Bearer …`). @default none */
  key?: string;
  /** Listen beyond this machine without a key. @default false */
  withoutKey?: boolean;
  /** Requests that may wait while another is answered; more get a 429. @default 64 */
  queue?: number;
  /** Seconds that a request may take, waiting included. @default 600 */
  timeoutSeconds?: number;
  /** Most tokens of prompt and answer together. @default the model's own limit */
  context?: number;
  /** Most bytes of a request's body. @default 8 MiB */
  bodyBytes?: number;
  /** Origins of pages elsewhere that may ask. @default none */
  cors?: readonly string[];
  /** Called for each request when it is done; it holds nothing of what was said. */
  onRequest?: (entry: RequestLog) => void;
}

/** The port that is taken when none is named. */
export const servePort = 8080;

/** Milliseconds that connections get to end by themselves after the last answer. */
const farewell = 2000;

/** A server that listens until it is closed. */
export interface ModelServer {
  readonly url: string;
  /** Names by which requests choose. */
  readonly models: readonly string[];
  /**
   * Takes no more requests, lets those inside be answered for so many seconds, then stops them.
   *
   * @param graceSeconds @default 10
   */
  close(graceSeconds?: number): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Serves models by name at `/v1/chat/completions`, `/v1/completions`, `/v1/models`, `/health`, `/metrics`, and a page to
 * chat at `/`. A model with an adapter is served without it as well, as `NAME:base`.
 *
 * @throws ConfigError `ZA_ARGUMENT` for what are no models, `ZA_SERVE_OPEN` for an interface beyond this machine without a key, `ZA_SERVE_ADDRESS`
 */
export async function serve(
  models: Readonly<Record<string, Mistral>>,
  options: ServeOptions = {},
): Promise<ModelServer> {
  checkModels(models);
  checkOpen(options);
  const { host = "127.0.0.1", port = servePort, key, queue = 64, timeoutSeconds = 600 } = options;
  const loopback = isLoopback(host);
  const served = new ServedModels(models, options.context);
  const metrics = new Metrics();
  const engine = new Engine(queue, metrics);
  const stopping = new AbortController();
  let closing = false;
  const app = buildApp({
    models: served,
    engine,
    metrics,
    access: { loopback, key, origins: options.cors ?? [] },
    bodyBytes: options.bodyBytes ?? 8 * 2 ** 20,
    timeout: timeoutSeconds * 1000,
    stopping: stopping.signal,
    closing: () => closing,
    log: options.onRequest ?? (() => {}),
  });
  const server = createServer(getRequestListener(app.fetch, { overrideGlobalObjects: false }));
  // Longer than clients keep theirs, so that it is they who end an idle connection.
  server.keepAliveTimeout = 75_000;
  await listen(server, host, port);
  const address = server.address() as AddressInfo;
  const name = address.family === "IPv6" ? `[${address.address}]` : address.address;
  const close = async (graceSeconds = 10) => {
    if (closing) return;
    closing = true;
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    server.closeIdleConnections();
    const end = performance.now() + graceSeconds * 1000;
    while (engine.underway > 0 && performance.now() < end) await wait(20);
    stopping.abort(aborted("the server stops"));
    const patience = setTimeout(() => server.closeAllConnections(), farewell);
    while (engine.underway > 0) await wait(20);
    server.closeIdleConnections();
    await closed;
    clearTimeout(patience);
  };
  return {
    url: `http://${loopback || !/^(0\.0\.0\.0|\[::\])$/.test(name) ? name : "127.0.0.1"}:${address.port}`,
    models: served.names,
    close,
    [Symbol.asyncDispose]: () => close(),
  };
}

/** @throws ConfigError `ZA_ARGUMENT` for what plain JavaScript may give */
function checkModels(models: unknown): void {
  const remedy = "Give models by the names that requests choose them by: serve({ zephyr: model }).";
  const refused = (field: string, problem: string) => optionError("ZA_ARGUMENT", field, problem, remedy);
  if (typeof models !== "object" || models === null || models instanceof Mistral) {
    const found = models instanceof Mistral ? "a model" : typeName(models);
    throw refused("models", `expected an object of models, found ${found}`);
  }
  const entries = Object.entries(models);
  if (entries.length === 0) throw refused("models", "there is no model to serve");
  for (const [name, model] of entries) {
    if (!(model instanceof Mistral)) throw refused(`models.${name}`, `expected a model, found ${typeName(model)}`);
  }
}

/** @throws ConfigError `ZA_SERVE_OPEN` */
function checkOpen({ host = "127.0.0.1", key, withoutKey }: ServeOptions): void {
  if (isLoopback(host) || key !== undefined || withoutKey === true) return;
  throw startProblem(
    "ZA_SERVE_OPEN",
    `whoever reaches ${host} could use the models: there is no key`,
    "Give a key (--api-key-env), listen on 127.0.0.1, or say that it is meant (--without-key).",
  );
}

/**
 * Whether a server can listen so, before its models are loaded.
 *
 * @throws ConfigError `ZA_SERVE_OPEN`, `ZA_SERVE_ADDRESS`
 */
export async function checkAddress(options: ServeOptions): Promise<void> {
  checkOpen(options);
  const { host = "127.0.0.1", port = servePort } = options;
  const probe = createServer();
  await listen(probe, host, port);
  await new Promise((resolve) => probe.close(resolve));
}

async function listen(server: Server, host: string, port: number): Promise<void> {
  try {
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(port, host, resolve);
    });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const taken = code === "EADDRINUSE";
    throw startProblem(
      "ZA_SERVE_ADDRESS",
      `${host}:${port} ${taken ? "is taken" : `cannot be listened on: ${code}`}`,
      taken ? "Choose another --port; 0 takes a free one." : "Choose another --host or --port.",
    );
  }
  server.removeAllListeners("error").on("error", () => {});
}
