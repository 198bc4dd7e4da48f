import { describe, expect, it } from "vitest";
import { EventStream, type StepEvent, type TrainerEvent } from "./events";

const step = (n: number): StepEvent => ({
  type: "step",
  step: n,
  totalSteps: 5000,
  epoch: 0,
  metrics: { loss: 1 },
  tokensPerSecond: 1,
  flopsPerSecond: 1e9,
  secondsLeft: 1,
});

async function read(stream: AsyncIterable<TrainerEvent>, into: TrainerEvent[] = []): Promise<TrainerEvent[]> {
  for await (const event of stream) into.push(event);
  return into;
}

describe("EventStream", () => {
  it("hands every event to every reader, in order", async () => {
    const stream = new EventStream();
    const readers = [read(stream), read(stream)];
    stream.push(step(1));
    await new Promise((resolve) => setTimeout(resolve, 1));
    stream.push(step(2));
    stream.push({ type: "warning", message: "x" });
    stream.close();
    for (const events of await Promise.all(readers)) {
      expect(events.map((event) => event.type)).toEqual(["step", "step", "warning"]);
    }
  });

  it("drops old step events of a slow reader, never another kind", async () => {
    const stream = new EventStream();
    const iterator = stream[Symbol.asyncIterator]();
    stream.push({ type: "checkpoint", step: 0, path: "a" });
    for (let n = 1; n <= 3000; n++) stream.push(step(n));
    stream.push({ type: "checkpoint", step: 3000, path: "b" });
    stream.close();
    const events = await read({ [Symbol.asyncIterator]: () => iterator });
    expect(events.filter((event) => event.type === "checkpoint")).toHaveLength(2);
    const steps = events.filter((event) => event.type === "step");
    expect(steps).toHaveLength(1024);
    expect(steps.at(-1)).toMatchObject({ step: 3000 });
  });

  it("throws the error of the run, after what came before it", async () => {
    const stream = new EventStream();
    const seen: TrainerEvent[] = [];
    const reading = read(stream, seen);
    stream.push(step(1));
    stream.close(new Error("NaN"));
    await expect(reading).rejects.toThrow("NaN");
    expect(seen).toHaveLength(1);
    await expect(read(stream)).rejects.toThrow("NaN");
  });

  it("lets a reader leave", async () => {
    const stream = new EventStream();
    stream.push(step(0));
    const iterator = stream[Symbol.asyncIterator]();
    stream.push(step(1));
    expect((await iterator.next()).value).toMatchObject({ step: 1 });
    await iterator.return(undefined);
    stream.push(step(2));
    expect((await iterator.next()).done).toBe(true);
  });
});
