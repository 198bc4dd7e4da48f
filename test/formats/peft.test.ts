/** Folders of LoRA adapters: PEFT loads ours, and we load what it saves. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it } from "vitest";
import { Mistral, SftTrainer } from "../../ts/index";
import { golden, lastJson, present, pythonWith, readJson, relative } from "../shared";

const scratch = mkdtempSync(join(tmpdir(), "zephyr-peft-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const python = pythonWith("peft");
const script = fileURLToPath(new URL("load_and_make_adapter.py", import.meta.url));
const folder = join(golden, "window");
const ids = [1, 40, 7, 99, 12, 33, 64, 5, 20, 11];
const load = () => Mistral.fromPretrained(folder, { tokenizer: join(golden, "tokenizer") });

describe.runIf(python && present(golden))("peft", () => {
  it("loads what was saved, and what it saves is loaded: the same logits", async () => {
    const { sft } = readJson<{ sft: never[] }>(folder, "data.json");
    const model = await (await load()).withLora({ rank: 3, targetModules: ".*\\.(q_proj|down_proj)", useRslora: true });
    await new SftTrainer({ model, dataset: sft, maxSteps: 4, batchSize: 4, learningRate: 5e-3, logSteps: 1 }).fit();
    const [ours, theirs] = [join(scratch, "ours"), join(scratch, "theirs")];
    await model.saveAdapter(ours);
    const args = [script, folder, ours, theirs, JSON.stringify(ids)];
    const [loaded, made] = lastJson<[number[], number[]]>(python!, args);
    expect(relative(await model.logits(ids), loaded)).toBeLessThan(1e-4);
    expect(relative(await (await (await load()).withAdapter(theirs)).logits(ids), made)).toBeLessThan(1e-4);
    // The adapters do something.
    const plain = await (await load()).logits(ids);
    for (const each of [loaded, made]) expect(relative(each, plain)).toBeGreaterThan(1e-3);
  });
});
