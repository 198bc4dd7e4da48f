import type { Random } from "../random";
import type { Draft, Skill, Turn } from "../types";
import { type Aspect, ask, aspects, type Person, type Question, scene } from "./scene";

/** Look-ups in a text of two or three sentences; turn 2 asks about another person, or another thing about the same one. */
export const tables: Skill = {
  category: "tables",
  make(random): Draft {
    const { people, topic, text } = scene(random);
    const person = random.pick(people);
    const aspect = random.pick(aspects(topic));
    const question = ask(aspect, person);
    const first: Turn = {
      prompt: `${text} ${question.full}`,
      answer: random.pick(question.answers),
      accept: question.accept,
    };
    return [first, follow(random, people, person, aspect, topic)];
  },
};

function follow(
  random: Random,
  people: readonly Person[],
  person: Person,
  aspect: Aspect,
  topic: "things" | "places",
): Turn {
  if (topic === "things" && random.chance(0.35)) {
    // The same thing from another side: "it" and "that" stand for what turn 1 was about.
    return aspect === "owner"
      ? plain(random, ask("colour", person), "what colour is it?")
      : aspect === "colour"
        ? plain(random, ask("owner", person), "who has it?")
        : plain(random, ask("colour", person), "what colour is it?");
  }
  const other = random.pick(people.filter((candidate) => candidate !== person));
  const question = ask(aspect, other);
  if (random.chance(0.35)) {
    return {
      prompt: `${random.pick([question.short, question.full])} answer with one word.`,
      answer: `${question.oneWord}.`,
      accept: { ...question.accept, format: { kind: "word" }, maxWords: 1 },
    };
  }
  return plain(random, question, random.pick([question.short, `and ${question.full}`]));
}

function plain(random: Random, question: Question, prompt: string): Turn {
  return { prompt, answer: random.pick(question.answers), accept: question.accept };
}
