/** What the sampling options must do, whatever the model: natively and in WebAssembly. */
import { expect } from "vitest";
import type { LanguageModel } from "../ts/model/language-model";

/** Filters that leave one token are greedy whatever the temperature and seed; a large penalty lets no token come again. */
export async function narrowed(model: LanguageModel): Promise<void> {
  const prompt = await model.tokenizer.encodePrompt([{ role: "user", content: "say nine." }]);
  const ids = async (options: object) => [...(await model.generate(prompt, { maxTokens: 24, ...options })).ids];
  const greedy = await ids({ temperature: 0 });
  expect(greedy.length).toBeGreaterThan(2);
  for (const seed of [1, 2, 3]) {
    for (const narrow of [{ topK: 1 }, { topP: 1e-6 }, { minP: 1 }]) {
      expect(await ids({ temperature: 1, seed, ...narrow }), JSON.stringify(narrow)).toEqual(greedy);
    }
  }
  // Without a filter the same seeds choose otherwise, so that the filters are what made them alike.
  const free = await Promise.all([1, 2, 3].map((seed) => ids({ temperature: 1.5, seed })));
  expect(free.some((each) => String(each) !== String(greedy))).toBe(true);
  const penalised = await ids({ temperature: 0, repetitionPenalty: 100 });
  const seen = new Set(prompt);
  for (const id of penalised) {
    expect(seen.has(id), `token ${id} came again`).toBe(false);
    seen.add(id);
  }
}
