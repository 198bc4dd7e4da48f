/** A fault: what the next request meets. */
export interface Fault {
  fault: string;
  times?: number;
  retryAfter?: number;
  retryAfterMs?: number;
  retryAfterDate?: string;
  milliseconds?: number;
  message?: string;
  code?: string;
  billed?: boolean;
  echo?: boolean;
  base64?: string;
  cuts?: readonly number[];
}

export interface BatchFaults {
  /** Time that a batch takes. */
  milliseconds?: number;
  /** Requests that fail, by line. */
  failed?: readonly number[];
  /** Requests that are answered before the batch expires. */
  expiredAfter?: number;
  /** The batch is refused whole, with these words. */
  refused?: string;
  /** The batch is made, but the answer to its making is lost; once. */
  dropMaking?: boolean;
  /** The batch is cancelled before any work. */
  cancelled?: boolean;
}

export interface Settings {
  /** Chance of each fault. */
  rates?: Readonly<Record<string, number>>;
  /** Details of the faults that come by chance. */
  faults?: Readonly<Record<string, Omit<Fault, "fault">>>;
  /** Requests a minute; more get a 429. */
  rpm?: number;
  /** Requests at once; more get a 429. */
  atOnce?: number;
  /** Time that every answer takes. */
  milliseconds?: number;
  /** Dollars per million tokens. */
  price?: { input: number; output: number };
  /** Refuse `response_format`. */
  refuseSchema?: boolean;
  /** Refuse `max_tokens`. */
  refuseMaxTokens?: boolean;
  /** Leave out log-probabilities. */
  noLogprobs?: boolean;
  batch?: BatchFaults;
}

export interface ServerOptions extends Settings {
  /** Module whose default export answers. */
  answer?: string;
  /** Folder of the logs. @default a temporary one, removed by stop() */
  folder?: string;
  port?: number;
  /** The key that is asked for. @default none */
  key?: string;
  models?: readonly string[];
  /** Of the chances. @default 1 */
  seed?: number;
}

export interface Billed {
  at: number;
  /** SHA-256 of what was asked. */
  key: string;
  /** `X-Client-Request-Id`, or the custom id in a batch. */
  id: string;
  /** The beginning of the last message. */
  question: string;
  model: string;
  promptTokens: number;
  completionTokens: number;
  dollars: number;
  /** The fault that the billed request met, if any. */
  fault?: string;
  batch?: string;
}

export interface Requested {
  at: number;
  key: string;
  id: string;
  question: string;
  fault?: string;
  /** Requests under way at that moment, with it. */
  atOnce: number;
}

export interface Server {
  url: string;
  port: number;
  folder: string;
  /** Faults of the next requests, in order; before those by chance. */
  script(faults: readonly Fault[]): Promise<void>;
  set(settings: Settings): Promise<void>;
  billed(): Billed[];
  requests(): Requested[];
  stop(): Promise<void>;
}

/** Starts the server in a process of its own. It ends with its parent. */
export function startServer(options?: ServerOptions): Promise<Server>;
