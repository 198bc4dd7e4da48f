import { mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import type { Metrics } from "../events";
import { EventFile, markdown, scalar } from "./event-file";
import type { LoggedRun, Logger } from "./logger";

/** The folder in the run folder that event files are written to. */
export const tensorBoardFolder = "tensorboard";

/**
 * Writes TensorBoard event files: a scalar for each metric under its own name, the configuration as text. A run that is
 * resumed begins a file that tells TensorBoard to forget the steps that are made again, so that no step shows twice.
 *
 * @param folder where the files go; `tensorboard/` in the run folder when left out
 * @example
 * new SftTrainer({ model, dataset, outputDir: "runs/sft", loggers: [tensorBoard()] }) // tensorboard --logdir runs
 */
export function tensorBoard(folder?: string): Logger {
  let file: EventFile | undefined;
  return {
    name: "tensorboard",
    start(run: LoggedRun) {
      const path = folder ?? (run.outputDir && join(run.outputDir, tensorBoardFolder));
      if (path === undefined) throw new Error("there is no run folder: give tensorBoard(folder), or outputDir");
      mkdirSync(path, { recursive: true });
      file = new EventFile(path, nextSecond(path));
      file.startAt(run.doneSteps === 0 ? 0 : run.doneSteps + 1);
      file.summary(run.doneSteps, [markdown("config/text_summary", configText(run))]);
    },
    log(step: number, metrics: Metrics) {
      file!.summary(
        step,
        Object.entries(metrics).map(([name, value]) => scalar(name, value)),
      );
    },
    end() {
      file?.close();
    },
  };
}

/** Now, or later than every event file of the folder: two starts within a second must keep their order. */
function nextSecond(folder: string): number {
  const taken = readdirSync(folder).map((name) => Number(/^events\.out\.tfevents\.(\d+)\./.exec(name)?.[1] ?? 0));
  return Math.max(Math.floor(Date.now() / 1000), ...taken.map((second) => second + 1));
}

function configText({ method, model, config }: LoggedRun): string {
  const entries = Object.entries({ method, model, ...config });
  const cell = (value: unknown) => (JSON.stringify(value) ?? "null").replaceAll("|", "\\|").replaceAll("`", "'");
  return ["| option | value |", "|---|---|", ...entries.map(([key, value]) => `| ${key} | \`${cell(value)}\` |`)].join(
    "\n",
  );
}
