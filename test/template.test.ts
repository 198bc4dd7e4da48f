/** A model is saved with the chat template that it was trained with, whatever its own was. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, expect, it } from "vitest";
import { DpoTrainer, Mistral, SftTrainer } from "../ts/index";

const base = fileURLToPath(new URL("../recipes/demo/base", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "zephyr-template-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const own = "{% for m in messages %}[{{ m.role }}] {{ m.content }}{{ eos_token }}{% endfor %}";
const user = { role: "user", content: "say ten." } as const;
const answer = { role: "assistant", content: "ten." } as const;
const options = { template: "zephyr", maxSteps: 1, samples: 1 } as const;

it.each([
  [
    "SFT",
    (model: Mistral) =>
      new SftTrainer({ ...options, model, dataset: [{ messages: [user, answer] }], outputDir: join(folder, "SFT") }),
  ],
  [
    "DPO",
    (policy: Mistral) => {
      const pair = { prompt: [user], chosen: [answer], rejected: [{ role: "assistant", content: "two." }] };
      return new DpoTrainer({ ...options, policy, dataset: [pair], outputDir: join(folder, "DPO") });
    },
  ],
])("%s", async (name, trainer) => {
  const before = await Mistral.fromPretrained(base, { template: own });
  expect(before.tokenizer.render([user])).toBe("[user] say ten.</s>");
  const { model } = await trainer(before).fit();
  const saved = await Mistral.fromPretrained(join(folder, name, "model"));
  for (const after of [model, saved]) expect(after.tokenizer.render([user])).toBe("<|user|>\nsay ten.</s>\n");
  // The object that was given keeps its own template, on the same weights.
  expect(before.tokenizer.render([user])).toBe("[user] say ten.</s>");
  expect(model.native.sharesWeights(before.native)).toBe(true);
});
