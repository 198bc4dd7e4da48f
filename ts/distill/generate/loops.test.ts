import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { data, present, readJsonl } from "../../../test/shared";
import { loopIn } from "./loops";

describe("loopIn", () => {
  it("sees pieces that follow themselves, repeated sentences and texts that go round", () => {
    expect(loopIn("and so on and so on and so on and so on")).toBe("and so on");
    expect(loopIn("no no no no")).toBe("no");
    expect(loopIn("The hat is red. I see a cat. The hat is red. The hat is red. The hat is red.")).toBe(
      "the hat is red",
    );
    const round = Array.from({ length: 40 }, (_, i) => `step ${i % 2} is like the step before it but`).join(", ");
    expect(loopIn(round)).toMatch(/%|step/);
  });

  it("leaves refrains, lists and rows of numbers alone", () => {
    expect(
      loopIn("Row, row the boat. The river sings. Row, row the boat. The moon is high and far away."),
    ).toBeUndefined();
    expect(loopIn("| 1 | 1 | 1 | 1 | 1 |\n| 0 | 0 | 0 | 0 |")).toBeUndefined();
    expect(loopIn("")).toBeUndefined();
  });

  it.runIf(present(join(data, "mt_bench", "model_answer")))(
    "finds none in gpt-4's answers and many in a weak model's",
    () => {
      type Answer = { choices: { turns: string[] }[] };
      const loops = (model: string) =>
        readJsonl<Answer>(data, "mt_bench", "model_answer", `${model}.jsonl`)
          .flatMap(({ choices }) => choices[0]!.turns)
          .filter((text) => loopIn(text) !== undefined).length;
      expect(loops("gpt-4")).toBe(0);
      expect(loops("stablelm-tuned-alpha-7b")).toBeGreaterThan(20);
    },
  );
});
