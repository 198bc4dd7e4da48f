/**
 * The error hierarchy. Every error that leaves the package is a {@link ZephyrError} with a stable code, the place
 * (file, row, field, tensor) and a remedy. Subclasses are chosen by the code's prefix, so that errors of the native
 * core, which carry only a code and a text, get the same class as errors raised here.
 */
import { type ErrorCode, errorCodes } from "./error-codes";

export { type ErrorCode, errorCodes } from "./error-codes";

/** Where something is wrong. All parts are optional; those known are printed. */
export interface Place {
  /** Path of the file, or the name of a data set that has no file. */
  file?: string;
  /** Line of a JSONL file or row of a Parquet file, 1-based. */
  row?: number;
  /** Row group of a Parquet file, 0-based as pyarrow counts. */
  rowGroup?: number;
  /** Element of a JSON array, or row of an in-memory data set, 1-based. */
  element?: number;
  /** Byte offset in the file, 0-based. */
  byte?: number;
  /** Path of the field inside the row, for example `messages[1].content`, or the configuration key. */
  field?: string;
  /** Name of the tensor. */
  tensor?: string;
}

/** What an error is made of besides its code and text. */
export interface ErrorDetails {
  place?: Place;
  /** What the user can do about it, one or two sentences. */
  remedy?: string;
  cause?: unknown;
}

/** Prints a place as `rows.jsonl:2 (byte 91), messages[1].content`. Empty when nothing is known. */
export function placeText(place: Place | undefined): string {
  if (!place) return "";
  const parts: string[] = [];
  let where = place.file ?? "";
  if (place.row !== undefined) where += where ? `:${place.row}` : `line ${place.row}`;
  if (place.element !== undefined) where += `${where ? " " : ""}element ${place.element}`;
  if (place.byte !== undefined) where += `${where ? " " : ""}(byte ${place.byte})`;
  if (where) parts.push(where);
  if (place.rowGroup !== undefined) parts.push(`row group ${place.rowGroup}`);
  if (place.tensor !== undefined) parts.push(`tensor ${place.tensor}`);
  if (place.field !== undefined) parts.push(place.field);
  return parts.join(", ");
}

/**
 * Base of all errors of zephyr-align.
 *
 * `message` begins with the place, so that it is useful alone; `toString()` adds the code and the remedy.
 */
export class ZephyrError extends Error {
  override readonly name: string = "ZephyrError";
  /** Stable code (`ZA_…`); usually a key of {@link errorCodes}, always one for errors raised in TypeScript. */
  readonly code: string;
  readonly place?: Place;
  readonly remedy?: string;
  /** The text without place and remedy. */
  readonly problem: string;

  constructor(code: ErrorCode | (string & {}), problem: string, details: ErrorDetails = {}) {
    const where = placeText(details.place);
    super(where ? `${where}: ${problem}` : problem, details.cause === undefined ? undefined : { cause: details.cause });
    this.code = code;
    this.problem = problem;
    if (details.place) this.place = details.place;
    if (details.remedy) this.remedy = details.remedy;
  }

  override toString(): string {
    const head = `${this.name} [${this.code}] ${this.message}`;
    return this.remedy ? `${head}\n  Remedy: ${this.remedy}` : head;
  }
}

/** A data file or one of its rows cannot be used (`ZA_DATA_…`). */
export class DataError extends ZephyrError {
  override readonly name = "DataError";
}

/** One problem of a configuration. */
export interface ConfigProblem {
  /** The key, for example `warmupRatio`. */
  field: string;
  problem: string;
  remedy: string;
}

/** A configuration is refused (`ZA_CONFIG_…`, `ZA_SERVE_…`). All problems are listed at once in `problems`. */
export class ConfigError extends ZephyrError {
  override readonly name = "ConfigError";
  readonly problems: readonly ConfigProblem[];

  constructor(
    code: ErrorCode | (string & {}),
    problem: string,
    details: ErrorDetails & { problems?: readonly ConfigProblem[] } = {},
  ) {
    super(code, problem, details);
    this.problems = details.problems ?? [];
  }
}

/** A model, its configuration or its weights cannot be used (`ZA_MODEL_…`, `ZA_TENSOR_…`, …). */
export class ModelError extends ZephyrError {
  override readonly name = "ModelError";
}

/** A chat template cannot be compiled or rendered (`ZA_TEMPLATE_…`). */
export class TemplateError extends ZephyrError {
  override readonly name = "TemplateError";
}

/** A tokenizer cannot be used (`ZA_TOKENIZER_…`). */
export class TokenizerError extends ZephyrError {
  override readonly name = "TokenizerError";
}

/** Training cannot start or go on (`ZA_TRAIN_…`). */
export class TrainingError extends ZephyrError {
  override readonly name = "TrainingError";
}

/** Judging cannot start, or gives no score (`ZA_JUDGE_…`, `ZA_PULL…`). */
export class JudgeError extends ZephyrError {
  override readonly name = "JudgeError";
}

/** The work was stopped by its abort signal (`ZA_ABORTED`). */
export class AbortedError extends ZephyrError {
  override readonly name = "AbortedError";
}

/** A card cannot be used (`ZA_DEVICE_…`). The message lists every place where its driver and libraries were looked for. */
export class DeviceError extends ZephyrError {
  override readonly name = "DeviceError";
}

/** The Hub or a repository on it cannot be used (`ZA_HUB_…`). */
export class HubError extends ZephyrError {
  override readonly name = "HubError";
}

/** Reading or writing files failed (`ZA_IO_…`). */
export class IoError extends ZephyrError {
  override readonly name = "IoError";
}

/** What is known of a call to a model that failed. */
export interface CallFailure {
  /** HTTP status; undefined when no answer came. */
  status?: number;
  /** The provider's own code, for example `context_length_exceeded`. */
  providerCode?: string;
  /** The provider's id of the request. */
  requestId?: string;
  /** Whether the same call may go through later. */
  retry: boolean;
  /** Milliseconds that the server asks to wait. */
  retryAfter?: number;
  /** `possibly`: it was sent, and nobody knows whether the provider counts it. */
  billed: "no" | "possibly";
  /** What came back, where it was no answer. */
  body?: string;
}

/** A model cannot be asked, does not answer, or may not be paid (`ZA_CLIENT_…`); the journal of calls (`ZA_JOURNAL_…`). */
export class ClientError extends ZephyrError {
  override readonly name = "ClientError";
  readonly call?: CallFailure;

  constructor(
    code: ErrorCode | (string & {}),
    problem: string,
    details: ErrorDetails & { call?: CallFailure | undefined } = {},
  ) {
    super(code, problem, details);
    if (details.call) this.call = details.call;
  }
}

/** There is not enough memory (`ZA_OUT_OF_MEMORY`). */
export class OutOfMemoryError extends ZephyrError {
  override readonly name = "OutOfMemoryError";
}

type ErrorClass = new (code: string, problem: string, details?: ErrorDetails) => ZephyrError;

/** The first prefix that fits is taken. */
const classesByPrefix: readonly (readonly [prefix: string, errorClass: ErrorClass])[] = [
  ["ZA_DATA", DataError],
  ["ZA_MESSAGE", DataError],
  ["ZA_ROLE_ORDER", DataError],
  ["ZA_EMPTY_ANSWER", DataError],
  ["ZA_CONFIG", ConfigError],
  ["ZA_ARGUMENT", ConfigError],
  ["ZA_THREADS", ConfigError],
  ["ZA_RESUME", ConfigError],
  ["ZA_REFERENCE", ConfigError],
  ["ZA_SERVE", ConfigError],
  ["ZA_TEMPLATE", TemplateError],
  ["ZA_MASK", TemplateError],
  ["ZA_TOKENIZER", TokenizerError],
  ["ZA_TRAIN", TrainingError],
  ["ZA_CHECKPOINT", TrainingError],
  ["ZA_BATCH", TrainingError],
  ["ZA_LOSS", TrainingError],
  ["ZA_NOT_FINITE", TrainingError],
  ["ZA_JUDGE", JudgeError],
  ["ZA_PULL", JudgeError],
  ["ZA_CLIENT", ClientError],
  ["ZA_JOURNAL", ClientError],
  ["ZA_ABORTED", AbortedError],
  ["ZA_DEVICE", DeviceError],
  ["ZA_HUB", HubError],
  ["ZA_IO", IoError],
  ["ZA_DISK", IoError],
  ["ZA_FOLDER", IoError],
  ["ZA_OUT_OF_MEMORY", OutOfMemoryError],
  ["ZA_MODEL", ModelError],
  ["ZA_ADAPTER", ModelError],
  ["ZA_TENSOR", ModelError],
  ["ZA_SHARD", ModelError],
  ["ZA_TOKEN_RANGE", ModelError],
  ["ZA_CONTEXT_LENGTH", ModelError],
  ["ZA_EMPTY_PROMPT", ModelError],
  ["ZA_GENERATE", ConfigError],
];

/** Makes the error of the class that belongs to the code's prefix. */
export function errorFromCode(code: string, problem: string, details: ErrorDetails = {}): ZephyrError {
  const found = classesByPrefix.find(([prefix]) => code.startsWith(prefix));
  return found ? new found[1](code, problem, details) : new ZephyrError(code, problem, details);
}

const remedyMarker = /\s*\bRemedy:\s*/;
const codeInMessage = /^\[?(ZA_[A-Z0-9_]+)\]?:?\s*/;

/**
 * Turns anything thrown into a {@link ZephyrError}.
 *
 * Errors of the native addon have the stable code in `code` and a text that may end in `Remedy: …`. Errors of Node's
 * file system become {@link IoError}, abort errors {@link AbortedError}; anything else is `ZA_INTERNAL` with its cause.
 */
export function fromNative(error: unknown, place?: Place): ZephyrError {
  if (error instanceof ZephyrError) return error;
  const thrown = error instanceof Error ? (error as NodeJS.ErrnoException) : undefined;
  const text = thrown ? thrown.message : String(error);
  const inMessage = codeInMessage.exec(text);
  const code = typeof thrown?.code === "string" && thrown.code.startsWith("ZA_") ? thrown.code : inMessage?.[1];
  if (code) {
    const [problem = "", remedy] = text.slice(inMessage ? inMessage[0].length : 0).split(remedyMarker);
    return errorFromCode(code, problem.trim() || meaningOf(code), {
      cause: error,
      ...(place ? { place } : {}),
      ...(remedy ? { remedy: remedy.trim() } : {}),
    });
  }
  if (thrown?.name === "AbortError" || thrown?.name === "TimeoutError") return aborted(error);
  if (thrown?.syscall !== undefined && typeof thrown.code === "string") return fromFileSystem(thrown, place);
  return new ZephyrError("ZA_INTERNAL", text || "an unknown value was thrown", {
    cause: error,
    remedy: "This is a fault in zephyr-align; please report it with the stack.",
    ...(place ? { place } : {}),
  });
}

/** The typed error for a stop by an abort signal; `reason` is the signal's reason. */
export function aborted(reason?: unknown): AbortedError {
  return new AbortedError("ZA_ABORTED", "the work was stopped by its abort signal", { cause: reason });
}

/** Throws {@link AbortedError} when the signal has fired. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw aborted(signal.reason);
}

const fileRemedies: Record<string, string> = {
  ENOENT: "Check the path.",
  EACCES: "Check the permissions of the file and its folder.",
  EPERM: "Check the permissions of the file and its folder.",
  EISDIR: "Give the path of a file, not of a folder.",
  EROFS: "Choose a folder on a writable file system.",
  EMFILE: "Raise the limit of open files (ulimit -n).",
};

function fromFileSystem(error: NodeJS.ErrnoException, place?: Place): IoError {
  const full = error.code === "ENOSPC" || error.code === "EDQUOT";
  const file = place?.file ?? error.path;
  const known = (error.code && fileRemedies[error.code]) || "Check the path and the disk.";
  return new IoError(full ? "ZA_DISK_FULL" : "ZA_IO", full ? "no space left on the device" : error.message, {
    cause: error,
    place: { ...place, ...(file === undefined ? {} : { file }) },
    remedy: full ? "Free space on the device or choose another output folder." : known,
  });
}

function meaningOf(code: string): string {
  return (errorCodes as Record<string, string>)[code] ?? "the native core reported an error";
}
