/** Who answers offline: the teacher, and members of a pool whose flaws are those of the world's writers. */
import { pool, type Random, teach, type WriterName, writerNames } from "../../../recipes/demo/world";
import type { Message } from "../../data/messages";
import { locate } from "./catalogue";
import { extractiveAnswer, spoilt } from "./heuristic";
import { worldMessages } from "./verdict";

type Weights = Readonly<Partial<Record<WriterName, number>>>;

/** Mixtures of the world's writers; beside them every writer can be asked for by its own name. */
const mixtures: Readonly<Record<string, Weights>> = {
  careless: { good: 4, "wrong-value": 4, "misjudges-text": 2 },
  wordy: { good: 3, "too-long": 6, babbles: 1 },
  sloppy: { good: 4, "wrong-format": 4, "stops-early": 2 },
  poor: { "off-topic": 3, babbles: 2, "ignores-turn-1": 3, "stops-early": 2 },
};

/** What can follow `offline:` in the name of a model. */
export const writerChoices: readonly string[] = [...Object.keys(mixtures), ...writerNames];

/** An answer to the last message of a conversation, with the flaws of a writer. */
export function writeAnswer(messages: readonly Message[], writer: string, random: Random): string {
  const flaw = writerNames.find((name) => name === writer) ?? drawn(mixtures[writer] ?? { good: 1 }, random);
  const found = locate(messages);
  if (!found) return spoilt(extractiveAnswer(messages, random), flaw, random);
  const { task, turn, history } = found;
  if (flaw === "good") return teach(task, turn);
  return pool.find(({ name }) => name === flaw)!.write(task, turn, worldMessages(history), random);
}

function drawn(weights: Weights, random: Random): WriterName {
  const entries = Object.entries(weights) as [WriterName, number][];
  let left = random.int(
    1,
    entries.reduce((sum, [, weight]) => sum + weight, 0),
  );
  for (const [name, weight] of entries) {
    left -= weight;
    if (left <= 0) return name;
  }
  return "good";
}
