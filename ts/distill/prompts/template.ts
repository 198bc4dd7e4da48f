/** Prompt texts with slots. Each is one object that can be filled, and read again by who answers it offline. */

/** Names of the slots in a text: `"Name {{count}} topics of {{kind}}"` has `count` and `kind`. */
export type Slots<Text extends string> = Text extends `${string}{{${infer Slot}}}${infer Rest}`
  ? Slot | Slots<Rest>
  : never;

/** A text with slots. */
export interface Template<Slot extends string> {
  readonly text: string;
  /** The text with every slot filled. What is put in is not looked at again, so that braces in it stay braces. */
  fill(values: Readonly<Record<Slot, string | number>>): string;
  /**
   * What the slots of a filled text hold, or undefined when the text was not made from this template. A slot that occurs
   * twice must hold the same both times.
   */
  read(filled: string): Record<Slot, string> | undefined;
  /** The slots of every filled text that stands in a longer one, in order. */
  readAll(text: string): Record<Slot, string>[];
}

const slotPattern = /\{\{(\w+)\}\}/;

/** Makes a template of a text with `{{slots}}`. */
export function template<const Text extends string>(text: Text): Template<Slots<Text>> {
  // Literal texts at even positions, names of slots at odd ones.
  const parts = text.split(slotPattern);
  const known = new Set<string>();
  const pattern = parts
    .map((part, index) => {
      if (index % 2 === 0) return part.replace(/[.*+?^${}()|[\]\\/-]/g, "\\$&");
      if (known.has(part)) return `\\k<${part}>`;
      known.add(part);
      return `(?<${part}>[\\s\\S]*?)`;
    })
    .join("");
  const reader = new RegExp(`^${pattern}$`);
  return {
    text,
    fill: (values) =>
      parts.map((part, index) => (index % 2 === 0 ? part : String(values[part as Slots<Text>]))).join(""),
    read: (filled) => {
      const groups = reader.exec(filled)?.groups;
      return groups && ({ ...groups } as Record<Slots<Text>, string>);
    },
    readAll: (longer) =>
      [...longer.matchAll(new RegExp(pattern, "g"))].map(
        ({ groups }) => ({ ...groups }) as Record<Slots<Text>, string>,
      ),
  };
}
