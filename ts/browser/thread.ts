/** Calls of a {@link Work}, here or in a worker: the same function for whoever asks. */
import { aborted, errorFromCode, fromNative, ModelError, type Place, throwIfAborted, ZephyrError } from "../errors";
import type { LoadProgress } from "./model-source";
import type { WorkerEvent, WorkerLike, WorkerScope } from "./platform";
import { isStopped, joinThreads, type Shared, stoppedBy } from "./runtime";
import { type Hooks, Work } from "./work";

/** What the calls hand out while they run that can be stopped. They get hooks behind their argument. */
interface Events {
  load: LoadProgress;
  generate: readonly [number, string];
  score: never;
  logits: never;
}

const hooked: readonly string[] = ["load", "generate", "score", "logits"] satisfies (keyof Events)[];

type Given<Name extends keyof Work> = Name extends keyof Events ? [Parameters<Work[Name]>[0]] : Parameters<Work[Name]>;
type EventOf<Name extends keyof Work> = Name extends keyof Events ? Events[Name] : never;

/** Where a model's memory is. */
export interface Thread {
  call<Name extends keyof Work>(
    name: Name,
    args: Given<Name>,
    hooks?: Hooks<EventOf<Name>>,
  ): Promise<Awaited<ReturnType<Work[Name]>>>;
  /** Ends it and gives its memory back. */
  end(): void;
}

function invoke(work: Work, name: keyof Work, args: readonly unknown[], hooks: Hooks<unknown>): unknown {
  const call = work[name] as (...args: readonly unknown[]) => unknown;
  return call.apply(work, hooked.includes(name) ? [...args, hooks] : [...args]);
}

/** The thread that asks. */
export function thisThread(): Thread {
  const work = new Work();
  return {
    call: async (name, args, hooks = {}) => invoke(work, name, args, hooks as Hooks<unknown>) as never,
    end: () => work.dispose(),
  };
}

/** An error as it is sent. */
interface SentError {
  code: string;
  problem: string;
  place?: Place;
  remedy?: string;
}

type Question = { id: number; name: keyof Work; args: readonly unknown[] } | { id: number; abort: true };
/** `fault`: it has stopped the instance, and with it all threads of the model. */
type Answer = { id: number } & ({ event: unknown } | { result: unknown } | { error: SentError; fault: boolean });

/** To a worker that computes for another. It answers only with a fault. */
interface Joining {
  join: Shared;
}

function sent(thrown: unknown): SentError {
  const { code, problem, place, remedy } = fromNative(thrown);
  return { code, problem, ...(place ? { place } : {}), ...(remedy ? { remedy } : {}) };
}

function received({ code, problem, ...details }: SentError): ZephyrError {
  return errorFromCode(code, problem, details);
}

/** Answers the questions of a {@link workerThread}, or joins another's threads. */
export function serve(scope: WorkerScope): void {
  const work = new Work();
  const running = new Map<number, AbortController>();
  scope.addEventListener("message", async ({ data }) => {
    if ("join" in (data as Question | Joining)) {
      try {
        joinThreads((data as Joining).join);
      } catch (thrown) {
        scope.postMessage(sent(thrown));
      }
      return;
    }
    const question = data as Question;
    const { id } = question;
    if ("abort" in question) {
      running.get(id)?.abort();
      return;
    }
    const control = new AbortController();
    running.set(id, control);
    const answer = (rest: object) => scope.postMessage({ id, ...rest });
    try {
      const hooks = { signal: control.signal, onEvent: (event: unknown) => answer({ event }) };
      answer({ result: await invoke(work, question.name, question.args, hooks) });
    } catch (thrown) {
      answer({ error: sent(thrown), fault: isStopped() });
    } finally {
      running.delete(id);
    }
  });
}

interface Waiting {
  resolve: (result: never) => void;
  reject: (error: unknown) => void;
  onEvent: ((event: never) => void) | undefined;
}

/** A {@link Thread} in a worker, which has a memory of its own. */
export interface WorkerThread extends Thread {
  /** Lets another worker compute for this one. A fault in either ends both. */
  add(worker: WorkerLike, shared: Shared): void;
}

export function workerThread(worker: WorkerLike): WorkerThread {
  const workers = [worker];
  const waiting = new Map<number, Waiting>();
  let ended: ZephyrError | undefined;
  let last = 0;
  /** Calls that wait reject with `error`, later ones with `later`. */
  const end = (error: ZephyrError, later = error) => {
    ended ??= later;
    for (const each of workers) each.terminate();
    for (const { reject } of waiting.values()) reject(error);
    waiting.clear();
  };
  const watch = (worker: WorkerLike) => {
    const broken = (event: WorkerEvent) => {
      event.preventDefault?.();
      const problem = `the model's worker cannot be started, or broke off: ${event.message || "no reason was given"}`;
      end(
        new ZephyrError("ZA_WASM_LOAD", problem, {
          remedy:
            "Serve browser-worker.js of this package beside its scripts, from this origin; a content security policy must allow it (worker-src).",
        }),
      );
    };
    worker.addEventListener("error", broken);
    worker.addEventListener("messageerror", broken);
  };
  watch(worker);
  worker.addEventListener("message", ({ data }) => {
    const answer = data as Answer;
    const caller = waiting.get(answer.id);
    if (!caller) return;
    if ("event" in answer) {
      caller.onEvent?.(answer.event as never);
      return;
    }
    waiting.delete(answer.id);
    if ("result" in answer) caller.resolve(answer.result as never);
    else {
      const error = received(answer.error);
      caller.reject(error);
      if (answer.fault) end(error, stoppedBy(error));
    }
  });
  return {
    add(other, shared) {
      workers.push(other);
      watch(other);
      other.addEventListener("message", ({ data }) => {
        const fault = received(data as SentError);
        end(fault, stoppedBy(fault));
      });
      other.postMessage({ join: shared } satisfies Joining);
    },
    async call(name, args, { signal, onEvent } = {}) {
      throwIfAborted(signal);
      if (ended) throw ended;
      const id = ++last;
      const stop = () => worker.postMessage({ id, abort: true } satisfies Question);
      signal?.addEventListener("abort", stop, { once: true });
      try {
        return await new Promise<never>((resolve, reject) => {
          waiting.set(id, { resolve, reject, onEvent });
          try {
            worker.postMessage({ id, name, args } satisfies Question);
          } catch (error) {
            waiting.delete(id);
            // In Node, a Blob over a file.
            const problem = `what was given cannot be sent to a worker: ${error instanceof Error ? error.message : error}`;
            const remedy = "Give the file's address, or its bytes.";
            reject(new ModelError("ZA_MODEL_INVALID", problem, { remedy, cause: error }));
          }
        });
      } catch (error) {
        throw signal?.aborted ? aborted(signal.reason) : error;
      } finally {
        signal?.removeEventListener("abort", stop);
      }
    },
    end: () =>
      end(
        new ZephyrError("ZA_MODEL_DISPOSED", "the model was given back by dispose()", {
          remedy: "Load it again, or dispose() of it later.",
        }),
      ),
  };
}
