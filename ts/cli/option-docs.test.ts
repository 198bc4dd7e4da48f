/** The help of the flags is the comments of config-fields.ts: `npx vitest run ts/cli -u` writes option-docs.json anew. */
import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { loraFields } from "../train/config-fields";
import { type Method, methods } from "../train/methods";
import { documentationOf, type OptionDoc } from "./option-docs";

/** Every field's comment, as one line without its marks, by the object it stands in. */
function commentsOf(source: string): Record<string, Record<string, Partial<OptionDoc>>> {
  const objects = [...source.matchAll(/^export const (\w+Fields) = \{([\s\S]*?)^\};/gm)];
  return Object.fromEntries(objects.map(([, name = "", body = ""]) => [name, commentsIn(body)]));
}

function commentsIn(body: string): Record<string, Partial<OptionDoc>> {
  const found = [...body.matchAll(/\/\*\*((?:(?!\*\/)[\s\S])*)\*\/\s*(\w+):/g)].map(([, comment = "", key = ""]) => {
    const line = comment
      .replace(/^\s*\*/gm, " ")
      .replaceAll(/\s+/g, " ")
      .replaceAll("`", "")
      .trim();
    const [text = "", initial] = line.split(/\s*@default\s+/);
    const plain = text.replace(/\bnull\b/g, "none");
    return [key, { text: plain, ...(initial === undefined ? {} : { default: initial.replaceAll('"', "") }) }] as const;
  });
  return Object.fromEntries(found);
}

it("every flag has the comment of its field as help", async () => {
  const comments = commentsOf(readFileSync(new URL("../train/config-fields.ts", import.meta.url), "utf8"));
  await expect(`${JSON.stringify(comments, null, 2)}\n`).toMatchFileSnapshot("option-docs.json");
  for (const method of Object.keys(methods) as Method[]) {
    for (const key of Object.keys(methods[method].fields)) {
      const doc = documentationOf(method, key);
      expect(doc?.text, key).toMatch(/\.$/);
      expect(doc?.default, key).toBeDefined();
    }
    for (const key of Object.keys(loraFields)) {
      expect(documentationOf(method, `lora.${key}`)?.text, key).toMatch(/\.$/);
      expect(documentationOf(method, `lora.${key}`)?.default, key).toBeDefined();
    }
  }
});
