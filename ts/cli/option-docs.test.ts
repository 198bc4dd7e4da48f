/** The help of the flags is the comments of config-fields.ts: `npx vitest run ts/cli -u` writes option-docs.json anew. */
import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { dpoFields, loraFields, sftFields } from "../train/config-fields";

/** Every field's comment, as one line without its marks. */
function commentsOf(source: string): Record<string, { text: string; default?: string }> {
  const blocks = [...source.matchAll(/export const (\w+)Fields = \{([\s\S]*?)\n\};/g)];
  return Object.assign(
    {},
    ...blocks.map(([, name = "", body = ""]) => commentsIn(body, nested.has(name) ? `${name}.` : "")),
  );
}

/** Groups of fields that are one field of the trainers. */
const nested = new Set(["lora"]);

function commentsIn(source: string, prefix: string): Record<string, { text: string; default?: string }> {
  const found = [...source.matchAll(/\/\*\*((?:(?!\*\/)[\s\S])*)\*\/\s*(\w+):/g)].map(([, comment = "", key = ""]) => {
    const line = comment
      .replace(/^\s*\*/gm, " ")
      .replaceAll(/\s+/g, " ")
      .replaceAll("`", "")
      .trim();
    const [text = "", initial] = line.split(/\s*@default\s+/);
    const plain = text.replace(/\bnull\b/g, "none");
    return [
      prefix + key,
      { text: plain, ...(initial === undefined ? {} : { default: initial.replaceAll('"', "") }) },
    ] as const;
  });
  return Object.fromEntries(found);
}

it("every flag has the comment of its field as help", async () => {
  const comments = commentsOf(readFileSync(new URL("../train/config-fields.ts", import.meta.url), "utf8"));
  const loraKeys = Object.keys(loraFields).map((key) => `lora.${key}`);
  for (const key of [...Object.keys({ ...sftFields, ...dpoFields }), ...loraKeys]) {
    expect(comments[key]?.text, key).toMatch(/\.$/);
    expect(comments[key]?.default, key).toBeDefined();
  }
  await expect(`${JSON.stringify(comments, null, 2)}\n`).toMatchFileSnapshot("option-docs.json");
});
