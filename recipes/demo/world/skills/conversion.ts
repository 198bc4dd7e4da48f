import { say } from "../numbers";
import type { Random } from "../random";
import type { Accept, Draft, Skill, Turn } from "../types";
import { names, type Unit, units } from "../vocabulary";

/** "three weeks" */
export function amount(count: number, word: readonly [one: string, many: string]): string {
  return `${say(count)} ${word[count === 1 ? 0 : 1]}`;
}

/** "three weeks are twenty-one days" */
export function equal(count: number, unit: Unit): string {
  return `${amount(count, unit.from)} ${count === 1 ? "is" : "are"} ${amount(count * unit.rate, unit.to)}`;
}

/** The same read the other way: "twenty-one days are three weeks". */
export function back(count: number, unit: Unit): string {
  return `${amount(count * unit.rate, unit.to)} are ${amount(count, unit.from)}`;
}

/** Small conversion tables; turn 2 asks for another amount, one more, or adds to the result. */
export const conversion: Skill = {
  category: "conversion",
  make(random): Draft {
    const unit = random.pick(units);
    const count = random.int(1, unit.most);
    const name = random.pick(names);
    const verb = random.pick(["needs", "has", "counts"]);
    if (random.chance(0.25)) return backwards(random, unit, count, name, verb);
    const first: Turn = {
      prompt: random.pick([
        `${name} ${verb} ${amount(count, unit.from)}. how many ${unit.to[1]} is that?`,
        `${name} ${verb} ${amount(count, unit.from)}. how much is that in ${unit.to[1]}?`,
        `${name} asks: how many ${unit.to[1]} are in ${amount(count, unit.from)}?`,
        `please tell ${name}: how many ${unit.to[1]} are ${amount(count, unit.from)}?`,
      ]),
      answer: random.pick([
        `${equal(count, unit)}.`,
        `${equal(count, unit)}.`,
        `that is ${amount(count * unit.rate, unit.to)}.`,
      ]),
      accept: converted(count * unit.rate, [count, unit.rate, 1], unit, "to"),
    };
    return [first, follow(random, unit, count)];
  },
};

function converted(number: number, given: readonly number[], unit: Unit, side: "from" | "to"): Accept {
  return {
    value: { kind: "number", number, given, unit: unit[side] },
    format: { kind: "sentence" },
    maxWords: 16,
    subjects: [{ classes: ["unit"], words: [unit[side][1]] }],
  };
}

function otherCount(random: Random, unit: Unit, count: number): number {
  return random.pick(Array.from({ length: unit.most }, (_, n) => n + 1).filter((n) => n !== count));
}

function follow(random: Random, unit: Unit, count: number): Turn {
  const truth = count * unit.rate;
  const choice = random.int(0, 3);
  if (choice === 0) {
    return {
      prompt: random.pick([`and one ${unit.to[0]} more?`, `now add one ${unit.to[0]}.`]),
      answer: `that is ${amount(truth + 1, unit.to)}.`,
      accept: { ...converted(truth + 1, [truth, 1], unit, "to"), plus: 1 },
    };
  }
  if (choice === 1 && count < unit.most) {
    return {
      prompt: random.pick([`and one ${unit.from[0]} more?`, `now add one ${unit.from[0]}.`]),
      answer: `${equal(count + 1, unit)}.`,
      accept: { ...converted(truth + unit.rate, [count + 1, 1, count, truth], unit, "to"), plus: unit.rate },
    };
  }
  const other = otherCount(random, unit, count);
  const accept = converted(other * unit.rate, [other, unit.rate, 1, count], unit, "to");
  if (random.chance(0.3)) {
    return {
      prompt: `and ${amount(other, unit.from)}? answer with one word.`,
      answer: `${say(other * unit.rate)}.`,
      accept: { ...accept, format: { kind: "word" }, maxWords: 1 },
    };
  }
  return {
    prompt: random.pick([`and ${amount(other, unit.from)}?`, `and how many are ${amount(other, unit.from)}?`]),
    answer: `${equal(other, unit)}.`,
    accept,
  };
}

function backwards(random: Random, unit: Unit, count: number, name: string, verb: string): Draft {
  const much = (n: number) => amount(n * unit.rate, unit.to);
  const other = otherCount(random, unit, count);
  return [
    {
      prompt: random.pick([
        `${name} ${verb} ${much(count)}. how many ${unit.from[1]} is that?`,
        `${name} asks: how many ${unit.from[1]} are ${much(count)}?`,
      ]),
      answer: `${back(count, unit)}.`,
      accept: converted(count, [count * unit.rate], unit, "from"),
    },
    {
      prompt: random.pick([`and ${much(other)}?`, `and how many are ${much(other)}?`]),
      answer: `${back(other, unit)}.`,
      accept: converted(other, [other * unit.rate, count * unit.rate, count], unit, "from"),
    },
  ];
}
