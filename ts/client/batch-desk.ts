import { randomUUID } from "node:crypto";
import { setMaxListeners } from "node:events";
import type { NativeIntent, NativeSettled } from "../../bindings/node/index";
import { AbortedError, aborted, ClientError, ZephyrError } from "../errors";
import { failureOfServer } from "./call-failure";
import type { CallJournal } from "./call-journal";
import type { ChatRequest } from "./chat-model";
import { readCompletion } from "./completion";
import type { ModelFacts } from "./model-facts";
import type { OpenAiChat } from "./openai-chat";
import { backoff } from "./retry";
import { settledAnswer, settledFailure } from "./settlement";
import { ofOneCall, wait } from "./wait";

/** How batches are made. */
export interface BatchOptions {
  /** Requests in a batch, at most; OpenAI takes 50,000. @default 50_000 */
  maxRequests?: number;
  /** Bytes of a batch's file, at most; OpenAI takes 200 MB. @default 200_000_000 */
  maxBytes?: number;
  /** A batch is handed over when so many seconds brought no further request. @default 2 */
  quietSeconds?: number;
  /** Longest time between two looks at a batch, in seconds. @default 60 */
  pollSeconds?: number;
  /** A batch whose making was never confirmed is looked for this long, in seconds, before it is taken for not made. @default 10 */
  graceSeconds?: number;
}

/** How a request of a batch ended. `call` is missing when it was never handed over. */
export interface BatchAnswer {
  call?: number;
  settled?: NativeSettled;
  failure?: Error;
}

interface Waiting {
  answer: Promise<BatchAnswer>;
  resolve: (answer: BatchAnswer) => void;
  /** Known once it is written down. */
  call?: number;
}

interface Entry {
  intent: NativeIntent;
  line: string;
}

/** Answers are written down so many at a time. */
const together = 500;

/**
 * Hands requests to one model over in batches (OpenAI's Batch API: files and batches), and takes the answers by custom id,
 * which is the journal's key. A batch belongs to the journal, not to the process: it is written down before it is made, and
 * a later process goes on waiting for it.
 */
export class BatchDesk {
  /** Share of the price that is paid. */
  readonly share: number;
  readonly #model: OpenAiChat;
  readonly #facts: ModelFacts | undefined;
  readonly #journal: CallJournal;
  readonly #options: Required<BatchOptions>;
  readonly #notice: (text: string) => void;
  readonly #stop = new AbortController();
  /** Fires when the work is stopped, or the desk is closed. */
  readonly #signal: AbortSignal;
  readonly #waiting = new Map<string, Waiting>();
  readonly #underWay = new Set<Promise<void>>();
  readonly #resumed: Promise<void>;
  #gathered: Entry[] = [];
  #bytes = 0;
  #quiet: NodeJS.Timeout | undefined;

  constructor(
    model: OpenAiChat,
    facts: ModelFacts | undefined,
    journal: CallJournal,
    options: BatchOptions,
    signal: AbortSignal | undefined,
    notice: (text: string) => void,
  ) {
    this.share = facts?.batch ?? 0.5;
    this.#model = model;
    this.#facts = facts;
    this.#journal = journal;
    this.#options = {
      maxRequests: 50_000,
      maxBytes: 200_000_000,
      quietSeconds: 2,
      pollSeconds: 60,
      graceSeconds: 10,
      ...options,
    };
    this.#notice = notice;
    this.#signal = signal ? ofOneCall(signal, this.#stop.signal) : this.#stop.signal;
    // Every request to the provider listens to it.
    setMaxListeners(0, this.#signal);
    this.#resumed = this.#resume();
    this.#resumed.catch(() => {}); // Seen by the first who asks.
  }

  /** Resolves when it is known what earlier runs left under way. */
  resumed(): Promise<void> {
    return this.#resumed;
  }

  /** Whether a request is under way, perhaps since an earlier run. */
  waitsFor(key: string): boolean {
    return this.#waiting.has(key);
  }

  /** Joins the batch that holds the request, or puts it into the next one. */
  ask(intent: NativeIntent, request: ChatRequest): Promise<BatchAnswer> {
    const joined = this.#waiting.get(intent.key);
    if (joined) return joined.answer;
    if (this.#signal.aborted) return Promise.resolve({ failure: aborted(this.#signal.reason) });
    const body = this.#model.body(request);
    const line = `${JSON.stringify({ custom_id: intent.key, method: "POST", url: "/v1/chat/completions", body })}\n`;
    const bytes = Buffer.byteLength(line);
    const { maxRequests, maxBytes, quietSeconds } = this.#options;
    if (this.#gathered.length + 1 > maxRequests || this.#bytes + bytes > maxBytes) this.#flush();
    const waiting = this.#wait(intent.key);
    this.#gathered.push({ intent, line });
    this.#bytes += bytes;
    clearTimeout(this.#quiet);
    this.#quiet = setTimeout(() => this.#flush(), quietSeconds * 1000);
    return waiting.answer;
  }

  /** Stops waiting. Batches that were handed over go on at the provider, and stay in the journal. */
  async close(): Promise<void> {
    this.#stop.abort();
    this.#flush();
    await this.#resumed.catch(() => {});
    await Promise.allSettled(this.#underWay);
  }

  #wait(key: string): Waiting {
    let resolve: Waiting["resolve"] = () => {};
    const answer = new Promise<BatchAnswer>((settle) => {
      resolve = settle;
    });
    const waiting = { answer, resolve };
    this.#waiting.set(key, waiting);
    return waiting;
  }

  #flush(): void {
    clearTimeout(this.#quiet);
    const entries = this.#gathered;
    this.#gathered = [];
    this.#bytes = 0;
    if (entries.length > 0) this.#follow(this.#handOver(entries));
  }

  #follow(work: Promise<void>): void {
    const running = work.finally(() => this.#underWay.delete(running));
    this.#underWay.add(running);
  }

  /** Takes up what earlier runs handed over. */
  async #resume(): Promise<void> {
    const batches = await this.#journal.openBatches();
    const own = batches.filter(
      ({ model, endpoint }) => model === this.#model.name && endpoint === this.#model.endpoint,
    );
    for (const { id, name, providerId, created } of own) {
      const calls = await this.#journal.waitingIn(id);
      for (const { call, key } of calls) this.#wait(key).call = call;
      const keys = calls.map(({ key }) => key);
      const since = new Date(created).toISOString();
      this.#notice(`going on with a batch of ${keys.length} calls, handed over ${since}`);
      this.#follow(this.#attempt(id, keys, () => this.#find(id, name, providerId, created)));
    }
  }

  /** The provider's id of a batch of an earlier run; undefined when it was never made. */
  async #find(id: number, name: string, known: string | undefined, created: number): Promise<string | undefined> {
    if (known) return known;
    const giveUp = Date.now() + this.#options.graceSeconds * 1000;
    for (;;) {
      const found = await this.#named(name, created);
      if (found) {
        await this.#journal.nameBatch(id, { providerId: found });
        return found;
      }
      const left = giveUp - Date.now();
      if (left <= 0) return undefined;
      await wait(Math.min(left, 2000), this.#signal);
    }
  }

  async #handOver(entries: readonly Entry[]): Promise<void> {
    const keys = entries.map(({ intent }) => intent.key);
    const name = `zephyr-align-${randomUUID()}`;
    if (this.#signal.aborted) {
      this.#end(keys, { failure: aborted(this.#signal.reason) });
      return;
    }
    let id: number;
    try {
      const intents = entries.map(({ intent }) => intent);
      const begun = await this.#journal.intendBatch(name, this.#model.name, this.#model.endpoint, intents);
      id = begun.id;
      for (const [index, key] of keys.entries()) this.#waiting.get(key)!.call = begun.calls[index]!;
    } catch (error) {
      this.#end(keys, { failure: error as Error });
      return;
    }
    await this.#attempt(id, keys, async () => {
      const content = Buffer.from(entries.map(({ line }) => line).join(""));
      const client = await this.#model.client();
      const signal = this.#signal;
      const file = await this.#retrying(() =>
        client.files.create({ file: new File([content], `${name}.jsonl`), purpose: "batch" }, { signal }),
      );
      await this.#journal.nameBatch(id, { inputFile: file.id });
      const providerId = await this.#make(name, file.id);
      await this.#journal.nameBatch(id, { providerId });
      this.#notice(`handed over a batch of ${keys.length} calls (${providerId})`);
      return providerId;
    });
  }

  /** Makes a batch; when the answer is lost, looks whether it was made before making another. */
  async #make(name: string, file: string): Promise<string> {
    const started = Date.now();
    let unsure = false;
    return this.#retrying(async () => {
      const made = unsure ? await this.#named(name, started) : undefined;
      if (made) return made;
      unsure = true;
      const batch = await (await this.#model.client()).batches.create(
        {
          input_file_id: file,
          endpoint: "/v1/chat/completions",
          completion_window: "24h",
          metadata: { zephyr_align: name },
        },
        { signal: this.#signal },
      );
      return batch.id;
    });
  }

  /** The batch with our name, among those made since. */
  async #named(name: string, since: number): Promise<string | undefined> {
    return this.#retrying(async () => {
      const client = await this.#model.client();
      const options = { signal: this.#signal };
      for await (const { id, metadata, created_at } of client.batches.list({ limit: 100 }, options)) {
        if (metadata?.zephyr_align === name) return id;
        // Newest first; the clocks of two machines may differ by minutes.
        if (created_at * 1000 < since - 3_600_000) return undefined;
      }
      return undefined;
    });
  }

  /** Waits for a batch and settles its calls, whatever happens. */
  async #attempt(id: number, keys: readonly string[], find: () => Promise<string | undefined>): Promise<void> {
    try {
      const providerId = await find();
      if (providerId === undefined) {
        const lost = new ClientError("ZA_CLIENT_BATCH", "the batch was never made", {
          remedy: "Nothing: the calls are handed over anew.",
          call: { retry: true, billed: "no" },
        });
        await this.#fail(keys, lost);
        await this.#journal.closeBatch(id, "never made");
        return;
      }
      const note = await this.#take(providerId, keys);
      await this.#journal.closeBatch(id, note);
    } catch (thrown) {
      const error = thrown instanceof ZephyrError ? thrown : this.#model.failure(thrown);
      // It stays open: a later run goes on with it.
      if (error instanceof AbortedError) this.#end(keys, { failure: error });
      else if (error instanceof ClientError && error.call?.billed === "no") {
        await this.#fail(keys, error);
        await this.#journal.closeBatch(id, error.problem);
      } else this.#end(keys, { failure: error });
    }
  }

  /** Waits until the provider is done, and takes the answers. @returns how it ended */
  async #take(providerId: string, keys: readonly string[]): Promise<string> {
    const client = await this.#model.client();
    const signal = this.#signal;
    for (let pause = 1; ; pause = Math.min(pause * 1.5, this.#options.pollSeconds)) {
      const batch = await this.#retrying(() => client.batches.retrieve(providerId, { signal }));
      if (["completed", "expired", "cancelled", "failed"].includes(batch.status)) {
        for (const file of [batch.output_file_id, batch.error_file_id]) if (file) await this.#read(file);
        const left = keys.filter((key) => this.#waiting.has(key));
        if (left.length > 0) await this.#fail(left, withoutAnswer(batch, left.length));
        return batch.status;
      }
      await wait(Math.min(pause, this.#options.pollSeconds) * 1000, signal);
    }
  }

  /** Reads a file of answers or errors. What a lost connection left out is read by the next try; nothing is read twice. */
  async #read(file: string): Promise<void> {
    await this.#retrying(async () => {
      const response = await (await this.#model.client()).files.content(file, { signal: this.#signal });
      let page: BatchAnswer[] = [];
      for await (const line of linesOf(response.body as unknown as AsyncIterable<Uint8Array>)) {
        const answer = this.#answerOf(line);
        if (answer) page.push(answer);
        if (page.length >= together) page = await this.#settle(page);
      }
      await this.#settle(page);
    });
  }

  /** Reads a line; undefined for what is not waited for. */
  #answerOf(line: string): (BatchAnswer & { key: string }) | undefined {
    let row: { custom_id?: string; response?: BatchResponse | null; error?: ServerWords | null };
    try {
      row = JSON.parse(line);
    } catch {
      return undefined;
    }
    const key = row.custom_id ?? "";
    const call = this.#waiting.get(key)?.call;
    if (call === undefined) return undefined;
    const { secrets } = this.#model;
    const status = row.response?.status_code;
    const requestId = row.response?.request_id;
    if (row.response && status === 200) {
      const body = secrets.inAnswer(JSON.stringify(row.response.body));
      try {
        const raw = { body, status, ...(requestId ? { requestId } : {}) };
        return { key, call, settled: settledAnswer(call, raw, readCompletion(body), this.#facts, this.share) };
      } catch (error) {
        return failed(key, call, error as ClientError);
      }
    }
    // What failed inside a batch is not billed.
    if (row.error?.code === "batch_expired") return failed(key, call, withoutAnswer({ status: "expired" }, 1));
    const error: ServerWords = row.response?.body?.error ?? row.error ?? {};
    const failure = failureOfServer({
      status,
      code: error.code,
      type: error.type,
      message: secrets.inError(error.message ?? error.code ?? "no words"),
      requestId,
    });
    const details = {
      ...(failure.remedy ? { remedy: failure.remedy } : {}),
      call: { ...failure.call!, billed: "no" },
    } as const;
    return failed(key, call, new ClientError(failure.code, failure.problem, details));
  }

  async #settle(page: readonly (BatchAnswer & { key?: string })[]): Promise<BatchAnswer[]> {
    if (page.length > 0) await this.#journal.settle(page.map(({ settled }) => settled!));
    for (const { key, ...answer } of page) if (key !== undefined) this.#end([key], answer);
    return [];
  }

  /** Settles calls that have no answer. */
  async #fail(keys: readonly string[], failure: ClientError): Promise<void> {
    const answers = keys.flatMap((key) => {
      const call = this.#waiting.get(key)?.call;
      return call === undefined ? [] : [failed(key, call, failure)];
    });
    await this.#settle(answers);
  }

  /** Tells those who wait; after what is to be found in the journal is there. */
  #end(keys: readonly string[], answer: BatchAnswer): void {
    for (const key of keys) {
      const waiting = this.#waiting.get(key);
      this.#waiting.delete(key);
      waiting?.resolve({ ...(waiting.call === undefined ? {} : { call: waiting.call }), ...answer });
    }
  }

  /** Requests about batches cost nothing, so they are simply made again. */
  async #retrying<T>(work: () => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await work();
      } catch (thrown) {
        if (this.#signal.aborted) throw aborted(this.#signal.reason);
        const error = thrown instanceof ZephyrError ? thrown : this.#model.failure(thrown);
        if (!(error instanceof ClientError) || !error.call?.retry || attempt >= 10) throw error;
        await wait(backoff(attempt, error.call.retryAfter, Math.random()), this.#signal);
      }
    }
  }
}

interface ServerWords {
  code?: string | null;
  type?: string | null;
  message?: string;
}

interface BatchResponse {
  status_code: number;
  request_id?: string;
  body: { error?: ServerWords } | null;
}

function failed(key: string, call: number, failure: ClientError): BatchAnswer & { key: string } {
  return { key, call, failure, settled: settledFailure(call, failure.problem, failure.call!) };
}

/** What it means that a batch ended without a word on some of its requests. */
function withoutAnswer(
  batch: { status: string; errors?: { data?: { code?: string; message?: string; line?: number | null }[] } | null },
  count: number,
): ClientError {
  const words = batch.errors?.data?.map(({ message, code, line }) => {
    const where = line === null || line === undefined ? "" : `line ${line}: `;
    return `${where}${message ?? code ?? ""}`;
  });
  const why = words && words.length > 0 ? `: ${words.slice(0, 3).join("; ")}` : "";
  const problem = `the batch ended as ${batch.status}, ${count} of its calls have no answer${why}`;
  const expired = batch.status === "expired";
  return new ClientError("ZA_CLIENT_BATCH", problem, {
    remedy: expired ? "Nothing: they are handed over again." : "Look at the batch at the provider, then start again.",
    call: { retry: expired, billed: batch.status === "completed" ? "possibly" : "no" },
  });
}

/** Lines end with LF only: JSON may hold other line ends inside its texts. */
async function* linesOf(bytes: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const piece of bytes) {
    const lines = (rest + decoder.decode(piece, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    yield* lines.filter((line) => line.trim() !== "");
  }
  if (rest.trim() !== "") yield rest;
}
