import { type Passage, passages, talk } from "./passages";
import { Random } from "./random";

export interface CorpusOptions {
  seed: number;
  documents: number;
}

/** Documents have at least and at most this many words. */
export const documentWords = { least: 40, most: 150 } as const;

const drawing: readonly Passage[] = passages.flatMap(([weight, passage]) =>
  Array.from({ length: weight }, () => passage),
);

/**
 * Plain text of the world for pre-training, one document after the other. No roles, no chat, no orders to a reader,
 * and prompts of tasks do not occur: whoever learns from it knows the world but has not learnt to answer.
 * Document n depends on seed and n only.
 */
export function* corpus(options: CorpusOptions): Generator<string, void, undefined> {
  for (let n = 0; n < options.documents; n++) yield document(new Random(options.seed, `corpus/${n}`));
}

function document(random: Random): string {
  const target = random.int(documentWords.least + 10, documentWords.most - 40);
  const passage = random.pick(drawing);
  // Half of the documents stay with one subject; small talk alone would be empty.
  const focused = random.chance(0.5) && passage !== talk;
  let text = "";
  let count = 0;
  while (count < target) {
    for (const sentence of (focused ? passage : random.pick(drawing))(random)) {
      const length = sentence.split(/\s+/).length;
      if (count >= documentWords.least && count + length > documentWords.most) return text.trimEnd();
      text += text === "" || text.endsWith("\n") ? sentence : ` ${sentence}`;
      count += length;
    }
  }
  return text.trimEnd();
}
