import type { Metrics } from "../events";
import type { Method } from "../methods";

/** What a logger is told of the run before its first line. */
export interface LoggedRun {
  method: Method;
  /** Path or id of the model. */
  model: string;
  /** The resolved configuration. */
  config: Readonly<Record<string, unknown>>;
  /** Absolute path of the run folder, when there is one. */
  outputDir: string | undefined;
  totalSteps: number;
  /** Steps already done when the run is resumed. The next line is of a later step, so nothing is told twice. */
  doneSteps: number;
}

/**
 * Where a run's numbers go besides `metrics.jsonl`, which the run folder always has: TensorBoard, Weights & Biases, any
 * HTTP address. Calls come in order, one at a time; training does not wait for them, except for the last ones at its end.
 * A logger that throws is named once in a warning and gets no further call: it cannot end a run.
 *
 * @example
 * const print: Logger = { name: "print", start() {}, log: (step, metrics) => console.log(step, metrics), end() {} };
 */
export interface Logger {
  /** For warnings. */
  readonly name: string;
  start(run: LoggedRun): unknown;
  /**
   * A line of `metrics.jsonl`: a logged step, or an evaluation (names begin with `eval_`).
   *
   * @param step 1-based; steps never go back
   * @param metrics as in the line; values may be NaN or infinite
   */
  log(step: number, metrics: Metrics): unknown;
  /** The run is over, finished or not. */
  end(): unknown;
}
