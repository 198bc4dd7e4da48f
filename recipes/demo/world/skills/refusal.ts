import type { Random } from "../random";
import type { Draft, Skill, Turn } from "../types";
import { ask, askMissing, aspects, type Question, scene, stranger } from "./scene";

/**
 * Questions that the text often leaves open: then the only right answer is that it does not say.
 * In each task one turn or both are open, so that neither always refusing nor never refusing pays.
 */
export const refusal: Skill = {
  category: "refusal",
  make(random): Draft {
    const { people, topic, text } = scene(random);
    const aspect = random.pick(aspects(topic));
    const somebody = random.pick(people);
    const nobody = stranger(random, people);
    const nobodyElse = stranger(random, [...people, nobody]);
    const [first, second]: [Question, Question] = [
      [askMissing(aspect, nobody), ask(aspect, somebody)] as [Question, Question],
      [askMissing(aspect, nobody), ask(aspect, somebody)] as [Question, Question],
      [ask(aspect, somebody), askMissing(aspect, nobody)] as [Question, Question],
      [ask(aspect, somebody), askMissing(aspect, nobody)] as [Question, Question],
      [askMissing(aspect, nobody), askMissing(aspect, nobodyElse)] as [Question, Question],
    ][random.int(0, 4)]!;
    return [
      turn(
        random,
        first,
        random.pick([
          `${text} ${first.full}`,
          `read this text. ${text} ${first.full}`,
          `${text} ${first.full} if the text does not say, tell me.`,
        ]),
      ),
      turn(random, second, random.pick([second.short, `and ${second.full}`])),
    ];
  },
};

function turn(random: Random, question: Question, prompt: string): Turn {
  return { prompt, answer: random.pick(question.answers), accept: question.accept };
}
