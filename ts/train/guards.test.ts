import { describe, expect, it, vi } from "vitest";
import { Guards, StepWatch } from "./guards";

const values = (count: number) => Array.from({ length: count }, (_, index) => 1 + 0.1 * Math.sin(index));

describe("outliers", () => {
  it("are judged by the last 128 steps, from 64 on, each of the two numbers alone", () => {
    const guards = new Guards({ maxSkippedUpdates: 3, skipZScore: 6 });
    for (const [index, value] of values(63).entries()) expect(guards.judge(value, value), `${index}`).toBeUndefined();
    expect(guards.judge(99, 1), "there are not enough steps to judge by").toBeUndefined();
    for (const value of values(128)) guards.judge(value, value);
    expect(guards.state.losses, "the window has moved on").not.toContain(99);
    expect(guards.state.losses).toHaveLength(128);
    expect(guards.judge(1.5, 1)).toMatch(/^loss 1\.5 is above 1\.\d+ \(6 standard deviations\)/);
    expect(guards.judge(1, 1.5)).toMatch(/^grad_norm 1\.5 is above/);
    expect(guards.judge(-9, 0), "low is not wrong").toBeUndefined();
  });

  it("are judged by the sample standard deviation, as in OLMo-core (torch.std_mean)", () => {
    const judge = (value: number) => {
      const guards = new Guards({ maxSkippedUpdates: 3, skipZScore: 2 });
      guards.state.losses = Array.from({ length: 64 }, (_, index) => (index % 2 ? 1 : -1));
      guards.state.gradNorms = [1];
      return guards.judge(value, 1);
    };
    // Mean 0; Σx² / 63 = 64 / 63.
    const limit = 2 * Math.sqrt(64 / 63);
    expect(judge(limit - 1e-9)).toBeUndefined();
    expect(judge(limit + 1e-9)).toBeDefined();
  });

  it("judge the same after the state was saved and read back", () => {
    const [one, two] = [0, 1].map(() => new Guards({ maxSkippedUpdates: 3, skipZScore: 3 })) as [Guards, Guards];
    for (const value of values(100)) one.judge(value, 2 * value);
    two.state = JSON.parse(JSON.stringify(one.state));
    for (const value of [...values(50), 1.6, 1.2]) expect(two.judge(value, value)).toBe(one.judge(value, value));
  });

  it("are not looked for unless asked, and a number that is not finite never enters the windows", () => {
    const off = new Guards({ maxSkippedUpdates: 3, skipZScore: null });
    off.judge(1, 1);
    expect(off.watchesOutliers).toBe(false);
    const on = new Guards({ maxSkippedUpdates: 3, skipZScore: 3 });
    on.judge(Number.NaN, 1);
    expect([...off.state.losses, ...on.state.losses, ...on.state.gradNorms]).toEqual([]);
  });
});

it("skipped updates in a row stop the run; one that is made begins the count anew", () => {
  const guards = new Guards({ maxSkippedUpdates: 2, skipZScore: null });
  expect(guards.skipped(1, "loss is NaN")).toBeUndefined();
  guards.made();
  expect(guards.skipped(3, "loss is NaN")).toBeUndefined();
  expect(guards.skipped(4, "loss is inf")?.message).toMatch(
    /2 updates in a row were skipped, the last at step 4: loss is inf/,
  );
  expect(guards.state.skipped).toBe(3);
});

describe("the watch", () => {
  const slow = (milliseconds: number) => () => new Promise((resolve) => setTimeout(resolve, milliseconds, "done"));

  it("ends a step at its limit", async () => {
    const told: string[] = [];
    const watch = new StepWatch(0.02, (message) => told.push(message));
    expect(await watch.time(1, slow(1))).toBe("done");
    await expect(watch.time(2, slow(200))).rejects.toMatchObject({ code: "ZA_TRAIN_STALLED" });
    expect(told).toEqual([]);
  });

  it("without a limit tells of a step that takes longer than a minute, and than ten usual ones, and waits for it", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] });
    try {
      const told: string[] = [];
      const watch = new StepWatch(null, (message) => told.push(message));
      const step = async (number: number, seconds: number) => {
        const done = watch.time(number, slow(1000 * seconds));
        await vi.advanceTimersByTimeAsync(1000 * seconds);
        return done;
      };
      expect(await step(1, 59)).toBe("done");
      expect(told).toEqual([]);
      // Ten times the 59 s of the only step so far.
      expect(await step(2, 589)).toBe("done");
      expect(told).toEqual([]);
      expect(await step(3, 6000)).toBe("done");
      expect(told).toEqual(["step 3 takes longer than 5890 s; it may hang"]);
      // The median of the last 64 steps is what is usual: of short ones a minute is.
      for (let number = 4; number < 70; number++) await step(number, 2);
      await step(70, 59);
      expect(told).toHaveLength(1);
      await step(71, 61);
      expect(told[1]).toBe("step 71 takes longer than 60 s; it may hang");
    } finally {
      vi.useRealTimers();
    }
  });

  it("hands on what a step throws, at once", async () => {
    const watch = new StepWatch(null, () => {});
    const failing = watch.time(1, async () => {
      throw new Error("of the step");
    });
    await expect(failing).rejects.toThrow("of the step");
  });
});
