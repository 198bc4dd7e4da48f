// The scripted server: an OpenAI-compatible API that counts what it bills and fails on command. README.md says how.
// usage: node server.mjs '{"folder": …, …}'     prints {"port": …} when it listens; ends when standard input closes
import { createHash } from "node:crypto";
import { appendFileSync, mkdirSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import defaultAnswer from "./answer.mjs";
import { batchRoutes } from "./batches.mjs";

const {
  folder,
  port = 0,
  answer: answerPath,
  key,
  models = ["teacher", "judge"],
  seed = 1,
  ...initial
} = JSON.parse(process.argv[2] ?? "{}");
mkdirSync(folder, { recursive: true });
const answer = answerPath === undefined ? defaultAnswer : (await import(pathToFileURL(answerPath).href)).default;
const settings = { rates: {}, faults: {}, price: { input: 1, output: 2 }, batch: {}, ...initial };
let scripted = [];
let underWay = 0;
let recent = [];
const random = randomOf(seed);

/** Written at once, so that it survives this process too. */
function log(name, line) {
  appendFileSync(join(folder, name), `${JSON.stringify({ at: Date.now(), ...line })}\n`);
}

function hashOf(value) {
  return createHash("sha256").update(JSON.stringify(value)).digest("hex");
}

/** What tells requests apart: all but how the answer is delivered. */
function keyOf({ stream: _, stream_options: __, ...asked }) {
  return hashOf(asked);
}

function questionOf({ messages }) {
  return String(messages.at(-1)?.content).slice(0, 80);
}

/** Numbers in [0, 1) that a seed repeats (mulberry32). */
function randomOf(start) {
  let state = start;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const tokensOf = (text) => Math.ceil(Buffer.byteLength(text) / 4);
const wait = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** The completion for a request, and what it costs. */
async function complete(body, share = 1, sent = {}) {
  const made = await answer(body, sent);
  const given = typeof made === "string" ? { text: made } : made;
  const most = body.max_completion_tokens ?? body.max_tokens ?? 4096;
  let { text, finishReason = "stop" } = given;
  if (tokensOf(text) > most) {
    text = Buffer.from(text)
      .subarray(0, most * 4)
      .toString("utf8")
      .replace(/\ufffd+$/, "");
    finishReason = "length";
  }
  const promptTokens =
    given.usage?.promptTokens ?? body.messages.reduce((sum, { content }) => sum + tokensOf(content) + 4, 3);
  const completionTokens = given.usage?.completionTokens ?? tokensOf(text);
  const logprobs =
    body.logprobs && !settings.noLogprobs
      ? { content: (given.logprobs ?? wordsOf(text, body.top_logprobs ?? 0)).map(wireLogprob) }
      : null;
  return {
    completion: {
      id: `chatcmpl-${hashOf([body, text]).slice(0, 12)}`,
      object: "chat.completion",
      created: Math.floor(Date.now() / 1000),
      model: `${body.model}-2026-01-01`,
      choices: [{ index: 0, message: { role: "assistant", content: text }, finish_reason: finishReason, logprobs }],
      usage: {
        prompt_tokens: promptTokens,
        completion_tokens: completionTokens,
        total_tokens: promptTokens + completionTokens,
      },
    },
    promptTokens,
    completionTokens,
    dollars: (share * (promptTokens * settings.price.input + completionTokens * settings.price.output)) / 1e6,
  };
}

function wireLogprob({ token, logprob, top = [] }) {
  return { token, logprob, bytes: [...Buffer.from(token)], top_logprobs: top };
}

function wordsOf(text, count) {
  return (text.match(/\s*\S+/g) ?? []).map((token) => ({
    token,
    logprob: -0.1,
    top: Array.from({ length: count }, (_, i) => ({ token: i === 0 ? token : `${token}${i}`, logprob: -0.1 - i })),
  }));
}

function bill(body, id, made, more = {}) {
  const { promptTokens, completionTokens, dollars } = made;
  const asked = { key: keyOf(body), id, question: questionOf(body), model: body.model };
  log("billed.jsonl", { ...asked, promptTokens, completionTokens, dollars, ...more });
}

function send(response, status, value, headers = {}) {
  response.writeHead(status, { "content-type": "application/json", "x-request-id": `req-${Date.now()}`, ...headers });
  response.end(JSON.stringify(value));
}

function sendError(response, status, message, code, headers = {}) {
  send(response, status, { error: { message, type: code ?? "error", param: null, code: code ?? null } }, headers);
}

function nextFault() {
  const [first] = scripted;
  if (first) {
    first.times = (first.times ?? 1) - 1;
    if (first.times <= 0) scripted.shift();
    return first;
  }
  let chance = random();
  for (const [fault, rate] of Object.entries(settings.rates)) {
    if (chance < rate) return { fault, ...settings.faults[fault] };
    chance -= rate;
  }
  return undefined;
}

/** A limit that is exceeded, as a fault. */
function limitFault() {
  const now = Date.now();
  if (typeof settings.atOnce === "number" && underWay > settings.atOnce) return { fault: "429", retryAfterMs: 20 };
  if (typeof settings.rpm !== "number") return undefined;
  recent = recent.filter((at) => at > now - 60_000);
  if (recent.length >= settings.rpm) return { fault: "429", retryAfterMs: recent[0] + 60_000 - now };
  recent.push(now);
  return undefined;
}

async function chat(request, response, body) {
  const id = request.headers["x-client-request-id"] ?? "";
  const fault = limitFault() ?? nextFault();
  const met = fault ? { fault: fault.fault } : {};
  log("requests.jsonl", { key: keyOf(body), id, question: questionOf(body), atOnce: underWay, ...met });
  if (settings.refuseSchema && body.response_format) {
    return sendError(response, 400, "response_format of type json_schema is not supported", "unsupported_parameter");
  }
  if (settings.refuseMaxTokens && body.max_tokens !== undefined) {
    const words =
      "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.";
    return sendError(response, 400, words, "unsupported_parameter");
  }
  if (fault && (await failsUnbilled(request, response, fault))) return;
  if (settings.milliseconds) await wait(settings.milliseconds);
  const made = await complete(body, 1, { url: request.url, headers: request.headers });
  if (fault?.fault === "slow") await wait(fault.milliseconds ?? 200);
  bill(body, id, made, met);
  if (fault && failsBilled(request, response, fault, made.completion)) return;
  if (fault?.fault === "no-usage") delete made.completion.usage;
  if (body.stream) stream(response, made.completion, body, fault?.fault === "half");
  else send(response, 200, made.completion);
}

/** @returns whether the request has been dealt with */
async function failsUnbilled(request, response, fault) {
  const { fault: name, retryAfter, retryAfterMs, retryAfterDate } = fault;
  const status = Number(name);
  if (name === "429") {
    const headers = {
      ...(retryAfter === undefined ? {} : { "retry-after": String(retryAfter) }),
      ...(retryAfterMs === undefined ? {} : { "retry-after-ms": String(retryAfterMs) }),
      ...(retryAfterDate === undefined ? {} : { "retry-after": retryAfterDate }),
    };
    sendError(response, 429, "Rate limit reached for requests", "rate_limit_exceeded", headers);
  } else if (name === "quota") sendError(response, 429, "You exceeded your current quota", "insufficient_quota");
  else if (name === "reset") request.socket.destroy();
  else if (Number.isInteger(status) && !fault.billed) {
    const echo = fault.echo ? ` (you sent ${request.url} with ${JSON.stringify(request.headers)})` : "";
    sendError(response, status, `${fault.message ?? "The server had an error"}${echo}`, fault.code);
  } else return false;
  return true;
}

/** @returns whether the request has been dealt with */
function failsBilled(request, response, { fault, base64, cuts = [], echo }, completion) {
  const whole = JSON.stringify(completion);
  if (fault === "drop") request.socket.destroy();
  else if (fault === "half" && !request.headers.accept?.includes("event-stream") && !request.streams) {
    response.writeHead(200, { "content-type": "application/json", "content-length": Buffer.byteLength(whole) });
    response.write(whole.slice(0, whole.length / 2), () => setTimeout(() => request.socket.destroy(), 5));
  } else if (fault === "wrong") send(response, 200, { ok: true, result: "this is no completion" });
  else if (fault === "prose") {
    response.writeHead(200, { "content-type": "text/html" });
    response.end(`<html>Our gateway is being improved. ${echo ? JSON.stringify(request.headers) : ""}</html>`);
  } else if (Number.isInteger(Number(fault)))
    sendError(response, Number(fault), "The server had an error after its work");
  else if (fault === "raw") writeInPieces(response, Buffer.from(base64, "base64"), cuts);
  else return fault === "hang";
  return true;
}

/** Each piece in a packet of its own. */
async function writeInPieces(response, bytes, cuts) {
  response.writeHead(200, { "content-type": "text/event-stream" });
  response.socket.setNoDelay(true);
  let from = 0;
  for (const to of [...cuts, bytes.length]) {
    await new Promise((resolve) => response.write(bytes.subarray(from, to), resolve));
    await new Promise((resolve) => setImmediate(resolve));
    from = to;
  }
  response.end();
}

function stream(response, completion, { stream_options }, half) {
  const { choices, usage, ...head } = completion;
  const [{ message, finish_reason, logprobs }] = choices;
  const chunk = (value) => `data: ${JSON.stringify({ ...head, object: "chat.completion.chunk", ...value })}\n\n`;
  const choice = (delta, finish = null, more = {}) => ({
    choices: [{ index: 0, delta, finish_reason: finish, ...more }],
  });
  const pieces = message.content.match(/\s*\S+|\s+$/g) ?? [];
  response.writeHead(200, { "content-type": "text/event-stream" });
  response.write(chunk(choice({ role: "assistant", content: "" })));
  for (const [index, content] of pieces.entries()) {
    if (half && index >= pieces.length / 2) {
      setTimeout(() => response.socket.destroy(), 5);
      return;
    }
    const own = logprobs?.content[index] ? { logprobs: { content: [logprobs.content[index]] } } : {};
    response.write(chunk(choice({ content }, null, own)));
  }
  response.write(chunk(choice({}, finish_reason)));
  if (usage && stream_options?.include_usage) response.write(chunk({ choices: [], usage }));
  response.end("data: [DONE]\n\n");
}

async function bytesOf(request) {
  const pieces = [];
  for await (const piece of request) pieces.push(piece);
  return Buffer.concat(pieces);
}

const batches = batchRoutes({ folder, settings, complete, bill, send, sendError, bytesOf, wait });

async function serve(request, response) {
  const path = request.url.split("?")[0];
  if (path === "/control") {
    const { script, settings: changed } = JSON.parse((await bytesOf(request)).toString("utf8"));
    if (script) scripted = script.map((fault) => ({ ...fault }));
    Object.assign(settings, changed);
    return send(response, 200, {});
  }
  if (key !== undefined && request.headers.authorization !== `Bearer ${key}`) {
    return sendError(response, 401, `Incorrect API key provided: ${request.headers.authorization}`, "invalid_api_key");
  }
  if (path === "/v1/models") {
    const data = models.map((id) => ({ id, object: "model", created: 0, owned_by: "tests" }));
    return send(response, 200, { object: "list", data });
  }
  if (path === "/v1/chat/completions" && request.method === "POST") {
    const body = JSON.parse((await bytesOf(request)).toString("utf8"));
    request.streams = body.stream === true;
    return chat(request, response, body);
  }
  if (await batches(path, request, response)) return;
  sendError(response, 404, `no such path: ${path}`, "not_found");
}

const server = createServer((request, response) => {
  underWay++;
  response.once("close", () => underWay--);
  serve(request, response).catch((error) => {
    if (!response.headersSent) sendError(response, 500, `the scripted server failed: ${error.stack}`, "fault");
    else request.socket.destroy();
  });
});
server.keepAliveTimeout = 60_000;
server.listen(port, "127.0.0.1", () => console.log(JSON.stringify({ port: server.address().port })));
process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
