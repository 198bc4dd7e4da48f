/** The routes of the server. */
import { type Context, Hono } from "hono";
import { cors } from "hono/cors";
import { aborted } from "../errors";
import { type AccessRules, checkKey, checkOrigin } from "./access";
import { ApiError, apiErrorOf } from "./api-error";
import { type ChatPrompt, chatCompletion, streamChatCompletion } from "./chat-completions";
import { chatRequestOf } from "./chat-request";
import { completionRequestOf, promptIds } from "./completion-request";
import type { Engine } from "./engine";
import { eventStream } from "./event-stream";
import { Exchange, type UsageReport } from "./exchange";
import type { Metrics } from "./metrics";
import { chatPage } from "./page/chat-page";
import { jsonBody } from "./request-body";
import { answerLength, type ServedModel, type ServedModels } from "./served-model";
import { type CompletionPrompt, streamTextCompletion, textCompletion } from "./text-completions";

/** A request that was answered, refused or left, for a log. It holds nothing of what was said. */
export interface RequestLog {
  method: string;
  path: string;
  /** 499: the client left before the answer was whole. */
  status: number;
  /** The model that answered. */
  model?: string;
  promptTokens?: number;
  completionTokens?: number;
  /** What went wrong, for a fault of the server. */
  problem?: string;
  seconds: number;
}

/** What the routes work with. */
export interface AppParts {
  models: ServedModels;
  engine: Engine;
  metrics: Metrics;
  access: AccessRules;
  /** Bytes of a body at most. */
  bodyBytes: number;
  /** Milliseconds that a request may take. */
  timeout: number;
  /** Fires when the server stops answering. */
  stopping: AbortSignal;
  /** Whether the server takes no more requests. */
  closing: () => boolean;
  log: (entry: RequestLog) => void;
}

/** Paths that the metrics name; others are one. */
const paths = ["/", "/health", "/metrics", "/v1/models", "/v1/completions", "/v1/chat/completions"];

/** The client left. nginx's number; nobody receives it. */
const clientLeft = 499;

/** Builds the routes. */
export function buildApp(parts: AppParts): Hono {
  const { models, engine, metrics, access } = parts;
  const app = new Hono();
  const started = new WeakMap<Request, number>();

  app.use("*", async (c, next) => {
    started.set(c.req.raw, performance.now());
    c.header("x-content-type-options", "nosniff");
    checkOrigin(c.req.raw.headers, access);
    await next();
    // Completions are counted when they end.
    if (c.req.method !== "POST") done(c, { status: c.res.status });
  });
  if (access.origins.length > 0) {
    const allowHeaders = ["authorization", "content-type"];
    app.use("/v1/*", cors({ origin: [...access.origins], allowMethods: ["GET", "POST"], allowHeaders }));
  }
  for (const path of ["/v1/*", "/metrics"]) {
    app.use(path, async (c, next) => {
      checkKey(c.req.raw.headers, access);
      await next();
    });
  }

  const page = chatPage();
  app.get("/", (c) => {
    c.header("content-security-policy", page.policy);
    c.header("referrer-policy", "no-referrer");
    c.header("cache-control", "no-store");
    return c.html(page.html);
  });
  app.get("/health", (c) =>
    parts.closing()
      ? c.json({ status: "stopping" }, 503)
      : c.json({ status: "ok", models: models.names, underway: engine.underway }),
  );
  app.get("/metrics", (c) => {
    c.header("content-type", "text/plain; version=0.0.4; charset=utf-8");
    return c.body(metrics.render());
  });
  app.get("/v1/models", (c) => c.json({ object: "list", data: models.names.map((name) => models.card(name)) }));
  app.get("/v1/models/:name{.+}", (c) => c.json(models.card(c.req.param("name"))));

  app.post("/v1/chat/completions", async (c) => {
    const request = chatRequestOf(await jsonBody(c.req.raw, parts.bodyBytes));
    const served = models.find(request.model);
    const ids = served.model.tokenizer.encodePrompt(request.messages);
    const prompt: ChatPrompt = { ids, maxTokens: answerLength(served, ids, request.maxTokens, "messages") };
    return answered(c, served, "chatcmpl", request.stream, {
      whole: (exchange) => chatCompletion(exchange, request, prompt),
      pieces: (exchange, send) => streamChatCompletion(exchange, request, prompt, send),
    });
  });
  app.post("/v1/completions", async (c) => {
    const request = completionRequestOf(await jsonBody(c.req.raw, parts.bodyBytes));
    const served = models.find(request.model);
    const prompts = request.prompts.map((given): CompletionPrompt => {
      const ids = promptIds(served.model, given);
      return { given, ids, maxTokens: answerLength(served, ids, request.maxTokens, "prompt") };
    });
    return answered(c, served, "cmpl", request.stream, {
      whole: (exchange) => textCompletion(exchange, request, prompts),
      pieces: (exchange, send) => streamTextCompletion(exchange, request, prompts, send),
    });
  });

  app.all("*", (c) => {
    const known = paths.includes(c.req.path);
    const message = known
      ? `${c.req.path} is not asked by ${c.req.method}.`
      : `There is no ${c.req.path} here; there is ${paths.join(", ")}.`;
    if (!known) throw new ApiError(404, message, { code: "not_found" });
    const allow = c.req.path.endsWith("/completions") ? "POST" : "GET, HEAD";
    throw new ApiError(405, message, { code: "method_not_allowed", headers: { allow } });
  });
  app.onError((thrown, c) => {
    const error = apiErrorOf(thrown);
    done(c, { status: error.status, ...(error.status === 500 ? { problem: error.message } : {}) });
    return new Response(JSON.stringify(error.body()), {
      status: error.status,
      headers: { "content-type": "application/json", "x-content-type-options": "nosniff", ...error.details.headers },
    });
  });

  /** Answers a completion, whole or in pieces, within its time and for as long as somebody waits for it. */
  async function answered(
    c: Context,
    served: ServedModel,
    kind: "chatcmpl" | "cmpl",
    stream: boolean,
    make: {
      whole: (exchange: Exchange) => Promise<{ completion: object; usage: UsageReport }>;
      pieces: (exchange: Exchange, send: (event: unknown) => void) => Promise<{ usage: UsageReport }>;
    },
  ): Promise<Response> {
    if (parts.closing()) throw stops();
    const client = c.req.raw.signal;
    const timeout = AbortSignal.timeout(parts.timeout);
    const over = new AbortController();
    const signal = AbortSignal.any([client, timeout, parts.stopping, over.signal]);
    const ticket = engine.enter();
    let said = false;
    const onFirstText = () => {
      if (!said && stream) metrics.firstSeconds.observe(elapsed(c));
      said = true;
    };
    const exchange = new Exchange(engine, served, ticket, signal, kind, onFirstText);
    const finish = async <T extends { usage: UsageReport }>(work: Promise<T>): Promise<T> => {
      try {
        const made = await work;
        const { prompt_tokens: promptTokens, completion_tokens: completionTokens } = made.usage;
        metrics.promptTokens.add(promptTokens, { model: served.name });
        done(c, { status: 200, model: served.name, promptTokens, completionTokens });
        return made;
      } catch (thrown) {
        // Once a stream has begun its status is sent: what became of it is told here.
        const error = failureOf(thrown, client, timeout);
        if (stream || error.status === clientLeft)
          done(c, {
            status: error.status,
            model: served.name,
            ...(error.status === 500 ? { problem: error.message } : {}),
          });
        throw error;
      } finally {
        over.abort(aborted("the request is done"));
        ticket.leave();
      }
    };
    if (stream) return eventStream(async (send) => void (await finish(make.pieces(exchange, send))));
    const { completion } = await finish(make.whole(exchange));
    return c.json(completion);
  }

  function failureOf(thrown: unknown, client: AbortSignal, timeout: AbortSignal): ApiError {
    if (client.aborted) return new ApiError(clientLeft, "The client left.");
    if (parts.stopping.aborted) return stops();
    if (timeout.aborted) {
      return new ApiError(504, `The answer was not whole within ${parts.timeout / 1000} s.`, {
        type: "timeout_error",
        code: "timeout",
        // The same request would take as long again.
        headers: { "x-should-retry": "false" },
      });
    }
    return apiErrorOf(thrown);
  }

  function elapsed(c: Context): number {
    return (performance.now() - (started.get(c.req.raw) ?? performance.now())) / 1000;
  }

  /** Counts a request and logs it, once. */
  function done(
    c: Context,
    entry: Pick<RequestLog, "status" | "model" | "promptTokens" | "completionTokens" | "problem">,
  ): void {
    if (!started.has(c.req.raw)) return;
    const seconds = elapsed(c);
    started.delete(c.req.raw);
    const { method, path } = c.req;
    const label = paths.includes(path) ? path : path.startsWith("/v1/models/") ? "/v1/models" : "other";
    metrics.requests.add(1, { path: label, status: String(entry.status) });
    if (entry.model !== undefined) metrics.requestSeconds.observe(seconds, { path: label });
    parts.log({ method, path, seconds, ...entry });
  }

  return app;
}

function stops(): ApiError {
  return new ApiError(503, "This server is stopping.", { code: "stopping", headers: { connection: "close" } });
}
