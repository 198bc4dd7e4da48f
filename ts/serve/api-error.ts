/** Refusals and failures of requests, in the words and statuses of OpenAI's API. */
import { ConfigError, fromNative, type ZephyrError } from "../errors";

/** What an error says besides its status and message. */
export interface ApiErrorDetails {
  /** @default "invalid_request_error" below 500, else "server_error" */
  type?: string;
  /** For programs, for example `context_length_exceeded`. */
  code?: string;
  /** The field of the request that is to blame. */
  param?: string;
  headers?: Readonly<Record<string, string>>;
}

/** A request that is not answered. */
export class ApiError extends Error {
  override readonly name = "ApiError";

  constructor(
    readonly status: number,
    message: string,
    readonly details: ApiErrorDetails = {},
  ) {
    super(message);
  }

  /** The body of the answer; also what is written into a stream that has begun. */
  body(): { error: { message: string; type: string; param: string | null; code: string | null } } {
    const { type, param = null, code = null } = this.details;
    const kind = type ?? (this.status < 500 ? "invalid_request_error" : "server_error");
    return { error: { message: this.message, type: kind, param, code } };
  }
}

/** A field of a request that cannot be honoured. */
export function badField(param: string, message: string, code?: string): ApiError {
  return new ApiError(400, message, { param, ...(code === undefined ? {} : { code }) });
}

/** A text that is longer than the model may read. */
export function tooLong(limit: number, found: number, param: string): ApiError {
  return badField(
    param,
    `This model's maximum context length is ${limit} tokens. However, your ${param} resulted in ${found} tokens, which leaves no room for an answer. Please reduce the length of the ${param}.`,
    "context_length_exceeded",
  );
}

/** Errors of the core that the request is to blame for, with the field that they are about. */
const blamed: Readonly<Record<string, string>> = {
  ZA_MESSAGE: "messages",
  ZA_MESSAGE_CONTENT: "messages",
  ZA_ROLE_ORDER: "messages",
  ZA_EMPTY_ANSWER: "messages",
  ZA_TEMPLATE: "messages",
  ZA_EMPTY_PROMPT: "prompt",
  ZA_TOKEN_RANGE: "prompt",
  ZA_CONTEXT_LENGTH: "prompt",
};

/** Whatever was thrown, as an answer. */
export function apiErrorOf(thrown: unknown): ApiError {
  if (thrown instanceof ApiError) return thrown;
  const error = fromNative(thrown);
  const text = [error.message, error.remedy].filter(Boolean).join(". ");
  const param = blamed[error.code] ?? (error.code === "ZA_GENERATE_OPTION" ? error.place?.field : undefined);
  if (param !== undefined) {
    return badField(param, text, error.code === "ZA_CONTEXT_LENGTH" ? "context_length_exceeded" : error.code);
  }
  return new ApiError(error.code === "ZA_OUT_OF_MEMORY" ? 503 : 500, text, { code: error.code });
}

/** The refusal to start a server with options that cannot be used. */
export function startProblem(code: "ZA_SERVE_OPEN" | "ZA_SERVE_ADDRESS", problem: string, remedy: string): ZephyrError {
  return new ConfigError(code, problem, { remedy });
}
