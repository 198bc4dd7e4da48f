import type OpenAI from "openai";
import type { APIError } from "openai";
import type { ChatCompletionCreateParams } from "openai/resources";
import { typeName } from "../data/messages";
import { aborted, ClientError, ConfigError, throwIfAborted } from "../errors";
import { failureOfConnection, failureOfServer, failureOfTime } from "./call-failure";
import type { ChatCapabilities, ChatRequest, ChatResponse } from "./chat-model";
import { readCompletion, StreamedCompletion } from "./completion";
import { factsOf, type ModelFacts, priceOf } from "./model-facts";
import type { RawAnswer, RawChatModel } from "./raw-chat-model";
import { publicAddress, Secrets, secretsInAddress } from "./secrets";
import { eventData } from "./server-sent-events";
import { ofOneCall } from "./wait";

/** Where OpenAI's own API is. */
export const openAiAddress = "https://api.openai.com/v1";

/** A model of a server. */
export interface OpenAiChatOptions {
  /** The model by the server's name for it. */
  model: string;
  /** Base address of the API; mostly it ends in `/v1`. @default "https://api.openai.com/v1" */
  baseUrl?: string;
  /** The key, if the server wants one. It is sent nowhere else and written nowhere. */
  key?: string | undefined;
  /** Price, context and abilities. @default the row of our table, if there is one */
  facts?: ModelFacts | undefined;
  /** Let the server send the answer piece by piece, even when nobody looks. For servers that think for minutes. @default false */
  stream?: boolean;
  /** Seconds for a whole answer; with `stream`, for its first piece. @default 300 */
  timeoutSeconds?: number;
  /** With `stream`: seconds without a piece after which the answer is given up. @default 120 */
  idleSeconds?: number;
}

/** What servers differ in, learnt from their refusals. */
interface Dialect {
  limit: "max_tokens" | "max_completion_tokens";
  schema: boolean;
  streamUsage: boolean;
}

/**
 * A model behind an OpenAI-compatible API: OpenAI, vLLM, Ollama, llama-server and others. One call is one request:
 * repeating, waiting and paying belong to {@link PaidCalls}, which is put around it.
 *
 * A server that does not know `response_format` is asked again in words (such a refusal is not billed); one that wants
 * `max_completion_tokens` gets it.
 */
export class OpenAiChat implements RawChatModel {
  readonly name: string;
  readonly endpoint: string;
  readonly facts?: ModelFacts;
  /** Takes the key out of whatever comes from the server. */
  readonly secrets: Secrets;
  readonly #options: OpenAiChatOptions;
  readonly #dialect: Dialect;
  readonly #address: URL;
  #client: Promise<OpenAI> | undefined;

  /** @throws ConfigError `ZA_CONFIG_INVALID` for an address that cannot be used, or without a model */
  constructor(options: OpenAiChatOptions) {
    const model: unknown = options?.model;
    if (typeof model !== "string" || model === "") {
      throw new ConfigError("ZA_CONFIG_INVALID", `the model is ${model === "" ? "empty" : typeName(model)}`, {
        place: { field: "model" },
        remedy: 'Give its name as the server knows it: new OpenAiChat({ model: "gpt-4o-mini" }).',
      });
    }
    const address = addressOf(options.baseUrl ?? openAiAddress);
    this.name = model;
    this.endpoint = publicAddress(address);
    const facts = options.facts ?? factsOf(model);
    if (facts) this.facts = facts;
    this.secrets = new Secrets([options.key, ...secretsInAddress(address)]);
    this.#options = options;
    this.#dialect = { limit: facts?.limit ?? "max_tokens", schema: facts?.schema ?? true, streamUsage: true };
    this.#address = address;
  }

  get capabilities(): ChatCapabilities {
    const { topLogprobs = 20, system = true } = this.facts ?? {};
    return { topLogprobs, schema: this.#dialect.schema, system };
  }

  /** The npm package's client, loaded when it is first needed: that takes a while, and most commands ask nobody. */
  client(): Promise<OpenAI> {
    this.#client ??= clientOf(this.#address, this.#options.key);
    return this.#client;
  }

  async complete(request: ChatRequest): Promise<ChatResponse> {
    const { body } = await this.send(request);
    const completion = readCompletion(body);
    const cost = this.facts && completion.usage ? priceOf(this.facts, completion.usage) : null;
    return { ...completion, model: completion.model || this.name, cost, journalled: false };
  }

  async send(request: ChatRequest, clientId?: string): Promise<RawAnswer> {
    for (let adaptations = 0; ; adaptations++) {
      throwIfAborted(request.signal);
      try {
        return await this.#sendOnce(request, clientId);
      } catch (error) {
        if (adaptations > 2 || !(error instanceof ClientError) || !this.#adapt(error, request)) throw error;
      }
    }
  }

  /** The body of a request, as it goes over the wire or into a batch. */
  body(request: ChatRequest): ChatCompletionCreateParams {
    const { sampling, sampleIndex = 0 } = request;
    const { schema, topLogprobs } = sampling;
    const inWords = schema !== undefined && !this.#dialect.schema;
    const messages = inWords ? withSchemaInWords(request.messages, schema.schema) : request.messages;
    return {
      model: this.name,
      messages: messages.map(({ role, content }) => ({ role, content })),
      [this.#dialect.limit]: sampling.maxTokens,
      ...(sampling.temperature === undefined ? {} : { temperature: sampling.temperature }),
      ...(sampling.topP === undefined ? {} : { top_p: sampling.topP }),
      ...(sampling.stop && sampling.stop.length > 0 ? { stop: [...sampling.stop] } : {}),
      // Draws that must differ may not share a seed.
      ...(sampling.seed === undefined ? {} : { seed: sampling.seed + sampleIndex }),
      ...(topLogprobs === undefined ? {} : { logprobs: true, top_logprobs: topLogprobs }),
      ...(schema && !inWords
        ? { response_format: { type: "json_schema", json_schema: { ...schema, strict: true } } }
        : {}),
    };
  }

  async #sendOnce(request: ChatRequest, clientId: string | undefined): Promise<RawAnswer> {
    const { timeoutSeconds = 300, idleSeconds = 120 } = this.#options;
    const stream = this.#options.stream === true || request.onToken !== undefined;
    const client = await this.client();
    const timer = new Timer(request.signal);
    try {
      timer.set(timeoutSeconds, stream ? "no piece of an answer" : "no answer");
      const usage = stream && this.#dialect.streamUsage ? { stream_options: { include_usage: true } } : {};
      const response = await client.chat.completions
        .create({ ...this.body(request), ...(stream ? { stream } : {}), ...usage } as ChatCompletionCreateParams, {
          signal: timer.signal,
          ...(clientId === undefined ? {} : { headers: { "X-Client-Request-Id": clientId } }),
        })
        .asResponse();
      // A server that cannot stream answers in one piece.
      const streamed = stream && response.headers.get("content-type")?.startsWith("text/event-stream");
      const body = streamed
        ? await this.#assemble(response, request, () => timer.set(idleSeconds, "no further piece of the answer"))
        : await response.text();
      const requestId = response.headers.get("x-request-id");
      return {
        body: this.secrets.inAnswer(body),
        status: response.status,
        ...(requestId === null ? {} : { requestId: this.secrets.inError(requestId) }),
      };
    } catch (error) {
      throw this.failure(error, timer);
    } finally {
      timer.clear();
    }
  }

  /** Puts a stream together; each piece that comes gives the next one its time. */
  async #assemble(response: Response, request: ChatRequest, pieceCame: () => void): Promise<string> {
    const whole = new StreamedCompletion();
    const bytes = response.body as unknown as AsyncIterable<Uint8Array>;
    for await (const data of eventData(watched(bytes, pieceCame))) {
      if (data.startsWith("[DONE]")) break;
      const chunk = parsedChunk(data);
      if (chunk === undefined) continue;
      if (isErrorChunk(chunk)) {
        const { code, type, message = JSON.stringify(chunk.error) } = chunk.error;
        throw failureOfServer({ code, type, message: String(message), headers: response.headers });
      }
      const piece = whole.add(chunk);
      if (piece !== "") request.onToken?.(this.secrets.inAnswer(piece));
    }
    if (!whole.finished) throw new Error("the stream ended before the answer did");
    return whole.body();
  }

  /** Any failure of a request to this server, typed, and free of keys. */
  failure(thrown: unknown, timer?: Timer): ClientError | Error {
    if (timer?.expired) return failureOfTime(this.endpoint, timer.expired.seconds, timer.expired.what);
    if (timer?.aborted) return aborted(timer.reason);
    const failure =
      thrown instanceof ClientError
        ? thrown
        : isServerError(thrown)
          ? failureOfServer({
              status: thrown.status,
              code: thrown.code,
              type: thrown.type,
              message: messageOf(thrown),
              headers: thrown.headers,
              requestId: thrown.requestID,
            })
          : failureOfConnection(thrown, this.endpoint);
    return this.#clean(failure);
  }

  /** The same error without keys. Its cause stays behind: it holds headers and bodies as the server wrote them. */
  #clean({ code, problem, remedy, place, call }: ClientError): ClientError {
    const hide = (text: string) => this.secrets.inError(text);
    return new ClientError(code, hide(problem), {
      ...(remedy ? { remedy } : {}),
      ...(place ? { place } : {}),
      ...(call
        ? {
            call: {
              ...call,
              ...(call.body === undefined ? {} : { body: this.secrets.inAnswer(call.body) }),
              ...(call.providerCode === undefined ? {} : { providerCode: hide(call.providerCode) }),
              ...(call.requestId === undefined ? {} : { requestId: hide(call.requestId) }),
            },
          }
        : {}),
    });
  }

  /** Learns from a refusal how this server wants to be asked. @returns whether asking again makes sense */
  #adapt(error: ClientError, request: ChatRequest): boolean {
    if (error.code !== "ZA_CLIENT_REFUSED") return false;
    const says = error.problem;
    const dialect = this.#dialect;
    if (dialect.limit === "max_tokens" && /max_completion_tokens/.test(says)) {
      dialect.limit = "max_completion_tokens";
      return true;
    }
    if (
      request.sampling.schema &&
      dialect.schema &&
      /response_format|json_schema|structured|grammar|schema/i.test(says)
    ) {
      dialect.schema = false;
      return true;
    }
    if (dialect.streamUsage && /stream_options|include_usage/.test(says)) {
      dialect.streamUsage = false;
      return true;
    }
    return false;
  }
}

/** The base address, with the parameters that every request carries. */
function addressOf(text: string): URL {
  let address: URL;
  try {
    address = new URL(text);
  } catch {
    throw new ConfigError("ZA_CONFIG_INVALID", "the server's address is no URL", {
      place: { field: "baseUrl" },
      remedy: `Write it whole, for example ${openAiAddress} or http://localhost:8000/v1.`,
    });
  }
  if (address.protocol === "http:" || address.protocol === "https:") return address;
  throw new ConfigError("ZA_CONFIG_INVALID", `the server's address has the protocol ${address.protocol}`, {
    place: { field: "baseUrl" },
    remedy: "Take http or https.",
  });
}

/** Whether the npm package's error holds a server's words; without them the connection failed. */
function isServerError(thrown: unknown): thrown is APIError {
  if (!(thrown instanceof Error) || !("requestID" in thrown)) return false;
  const { status, error } = thrown as APIError;
  return status !== undefined || error !== undefined;
}

async function clientOf(address: URL, key: string | undefined): Promise<OpenAI> {
  const { OpenAI } = await import("openai");
  const own = address.origin === new URL(openAiAddress).origin;
  const basic = address.username || address.password ? basicAuthorization(address) : undefined;
  const authorization = basic ?? (key === undefined || key === "" ? null : `Bearer ${key}`);
  return new OpenAI({
    apiKey: key || "none",
    baseURL: `${address.origin}${address.pathname.replace(/\/+$/, "")}`,
    defaultQuery: Object.fromEntries(address.searchParams),
    defaultHeaders: { Authorization: authorization },
    // What the environment says of OpenAI's organisation is nobody else's business.
    ...(own ? {} : { organization: null, project: null }),
    maxRetries: 0,
    // Times are ours (Timer): this one ends with the headers.
    timeout: 2 ** 31 - 1,
    logLevel: "off",
    fetch: async (url, init) => withErrorObject(await fetch(url, init)),
  });
}

function basicAuthorization(address: URL): string {
  const pair = `${decodeURIComponent(address.username)}:${decodeURIComponent(address.password)}`;
  return `Basic ${Buffer.from(pair).toString("base64")}`;
}

/**
 * Some servers write `{"detail": …}` or `{"message": …}` where the npm package looks for `error`, and their words would be
 * lost.
 */
async function withErrorObject(response: Response): Promise<Response> {
  if (response.ok) return response;
  const text = await response.text();
  const { status, headers } = response;
  let error: unknown;
  try {
    const parsed = JSON.parse(text);
    const { error: inside, detail, message = detail, code, type } = Object(parsed);
    if (typeof inside === "object" && inside !== null) error = inside;
    else
      error = { message: textOf(inside ?? message ?? text), code: typeof code === "string" ? code : undefined, type };
  } catch {
    error = { message: text.length > 500 ? `${text.slice(0, 500)}…` : text || "(no text)" };
  }
  const kept = new Headers(headers);
  for (const name of ["content-length", "content-encoding", "transfer-encoding"]) kept.delete(name);
  return new Response(JSON.stringify({ error }), { status, headers: kept });
}

function textOf(value: unknown): string {
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** The server's own words. The package puts the status before them, which is added where it is wanted. */
function messageOf({ status, message, error }: APIError): string {
  const own = (error as { message?: unknown } | undefined)?.message;
  if (typeof own === "string") return own;
  return status !== undefined && message.startsWith(`${status} `) ? message.slice(String(status).length + 1) : message;
}

function withSchemaInWords(messages: ChatRequest["messages"], schema: object): ChatRequest["messages"] {
  const words = `Answer with one JSON value and nothing else. It must fit this JSON schema: ${JSON.stringify(schema)}`;
  const last = messages.at(-1);
  if (last?.role !== "user") return [...messages, { role: "user", content: words }];
  return [...messages.slice(0, -1), { role: "user", content: `${last.content}\n\n${words}` }];
}

function parsedChunk(data: string): unknown {
  try {
    return JSON.parse(data);
  } catch {
    // The last one was cut off; the answer is then unfinished, and that is found at the end.
    return undefined;
  }
}

function isErrorChunk(chunk: unknown): chunk is { error: { code?: unknown; type?: unknown; message?: unknown } } {
  const error = (chunk as { error?: unknown } | null)?.error;
  return typeof error === "object" && error !== null;
}

async function* watched(bytes: AsyncIterable<Uint8Array>, seen: () => void): AsyncGenerator<Uint8Array> {
  for await (const piece of bytes) {
    seen();
    yield piece;
  }
}

/** A signal that fires when the user's does, or when a time is up that can be set anew. */
class Timer {
  readonly signal: AbortSignal;
  readonly #controller = new AbortController();
  readonly #user: AbortSignal | undefined;
  #timer: NodeJS.Timeout | undefined;
  expired: { seconds: number; what: string } | undefined;

  constructor(user: AbortSignal | undefined) {
    this.#user = user;
    this.signal = user ? ofOneCall(user, this.#controller.signal) : this.#controller.signal;
  }

  get aborted(): boolean {
    return this.#user?.aborted ?? false;
  }

  get reason(): unknown {
    return this.#user?.reason;
  }

  set(seconds: number, what: string): void {
    clearTimeout(this.#timer);
    const ring = () => {
      this.expired = { seconds, what };
      this.#controller.abort();
    };
    this.#timer = setTimeout(ring, Math.min(seconds * 1000, 2 ** 31 - 1));
  }

  clear(): void {
    clearTimeout(this.#timer);
  }
}
