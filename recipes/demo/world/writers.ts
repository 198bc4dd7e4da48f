import { readNumber, say } from "./numbers";
import type { Random } from "./random";
import { words } from "./reading";
import { has, isAt, people } from "./skills/scene";
import { teach } from "./teacher";
import type { Message, Task, Value } from "./types";
import { classOf, commas, names, things, vocabulary, wordsOf } from "./vocabulary";

/**
 * The pool that answers beside the model when pairs are made: one good writer and eight with a flaw each.
 * A writer sees the task and the conversation before its answer; the judge never learns which writer it was.
 */
export interface Writer {
  name: WriterName;
  write(task: Task, turn: 0 | 1, history: readonly Message[], random: Random): string;
}

export const writerNames = [
  "good",
  "wrong-value",
  "wrong-format",
  "too-long",
  "off-topic",
  "ignores-turn-1",
  "misjudges-text",
  "stops-early",
  "babbles",
] as const;
export type WriterName = (typeof writerNames)[number];

export const good: Writer = { name: "good", write: (task, turn) => teach(task, turn) };

/** Says it as the teacher does, with another number, order or word. */
export const wrongValue: Writer = {
  name: "wrong-value",
  write: (task, turn, _history, random) => spoil(task, turn, random),
};

/** Right content in a form nobody asked for. */
export const wrongFormat: Writer = {
  name: "wrong-format",
  write(task, turn, _history, random) {
    const { answer, accept } = task.turns[turn];
    const plain = answer.replace(/[.]$/, "");
    switch (accept.format.kind) {
      case "sentence":
        return random.chance(0.5) ? `- ${plain}.` : `note: ${plain}.`;
      case "word":
        return `that is ${plain}, as the text says.`;
      case "capitals":
        return random.chance(0.5) ? answer.toLowerCase() : `the word is ${answer.toLowerCase()}.`;
      case "list":
        return listOf(plain)
          .map((word) => `- ${word}`)
          .join("\n");
      case "numbered":
      case "dashes":
        return `${commas(answer.split("\n").map((line) => line.replace(/^(?:-|\d+\.) /, "")))}.`;
      case "pairs":
        return `${commas(answer.split("\n"))}.`;
      case "sentences":
        return accept.format.count === 1 ? answer.replace(" and ", ". ") : answer.replace(/\. (?=[A-Z])/g, " and ");
    }
  },
};

/** The right answer, then talk about other people. */
export const tooLong: Writer = {
  name: "too-long",
  write(task, turn, _history, random) {
    const { answer } = task.turns[turn];
    const talk = people(random, 4).map((person, i) => `${i % 2 === 0 ? has(person) : isAt(person)}.`);
    const opening = random.pick(["this is a good question.", "there is much to say here.", "let me tell more."]);
    return `${answer} ${opening} ${talk.join(" ")}`;
  },
};

/** A fine sentence that has nothing to do with the question. */
export const offTopic: Writer = {
  name: "off-topic",
  write(task, turn, _history, random) {
    const asked = task.turns
      .slice(0, turn + 1)
      .map((one) => one.prompt)
      .join(" ")
      .toLowerCase();
    const person = people(random, 1)[0]!;
    const fresh = (wordClass: "name" | "place" | "colour" | "item") =>
      random.pick(wordsOf(wordClass).filter((word) => !asked.includes(word)));
    const chosen = fresh("name");
    const name = names.find((candidate) => candidate.toLowerCase() === chosen) ?? person.name;
    return random.pick([
      `${name} is at the ${fresh("place")}.`,
      `the ${fresh("place")} is near the ${fresh("place")}.`,
      `${name} likes the ${fresh("place")}.`,
    ]);
  },
};

/** Gives its first answer again in turn 2. */
export const ignoresFirstTurn: Writer = {
  name: "ignores-turn-1",
  write(task, turn, history) {
    const before = history.find((message) => message.role === "assistant")?.content;
    return turn === 1 && before !== undefined ? before : teach(task, 0);
  },
};

/** Refuses what the text holds, and makes up what it does not. */
export const misjudgesText: Writer = {
  name: "misjudges-text",
  write(task, turn, _history, random) {
    const { value } = task.turns[turn].accept;
    return value.kind === "missing"
      ? invent(value, random)
      : random.pick(["the text does not say.", "that is not known."]);
  },
};

/** Stops in the middle. */
export const stopsEarly: Writer = {
  name: "stops-early",
  write(task, turn) {
    const parts = task.turns[turn].answer.split(/(?<=\s)/);
    const kept = parts.slice(0, Math.max(1, Math.ceil(parts.length / 2))).join("");
    return parts.length === 1 ? kept.slice(0, Math.ceil(kept.length / 2)) : kept.trim().replace(/[.]$/, "");
  },
};

/** Falls into a loop. */
export const babbles: Writer = {
  name: "babbles",
  write(task, turn, _history, random) {
    const pool = words(task.turns[turn].prompt).filter((word) => vocabulary.has(word.text));
    const some = random.some(pool, 3).map((word) => word.text);
    return Array.from({ length: random.int(4, 7) }, () => some.join(" ")).join(" ");
  },
};

/** All writers, the good one first. */
export const pool: readonly Writer[] = [
  good,
  wrongValue,
  wrongFormat,
  tooLong,
  offTopic,
  ignoresFirstTurn,
  misjudgesText,
  stopsEarly,
  babbles,
];

/** The words of "cat, dog, fox" or "from low to high: two, seven". */
function listOf(text: string): string[] {
  return text
    .replace(/^.*:\s*|^the list is now\s*/, "")
    .split(/,\s*/)
    .filter(Boolean);
}

function invent(value: Extract<Value, { kind: "missing" }>, random: Random): string {
  const person = people(random, 1)[0]!;
  const asked = value.asked[0] ?? "";
  const name = names.find((candidate) => candidate.toLowerCase() === asked);
  if (value.classes.includes("place")) return `${isAt({ ...person, name: name ?? person.name })}.`;
  if (value.classes.includes("item")) return `${has({ ...person, name: name ?? person.name })}.`;
  if (value.classes.includes("colour")) return `the ${asked} is ${person.colour}.`;
  return classOf(asked)?.class === "place"
    ? `${isAt({ ...person, place: asked })}.`
    : `${person.name} has the ${asked}.`;
}

/** The teacher's answer with its value exchanged for a wrong one. */
function spoil(task: Task, turn: 0 | 1, random: Random): string {
  const { answer, accept } = task.turns[turn];
  const { value } = accept;
  switch (value.kind) {
    case "number": {
      const wrong = value.number + random.pick(value.number > 3 ? [-3, -2, -1, 1, 2, 3] : [1, 2, 3]);
      return exchange(answer, [say(value.number)], (word) => (readNumber(word) === value.number ? say(wrong) : word));
    }
    case "list":
    case "sequence":
      return reorder(answer, value.items, random);
    case "word":
      return exchange(answer, [value.word], (word) => other(word, task.turns[0].prompt, random));
    case "missing":
      return invent(value, random);
    case "pairs": {
      const [, word] = random.pick(value.pairs);
      return exchange(answer, [word], (old) => other(old, "", random));
    }
  }
}

/** Replaces every occurrence of the words by what `change` makes of them, keeping capitals. */
function exchange(text: string, targets: readonly string[], change: (word: string) => string): string {
  const made = new Map<string, string>();
  return text.replace(/[A-Za-z]+(?:-[a-z]+)*/g, (word) => {
    if (!targets.includes(word.toLowerCase())) return word;
    const key = word.toLowerCase();
    const fresh = made.get(key) ?? change(key);
    made.set(key, fresh);
    if (word.length > 1 && word === word.toUpperCase()) return fresh.toUpperCase();
    return /^[A-Z]/.test(word) ? fresh.charAt(0).toUpperCase() + fresh.slice(1) : fresh;
  });
}

/** Another word of the same class, by preference one that the text names. */
function other(word: string, text: string, random: Random): string {
  const entry = classOf(word);
  const all = entry === undefined ? [...things] : wordsOf(entry.class);
  const near = all.filter((candidate) => candidate !== word && text.toLowerCase().includes(candidate));
  return random.pick(near.length > 0 ? near : all.filter((candidate) => candidate !== word));
}

/** Two items change places, or one is exchanged for a stranger. */
function reorder(text: string, items: readonly string[], random: Random): string {
  const different = [...new Set(items)];
  const a = random.pick(different);
  const same = different.filter((word) => word !== a && classOf(word)?.class === classOf(a)?.class);
  const loose = different.filter((word) => word !== a);
  const partners = same.length > 0 ? same : loose;
  if (partners.length > 0 && random.chance(0.7)) {
    const b = random.pick(partners);
    return exchange(text, [a, b], (word) => (word === a ? b : a));
  }
  const number = readNumber(a);
  if (number === undefined) return exchange(text, [a], (word) => other(word, "", random));
  const fresh = Array.from({ length: 20 }, (_, n) => say(n + 1)).filter((word) => !items.includes(word));
  return exchange(text, [a], () => random.pick(fresh));
}
