/** What `/v1/chat/completions` is asked. */
import type { Message, Role } from "../data/messages";
import { typeName } from "../data/messages";
import { ApiError, badField } from "./api-error";
import type { Grammar } from "./constrained/grammar";
import { anyObject, grammarOf } from "./constrained/json-schema";
import { RequestFields } from "./request-fields";
import { type Delivery, deliveryOf, type RequestSampling, samplingOf } from "./sampling";

/** A chat completion as it is asked for. */
export interface ChatCompletionRequest extends RequestSampling, Delivery {
  /** The name that the request has for the model. */
  model: string;
  messages: readonly Message[];
  /** undefined: as many as there is room for. */
  maxTokens: number | undefined;
  /** Alternatives with log-probabilities at each place; undefined: no log-probabilities. */
  topLogprobs: number | undefined;
  /** What the answer must be a text of. */
  grammar: Grammar | undefined;
}

const roles: Readonly<Record<string, Role>> = {
  system: "system",
  developer: "system",
  user: "user",
  assistant: "assistant",
};

/** Between the text parts of a message. */
const joint = "\n";

const emptyList = (value: unknown) => Array.isArray(value) && value.length === 0;
const isNone = (value: unknown) => value === "none" || value === "auto";

/**
 * Reads the body of a request.
 *
 * @throws ApiError 400 that names the field
 */
export function chatRequestOf(body: unknown): ChatCompletionRequest {
  const fields = new RequestFields(body);
  const model = fields.text("model");
  if (model === undefined) throw badField("model", "model is missing: the name of one of /v1/models.");
  const messages = messagesOf(fields);
  fields.unsupported("tools", emptyList, "Tools are not supported; describe them in the messages.");
  fields.unsupported("tool_choice", isNone, "Tools are not supported.");
  fields.unsupported("functions", emptyList, "Functions are not supported.");
  fields.unsupported("function_call", isNone, "Functions are not supported.");
  fields.unsupported("modalities", (value) => JSON.stringify(value) === '["text"]', "Answers are text.");
  for (const name of ["audio", "prediction", "reasoning_effort", "verbosity", "web_search_options"]) {
    fields.unsupported(name, () => false);
  }
  fields.ignore("parallel_tool_calls");
  const request = {
    model,
    messages,
    ...samplingOf(fields),
    ...deliveryOf(fields),
    maxTokens: maxTokensOf(fields),
    topLogprobs: topLogprobsOf(fields),
    grammar: responseFormatOf(fields),
  };
  fields.close();
  if (request.grammar && request.repetitionPenalty !== 1) {
    throw badField("repetition_penalty", "repetition_penalty cannot be honoured together with response_format.");
  }
  return request;
}

function maxTokensOf(fields: RequestFields): number | undefined {
  const old = fields.whole("max_tokens", 1, Number.MAX_SAFE_INTEGER);
  const now = fields.whole("max_completion_tokens", 1, Number.MAX_SAFE_INTEGER);
  if (old !== undefined && now !== undefined && old !== now) {
    throw badField("max_tokens", `max_tokens is ${old}, but max_completion_tokens is ${now}. Give one of them.`);
  }
  return now ?? old;
}

function topLogprobsOf(fields: RequestFields): number | undefined {
  const wanted = fields.boolean("logprobs") ?? false;
  const top = fields.whole("top_logprobs", 0, 20);
  if (top !== undefined && !wanted)
    throw badField("top_logprobs", "top_logprobs is only possible with logprobs: true.");
  return wanted ? (top ?? 0) : undefined;
}

function responseFormatOf(fields: RequestFields): Grammar | undefined {
  const format = fields.object("response_format");
  if (!format) return undefined;
  const type = format.text("type");
  switch (type) {
    case "text":
      format.close();
      return undefined;
    case "json_object":
      format.close();
      return anyObject();
    case "json_schema": {
      const named = format.object("json_schema");
      format.close();
      // The name and the description are for people; every answer is held to the schema, strict or not.
      named?.ignore("name", "description", "strict");
      const schema = named?.take("schema");
      named?.close();
      if (schema === undefined) throw badField("response_format.json_schema.schema", "The schema is missing.");
      return grammarOf(schema, "response_format.json_schema.schema");
    }
    default:
      throw badField(
        "response_format.type",
        `response_format.type must be text, json_object or json_schema, found ${type}.`,
      );
  }
}

function messagesOf(fields: RequestFields): readonly Message[] {
  const list = fields.list("messages");
  if (list === undefined || list.length === 0)
    throw badField("messages", "messages must be a list with one message or more.");
  return list.map((each, index) => messageOf(new RequestFields(each, `messages[${index}]`)));
}

function messageOf(fields: RequestFields): Message {
  const said = fields.text("role");
  if (said === "tool" || said === "function" || fields.take("tool_calls") !== undefined) {
    throw badField(
      fields.path(said === "assistant" ? "tool_calls" : "role"),
      `${fields.path(said === "assistant" ? "tool_calls" : "role")}: tool calls and messages of the role tool are not supported. Put what the tool said into a user message.`,
      "unsupported_parameter",
    );
  }
  const role = said === undefined || !Object.hasOwn(roles, said) ? undefined : roles[said];
  if (role === undefined) {
    throw badField(
      fields.path("role"),
      `${fields.path("role")} must be system, developer, user or assistant, found ${said}.`,
    );
  }
  const content = contentOf(fields);
  fields.unsupported("name", () => false, "Put the name into the content.");
  for (const name of ["refusal", "audio", "function_call"]) fields.unsupported(name, () => false);
  fields.close();
  return { role, content };
}

/** The text of a message; several parts are joined by line ends. */
function contentOf(fields: RequestFields): string {
  const content = fields.take("content");
  const path = fields.path("content");
  if (typeof content === "string") return content;
  if (!Array.isArray(content)) {
    const found = content === undefined && fields.has("content") ? "null" : typeName(content);
    throw badField(path, `${path} must be a text or a list of text parts, found ${found}.`);
  }
  if (content.length === 0) throw badField(path, `${path} is an empty list.`);
  return content.map((part, index) => partOf(new RequestFields(part, `${path}[${index}]`))).join(joint);
}

function partOf(fields: RequestFields): string {
  const type = fields.text("type");
  if (type !== "text") {
    throw new ApiError(400, `${fields.path("type")} is ${type}: only text parts are supported.`, {
      param: fields.path("type"),
      code: "unsupported_content",
    });
  }
  const text = fields.text("text");
  if (text === undefined) throw badField(fields.path("text"), `${fields.path("text")} is missing.`);
  fields.close();
  return text;
}
