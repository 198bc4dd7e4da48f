import type { StartEvent, TrainerEvent } from "./events";
import { memoryText } from "./memory";
import { type Method, methods } from "./methods";
import { referenceTexts } from "./trainer";

/** What a progress line shows. */
export interface ProgressState {
  method: Method;
  step: number;
  totalSteps: number;
  tokensPerSecond: number;
  /** Of matrix products' peak, 0 to 1. */
  peakShare?: number | undefined;
  secondsLeft: number;
  loss?: number | undefined;
  /** Updates since the last line that were skipped, and the mean of their losses. */
  skipped?: { updates: number; loss: number } | undefined;
  /** `rewards/margins` and `rewards/accuracies` of DPO. */
  margin?: number | undefined;
  accuracy?: number | undefined;
}

/** Narrowest and widest bar, in characters. */
const barWidths = [8, 30] as const;

/**
 * One line of at most `width` characters: method, bar, step/total, loss, margins, accuracy, tok/s, time left. When it
 * is too narrow, the bar shrinks first, then fields go from the end.
 */
export function progressLine(state: ProgressState, width: number): string {
  const done = state.totalSteps > 0 ? Math.min(1, state.step / state.totalSteps) : 0;
  const fields = fieldsOf(state);
  const head = (bar: number) => [state.method, ...(bar > 0 ? [progressBar(done, bar)] : []), fields[0]].join(" ");
  for (let kept = fields.length; kept > 0; kept--) {
    const rest = fields.slice(1, kept).map((field) => `  ${field}`);
    const room = width - head(0).length - rest.join("").length - 1;
    const line = head(room >= barWidths[0] ? Math.min(room, barWidths[1]) : 0) + rest.join("");
    // The bar is worth more than the last fields, so a line without it is only taken when nothing else is left.
    if (line.length <= width && (room >= barWidths[0] || kept === 1)) return line;
  }
  return head(0).slice(0, Math.max(0, width));
}

function fieldsOf(state: ProgressState): string[] {
  const fields = [`${state.step}/${state.totalSteps}`];
  if (state.loss !== undefined) fields.push(`loss ${state.loss.toFixed(4)}`);
  if (state.skipped) fields.push(`skipped ${state.skipped.updates} (loss ${state.skipped.loss.toFixed(4)})`);
  if (state.margin !== undefined) fields.push(`margins ${state.margin.toFixed(3)}`);
  const share = state.peakShare === undefined ? "" : ` (${Math.round(100 * state.peakShare)} % of peak)`;
  fields.push(`${Math.round(state.tokensPerSecond)} tok/s${share}`, `ETA ${duration(state.secondsLeft)}`);
  if (state.accuracy !== undefined) fields.push(`acc ${state.accuracy.toFixed(2)}`);
  return fields;
}

function progressBar(done: number, width: number): string {
  const full = Math.round(done * width);
  return "█".repeat(full) + "░".repeat(width - full);
}

/** Seconds as `45s`, `3:07` or `2:03:07`; `?` when unknown. */
export function duration(seconds: number): string {
  if (!Number.isFinite(seconds) || seconds < 0) return "?";
  const whole = Math.round(seconds);
  const pad = (value: number) => String(value).padStart(2, "0");
  if (whole < 60) return `${whole}s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}:${pad(whole % 60)}`;
  return `${Math.floor(whole / 3600)}:${pad(Math.floor((whole % 3600) / 60))}:${pad(whole % 60)}`;
}

/** Where progress is written; `process.stderr` fits. */
export interface ProgressStream {
  write(text: string): unknown;
  isTTY?: boolean | undefined;
  columns?: number | undefined;
}

/**
 * Shows trainer events: on a terminal one line that is written over, and others within its width; elsewhere one plain line
 * per logged step.
 *
 * @returns a function to call with every event
 */
export function showProgress(stream: ProgressStream = process.stderr): (event: TrainerEvent) => void {
  const terminal = stream.isTTY === true;
  let method: Method = "sft";
  let open = false;
  const width = () => (stream.columns || 80) - 1;
  const line = (text: string) => {
    const shown = terminal ? wrapped(text, width()) : text;
    // A line of the terminal that is being written over is finished before anything else is printed.
    stream.write(open ? `\r\x1b[2K${shown}\n` : `${shown}\n`);
    open = false;
  };
  return (event) => {
    switch (event.type) {
      case "start": {
        method = event.method;
        line(event.format);
        const packs = event.packing
          ? `, ${event.packing.packs} packs ${(100 * event.packing.fillRate).toFixed(1)} % full`
          : "";
        const resumed = event.doneSteps > 0 ? `, going on after step ${event.doneSteps}` : "";
        line(
          `${method}: ${countOf(event)}, ${event.tokens} tokens (${event.supervisedTokens} supervised)${packs}; ${event.totalSteps} steps${resumed}`,
        );
        const { id, name, memory } = event.device;
        if (memory) {
          const { precision, recompute } = memory;
          line(`${method} on ${id} (${name}) in ${precision}, recompute ${recompute}: ${memoryText(memory)}`);
        }
        if (event.adapter) {
          const { parameters, frozen } = event.adapter;
          line(`${method}: an adapter of ${parameters} parameters is trained, the ${frozen} of the model are frozen`);
        }
        if (event.reference) line(`${method}: measured against ${referenceTexts[event.reference]}`);
        break;
      }
      case "step": {
        const state: ProgressState = {
          method,
          step: event.step,
          totalSteps: event.totalSteps,
          tokensPerSecond: event.tokensPerSecond,
          peakShare: event.peakShare,
          secondsLeft: event.secondsLeft,
          loss: event.metrics.loss,
          skipped: event.metrics.skipped_updates
            ? { updates: event.metrics.skipped_updates, loss: event.metrics.skipped_loss ?? Number.NaN }
            : undefined,
          margin: event.metrics["rewards/margins"],
          accuracy: event.metrics["rewards/accuracies"],
        };
        if (terminal) {
          stream.write(`\r\x1b[2K${progressLine(state, width())}`);
          open = true;
        } else line(`${method} ${fieldsOf(state).join("  ")}`);
        break;
      }
      case "eval":
        line(`eval at step ${event.step}: ${metricsText(event.metrics)}`);
        break;
      case "watch":
        line(`live page: ${event.url}`);
        break;
      case "checkpoint":
        line(`saved ${event.path}`);
        break;
      case "warning":
        line(`warning: ${event.message}`);
        break;
      case "end": {
        const speed = event.seconds > 0 ? `, ${Math.round(event.tokens / event.seconds)} tok/s` : "";
        if (open) stream.write("\n");
        open = false;
        line(`${method}: ${event.steps} steps in ${duration(event.seconds)}${speed}`);
        break;
      }
    }
  };
}

/** What is trained on: `5 pairs`, `8 answers`; `8 answers of 4 pairs` where KTO takes pairs apart. */
function countOf({ method, rows, answers = rows }: StartEvent): string {
  return answers === rows ? `${rows} ${methods[method].rows}` : `${answers} answers of ${rows} pairs`;
}

function metricsText(metrics: Readonly<Record<string, number>>): string {
  return Object.entries(metrics)
    .map(([name, value]) => `${name} ${Number(value.toPrecision(4))}`)
    .join("  ");
}

/** A text in lines of at most `width` characters: broken between fields, which stand two spaces apart, or else between words. */
export function wrapped(text: string, width: number): string {
  if (text.length <= width) return text;
  const gap = text.includes("  ") ? "  " : " ";
  const lines: string[] = [];
  for (const part of text.split(gap)) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + gap.length + part.length <= width)
      lines[lines.length - 1] = last + gap + part;
    else lines.push(last === undefined ? part : `  ${part}`);
  }
  return lines.join("\n");
}

/** Runs a trainer and hands its events to `show`, all of them before the run's end or error is passed on. */
export async function fitShowing<Result>(
  trainer: AsyncIterable<TrainerEvent> & { fit(): Promise<Result> },
  show: (event: TrainerEvent) => void = showProgress(),
): Promise<Result> {
  let failure: { error: unknown } | undefined;
  const events = (async () => {
    for await (const event of trainer) show(event);
  })().catch((error: unknown) => {
    failure = { error };
  });
  const result = await trainer.fit().finally(() => events);
  // A run that failed has thrown by now: this is a fault of `show`.
  if (failure) throw failure.error;
  return result;
}
