/** Answers by a grammar, of the model itself. */
import { beforeAll, expect, it } from "vitest";
import { Mistral } from "../../ts/index";
import { constrainedAnswer } from "../../ts/serve/constrained/answer";
import { grammarOf } from "../../ts/serve/constrained/json-schema";
import { base, say } from "./serving";

let model: Mistral;
beforeAll(async () => {
  model = await Mistral.fromPretrained(base);
});

const schema = { type: "array", items: { type: "string", maxLength: 12 }, minItems: 2, maxItems: 4 };
const answer = async (options: object) => {
  const pieces: string[] = [];
  const onToken = (piece: string) => void pieces.push(piece);
  const prompt = model.tokenizer.encodePrompt(say("say nine."));
  const grammar = grammarOf(schema, "schema");
  const made = await constrainedAnswer(model, prompt, grammar, { maxTokens: 80, onToken, ...options });
  expect(pieces.join("")).toBe(made.text);
  return made;
};

it("are the same for the same seed, and fit, however they are sampled", async () => {
  for (const sampling of [{}, { topK: 20 }, { topP: 0.8 }, { minP: 0.05 }, { temperature: 2 }]) {
    const options = { temperature: 1, seed: 3, ...sampling };
    const { text, ids, finishReason } = await answer(options);
    expect(finishReason).toBe("stop");
    expect(grammarOf(schema, "schema").accepts(text)).toBe(true);
    expect((await answer(options)).ids).toEqual(ids);
  }
});

it("end before a stop text, wherever tokens end in it", async () => {
  const whole = await answer({ temperature: 0 });
  for (const length of [1, 2, 5]) {
    const at = 6;
    const stop = whole.text.slice(at, at + length);
    const { text, finishReason, ids } = await answer({ temperature: 0, stop: ["\u0000never", stop] });
    expect(text).toBe(whole.text.slice(0, whole.text.indexOf(stop)));
    expect(finishReason).toBe("stop");
    expect([...ids]).toEqual([...whole.ids.subarray(0, ids.length)]);
    expect(ids.length).toBeLessThan(whole.ids.length);
  }
  // What only begins a stop text belongs to the answer.
  const stop = [`${whole.text.at(-1)}more`];
  expect((await answer({ temperature: 0, stop })).text).toBe(whole.text);
});
