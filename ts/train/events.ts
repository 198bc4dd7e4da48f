import type { MemoryPlan } from "./memory";
import type { Method } from "./methods";
import type { Reference } from "./trainer";

/**
 * Numbers of a step under TRL's names: `loss`, `grad_norm`, `learning_rate`, `entropy`, `num_tokens`,
 * `mean_token_accuracy`, `rewards/{chosen,rejected,margins,accuracies}`, `logps/{chosen,rejected}`,
 * `logits/{chosen,rejected}`; of an evaluation with the prefix `eval_`. `num_tokens` counts since the run began, a prompt
 * for each side of its pair; `computed_tokens` (not TRL's) counts those that one step really computed, and
 * `supervised_tokens` those that its loss sees. `logits/…` are means over the answers' tokens in every trainer; TRL's ORPO and
 * CPO take them over prompts and padding too.
 * A line with updates that were skipped has `skipped_updates`, the mean of their losses `skipped_loss` and their highest
 * `skipped_grad_norm`, NaN as soon as one is not finite (and the norm where nobody looked at it); `loss` is of the others.
 */
export type Metrics = Readonly<Record<string, number>>;

/** The run is planned and about to make its first step. */
export interface StartEvent {
  type: "start";
  method: Method;
  /** Optimiser steps of the whole run. */
  totalSteps: number;
  /** Steps already done, when the run is resumed. */
  doneSteps: number;
  /** Rows or pairs that are trained on. */
  rows: number;
  /** Single answers in these rows (KTO): a pair has two. */
  answers?: number;
  /** Tokens of one epoch. */
  tokens: number;
  /** Tokens of one epoch that the loss sees. */
  supervisedTokens: number;
  /** When an adapter is trained: its parameters, and those of the frozen model under it. */
  adapter?: { parameters: number; frozen: number };
  /** What a preference run is measured against. */
  reference?: Reference;
  /** Packs and their fill rate (0 to 1), when packing. */
  packing?: { packs: number; fillRate: number };
  /** Where it is trained; on a card with the memory that it takes there. */
  device: { id: string; name: string; memory?: MemoryPlan };
  /** How the rows are read, one sentence. */
  format: string;
}

/** An optimiser step was made and is logged. */
export interface StepEvent {
  type: "step";
  /** 1-based. */
  step: number;
  totalSteps: number;
  /** Passes over the data done, a fraction. */
  epoch: number;
  metrics: Metrics;
  /** Tokens per second since the last logged step. */
  tokensPerSecond: number;
  /** Floating-point operations a second that the steps needed (crates/align/flops.rs), since the last logged step. */
  flopsPerSecond: number;
  /** The same as a share of the fastest matrix products on this machine (0 to 1), unless measurePeak is off. */
  peakShare?: number;
  /** Estimate of the seconds left. */
  secondsLeft: number;
}

/** The held-out rows were evaluated. */
export interface EvalEvent {
  type: "eval";
  step: number;
  metrics: Metrics;
}

/**
 * The run needs the model given as `ref` no more: its log-probs are there, or a copy follows the policy. The trainer has let
 * go of it; whoever loaded it may `dispose()` of it now.
 */
export interface ReferenceEvent {
  type: "reference";
}

/** The model was asked the prompts of the report, as it is now. */
export interface SamplesEvent {
  type: "samples";
  /** Steps made; 0 before training. */
  step: number;
  samples: readonly { prompt: string; answer: string }[];
}

/** The live page of the run can be opened. */
export interface WatchEvent {
  type: "watch";
  /** On this machine only. */
  url: string;
}

/** A checkpoint lies complete under its final name. */
export interface CheckpointEvent {
  type: "checkpoint";
  step: number;
  path: string;
}

/** Something the user should know, but the run goes on. */
export interface WarningEvent {
  type: "warning";
  message: string;
}

/** The run is over. */
export interface EndEvent {
  type: "end";
  steps: number;
  seconds: number;
  /** Tokens trained on; when the run was resumed, since then, as `seconds`. */
  tokens: number;
  /** Metrics of the last step. */
  metrics: Metrics;
}

/** What a trainer tells while it works. */
export type TrainerEvent =
  | StartEvent
  | WatchEvent
  | ReferenceEvent
  | StepEvent
  | EvalEvent
  | SamplesEvent
  | CheckpointEvent
  | WarningEvent
  | EndEvent;

/** Step events that a slow reader may have waiting; older ones are dropped then. */
const waitingSteps = 1024;

/**
 * Hands events to any number of readers. A reader sees the events from its start on. A slow reader loses old step
 * events, never another kind; nobody waits for it.
 */
export class EventStream implements AsyncIterable<TrainerEvent> {
  readonly #readers = new Set<Reader>();
  #closed: { error?: unknown } | undefined;

  push(event: TrainerEvent): void {
    for (const reader of this.#readers) reader.push(event);
  }

  /** Ends all readers, after what they have waiting; with an error, they throw it. */
  close(error?: unknown): void {
    this.#closed ??= error === undefined ? {} : { error };
    for (const reader of this.#readers) reader.wake();
  }

  [Symbol.asyncIterator](): AsyncGenerator<TrainerEvent> {
    const reader = new Reader();
    // Joined here, not at the first next(): events pushed in between must not be lost.
    this.#readers.add(reader);
    return this.#read(reader);
  }

  async *#read(reader: Reader): AsyncGenerator<TrainerEvent> {
    try {
      for (;;) {
        const event = reader.shift();
        if (event) yield event;
        else if (this.#closed) {
          if ("error" in this.#closed) throw this.#closed.error;
          return;
        } else await reader.changed();
      }
    } finally {
      this.#readers.delete(reader);
    }
  }
}

class Reader {
  #queue: TrainerEvent[] = [];
  #steps = 0;
  #wake: (() => void) | undefined;

  push(event: TrainerEvent): void {
    if (event.type === "step" && ++this.#steps > waitingSteps) {
      this.#queue.splice(
        this.#queue.findIndex((each) => each.type === "step"),
        1,
      );
      this.#steps--;
    }
    this.#queue.push(event);
    this.wake();
  }

  shift(): TrainerEvent | undefined {
    const event = this.#queue.shift();
    if (event?.type === "step") this.#steps--;
    return event;
  }

  changed(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }

  wake(): void {
    this.#wake?.();
    this.#wake = undefined;
  }
}
