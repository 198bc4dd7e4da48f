import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { TrainerEvent } from "./events";
import { duration, type ProgressState, progressLine, showProgress } from "./progress";
import { referenceTexts } from "./trainer";

const state: ProgressState = {
  method: "dpo",
  step: 120,
  totalSteps: 478,
  tokensPerSecond: 312.4,
  secondsLeft: 201,
  loss: 0.61207,
  margin: 0.1234,
  accuracy: 0.75,
};

describe("progressLine", () => {
  it("shows bar, step, loss, margins, speed, time left and accuracy", () => {
    expect(progressLine(state, 120)).toBe(
      "dpo ████████░░░░░░░░░░░░░░░░░░░░░░ 120/478  loss 0.6121  margins 0.123  312 tok/s  ETA 3:21  acc 0.75",
    );
  });

  it("shrinks the bar, then drops fields from the end", () => {
    expect(progressLine(state, 80)).toBe(
      "dpo ██░░░░░░░ 120/478  loss 0.6121  margins 0.123  312 tok/s  ETA 3:21  acc 0.75",
    );
    expect(progressLine(state, 60)).toBe("dpo ██░░░░░░░ 120/478  loss 0.6121  margins 0.123  312 tok/s");
    expect(progressLine(state, 40)).toBe("dpo ████░░░░░░░░░░░ 120/478  loss 0.6121");
    expect(progressLine(state, 12)).toBe("dpo 120/478");
  });

  it("never is longer than the terminal", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 200 }), fc.nat(99999), fc.nat(99999), (width, step, totalSteps) => {
        expect(progressLine({ ...state, step, totalSteps }, width).length).toBeLessThanOrEqual(width);
      }),
    );
  });

  it("leaves out what SFT does not have", () => {
    const line = progressLine({ ...state, method: "sft", margin: undefined, accuracy: undefined }, 120);
    expect(line).toMatch(/^sft █+░+ 120\/478 {2}loss 0\.6121 {2}312 tok\/s {2}ETA 3:21$/);
  });
});

describe("duration", () => {
  it("has seconds, minutes and hours", () => {
    expect([0, 59.4, 59.6, 187, 7387, Number.NaN, Number.POSITIVE_INFINITY].map(duration)).toEqual([
      "0s",
      "59s",
      "1:00",
      "3:07",
      "2:03:07",
      "?",
      "?",
    ]);
  });
});

describe("showProgress", () => {
  const events: TrainerEvent[] = [
    {
      type: "start",
      method: "dpo",
      totalSteps: 2,
      doneSteps: 1,
      rows: 5,
      tokens: 100,
      supervisedTokens: 40,
      reference: "adapter-off",
      device: { id: "cpu", name: "a processor" },
      format: "Each row is x.",
    },
    { type: "watch", url: "http://127.0.0.1:4600" },
    {
      type: "step",
      step: 1,
      totalSteps: 2,
      epoch: 0.5,
      metrics: { loss: 0.69 },
      tokensPerSecond: 10,
      flopsPerSecond: 1e9,
      secondsLeft: 1,
    },
    { type: "warning", message: "careful" },
    {
      type: "step",
      step: 2,
      totalSteps: 2,
      epoch: 1,
      metrics: { loss: 0.5 },
      tokensPerSecond: 10,
      flopsPerSecond: 1e9,
      secondsLeft: 0,
    },
    { type: "end", steps: 2, seconds: 2, tokens: 100, metrics: { loss: 0.5 } },
  ];
  const shown = (isTTY: boolean) => {
    let text = "";
    const show = showProgress({ write: (part) => (text += part), isTTY, columns: 80 });
    for (const event of events) show(event);
    return text;
  };

  it("writes plain lines where there is no terminal", () => {
    expect(shown(false).split("\n")).toEqual([
      "Each row is x.",
      "dpo: 5 pairs, 100 tokens (40 supervised); 2 steps, going on after step 1",
      "dpo: measured against the model without its adapter",
      "live page: http://127.0.0.1:4600",
      "dpo 1/2  loss 0.6900  10 tok/s  ETA 1s",
      "warning: careful",
      "dpo 2/2  loss 0.5000  10 tok/s  ETA 0s",
      "dpo: 2 steps in 2s, 50 tok/s",
      "",
    ]);
  });

  it("counts the answers of pairs that KTO takes apart", () => {
    const counted = (parts: object) => {
      let written = "";
      showProgress({ write: (part) => (written += part) })({ ...events[0]!, method: "kto", ...parts } as TrainerEvent);
      return written;
    };
    expect(counted({ rows: 5, answers: 10 })).toContain("kto: 10 answers of 5 pairs, 100 tokens");
    expect(counted({ rows: 5, answers: 5 })).toContain("kto: 5 answers, 100 tokens");
  });

  it.each(Object.entries(referenceTexts))("says what %s is", (reference, text) => {
    let written = "";
    showProgress({ write: (part) => (written += part) })({ ...events[0]!, reference } as TrainerEvent);
    expect(written).toContain(`dpo: measured against ${text}\n`);
  });

  it("says that updates were skipped, and what their loss was", () => {
    const lines: string[] = [];
    const show = showProgress({ write: (part) => lines.push(part) });
    const step = events.find((event) => event.type === "step")!;
    for (const skipped_loss of [Number.NaN, 12.3]) {
      show({ ...step, metrics: { loss: 0.7, skipped_updates: 2, skipped_loss } } as TrainerEvent);
    }
    expect(lines.map((line) => line.split("  ")[2])).toEqual(["skipped 2 (loss NaN)", "skipped 2 (loss 12.3000)"]);
  });

  it("keeps evaluations, warnings and formats within the terminal, and in one line elsewhere", () => {
    const names = ["loss", "entropy", "mean_token_accuracy", "rewards/chosen", "rewards/rejected", "logps/chosen"];
    const metrics = Object.fromEntries(names.map((name) => [`eval_${name}`, -1.234]));
    const long = Array.from({ length: 40 }, (_, index) => `word${index}`).join(" ");
    const said = [
      { type: "eval", step: 3, metrics },
      { type: "warning", message: long },
      { ...events[0]!, format: long },
    ] as TrainerEvent[];
    for (const columns of [80, 40, undefined]) {
      const told = (isTTY: boolean) => {
        let text = "";
        const show = showProgress({ write: (part) => (text += part), isTTY, columns });
        for (const event of said) show(event);
        return text.trimEnd().split("\n");
      };
      for (const line of told(true)) expect(line.length).toBeLessThan(columns ?? 80);
      // Nothing is lost, and no value is parted from its name.
      const words = (lines: string[]) => lines.join(" ").split(/\s+/);
      expect(words(told(true))).toEqual(words(told(false)));
      expect(told(true).filter((line) => /eval_\S+$/.test(line))).toEqual([]);
      expect(told(false)[0]).toBe(`eval at step 3: ${names.map((name) => `eval_${name} -1.234`).join("  ")}`);
    }
  });

  it("writes over one line on a terminal, and keeps other lines", () => {
    const text = shown(true);
    expect(text).toContain("\r\x1b[2Kdpo ");
    expect(text).toContain("\r\x1b[2Kwarning: careful\n");
    expect(text.endsWith("dpo: 2 steps in 2s, 50 tok/s\n")).toBe(true);
  });
});
