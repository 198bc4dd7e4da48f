import { mkdir } from "node:fs/promises";
import { hostname } from "node:os";
import { dirname } from "node:path";
import type {
  NativeAnswer,
  NativeBatch,
  NativeIntent,
  NativeJournal,
  NativeRejected,
  NativeSettled,
  NativeSummary,
  NativeTotals,
} from "../../bindings/node/index";
import { fromNative } from "../errors";
import { native } from "../native/load";

/**
 * The journal of calls: an SQLite file that holds every request before it is sent, and every answer before anyone sees it.
 * Each promise resolves when what it stands for has reached the disk.
 */
export class CallJournal {
  readonly path: string;
  readonly #native: NativeJournal;

  private constructor(path: string, handle: NativeJournal) {
    this.path = path;
    this.#native = handle;
  }

  /**
   * Opens a journal for writing, or makes one. One process at a time writes.
   *
   * @throws ClientError `ZA_JOURNAL_LOCKED` (names the process), `ZA_JOURNAL_FOREIGN`, `ZA_JOURNAL_DAMAGED`,
   * `ZA_JOURNAL_VERSION`; IoError
   */
  static async open(path: string): Promise<CallJournal> {
    const holder = `process ${process.pid} on ${hostname()}, since ${new Date().toISOString()}`;
    return typed(async () => {
      await mkdir(dirname(path), { recursive: true });
      return new CallJournal(path, await native().NativeJournal.open(path, holder));
    });
  }

  /** Opens a journal to look at it, also while another process writes. */
  static async read(path: string): Promise<CallJournal> {
    return typed(async () => new CallJournal(path, await native().NativeJournal.read(path)));
  }

  /** Calls of a killed run that this opening found without an answer: they may have been billed. */
  get orphans(): number {
    return this.#native.orphans;
  }

  /** The process that was writing when this reader opened. */
  get writer(): string | undefined {
    return this.#native.writer ?? undefined;
  }

  /** The newest answer to a request that nobody has rejected. */
  find(key: string): Promise<NativeAnswer | null> {
    return typed(() => this.#native.find(key));
  }

  /** Rejected answers to a request, the newest first. */
  rejected(key: string): Promise<NativeRejected[]> {
    return typed(() => this.#native.rejected(key));
  }

  /** All rejected answers, oldest first. */
  async *invalid(): AsyncGenerator<NativeRejected> {
    for (let after = 0; ; ) {
      const page = await typed(() => this.#native.invalid(after, 100));
      if (page.length === 0) return;
      yield* page;
      after = page.at(-1)!.call;
    }
  }

  /** Writes down calls that are about to be sent. @returns their ids */
  intend(intents: NativeIntent[]): Promise<number[]> {
    return typed(() => this.#native.intend(intents));
  }

  /** Writes down how calls ended. */
  settle(calls: NativeSettled[]): Promise<void> {
    return typed(() => this.#native.settle(calls));
  }

  /** Keeps an answer as one that is of no use; the request is then asked again. */
  reject(call: number, reason: string): Promise<void> {
    return typed(() => this.#native.reject(call, reason));
  }

  /** Takes a rejected answer back into use. */
  reinstate(call: number): Promise<void> {
    return typed(() => this.#native.reinstate(call));
  }

  /** Writes down a batch with its calls. */
  intendBatch(name: string, model: string, endpoint: string, intents: NativeIntent[]) {
    return typed(() => this.#native.intendBatch(name, model, endpoint, intents));
  }

  /** Notes what the provider calls the file and the batch. */
  nameBatch(batch: number, names: { inputFile?: string; providerId?: string }): Promise<void> {
    return typed(() => this.#native.nameBatch(batch, names.inputFile, names.providerId));
  }

  /** Ends a batch whose calls are all settled. */
  closeBatch(batch: number, note: string): Promise<void> {
    return typed(() => this.#native.closeBatch(batch, note));
  }

  /** Batches whose answers have not been taken yet. */
  openBatches(): Promise<NativeBatch[]> {
    return typed(() => this.#native.openBatches());
  }

  /** The calls of a batch that have no answer yet. */
  waitingIn(batch: number): Promise<{ call: number; key: string }[]> {
    return typed(() => this.#native.waitingIn(batch));
  }

  /** What all runs have used together. */
  totals(): Promise<NativeTotals> {
    return typed(() => this.#native.totals());
  }

  /** Calls by state, spend by purpose and model, runs. */
  summary(): Promise<NativeSummary> {
    return typed(() => this.#native.summary());
  }

  /** Ends the run in good order. */
  close(): Promise<void> {
    return typed(() => this.#native.close());
  }
}

async function typed<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw fromNative(error);
  }
}
