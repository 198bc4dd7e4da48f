/** Runs of trainers: what they tell, and moments that others wait for. */
import { expect } from "vitest";
import type { TrainerEvent } from "../ts/index";
import { fitShowing } from "../ts/train/progress";

type Trainer<Result> = AsyncIterable<TrainerEvent> & { fit(): Promise<Result> };

/** Runs a trainer to its end; its result, and all events. */
export async function eventsOf<Result>(trainer: Trainer<Result>): Promise<{ result: Result; events: TrainerEvent[] }> {
  const events: TrainerEvent[] = [];
  const result = await fitShowing(trainer, (event) => void events.push(event));
  return { result, events };
}

export const warningsOf = (events: readonly TrainerEvent[]): string[] =>
  events.flatMap((event) => (event.type === "warning" ? [event.message] : []));

/** Waits until a run, which goes on, tells an event of that kind; of a step, that one. */
export async function reached(
  trainer: AsyncIterable<TrainerEvent>,
  type: TrainerEvent["type"],
  step?: number,
): Promise<void> {
  for await (const event of trainer) {
    if (event.type === type && (step === undefined || ("step" in event && event.step === step))) return;
  }
  throw new Error(`the run ended before ${type} ${step ?? ""}`);
}

/** Runs a trainer that has this controller's signal until it tells such an event, and stops it there. */
export async function stopAt(
  trainer: Trainer<unknown>,
  stop: AbortController,
  type: TrainerEvent["type"],
  step?: number,
): Promise<void> {
  const stopped = trainer.fit();
  await reached(trainer, type, step);
  stop.abort();
  await expect(stopped).rejects.toMatchObject({ code: "ZA_ABORTED" });
}

/** Something that others wait for. */
export function gate(): { open: () => void; opened: Promise<void> } {
  let open = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { open, opened };
}
