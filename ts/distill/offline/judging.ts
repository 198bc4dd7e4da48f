/** Verdicts in the form that a foreign judge's prompt asks for. */
import { hash } from "../../../recipes/demo/world/random";
import type { Message } from "../../data/messages";
import type { Candidate, JudgePrompt } from "./judge-prompt";
import { type Verdict, verdictOn } from "./verdict";

/** A verdict as text, with the odds of the first candidate where a bare name is asked for. */
export interface Judged {
  text: string;
  /** The names that could stand there, with their probabilities. */
  odds?: readonly { token: string; probability: number }[];
}

/** Scores that are nearer than this are a tie. */
const tie = 0.5;

/** How much one point of difference weighs in the odds. */
const sharpness = 0.9;

/** Judges the last question of a prompt. */
export function passJudgement({ form, questions, candidates, references }: JudgePrompt): Judged {
  const verdicts = candidates.map((candidate) => verdictOf(candidate, questions, references));
  if (form === "rating") return { text: `${verdicts[0]!.rationale} Rating: [[${verdicts[0]!.score}]]` };
  const [first, second] = verdicts as [Verdict, Verdict];
  const difference = first.score - second.score;
  switch (form) {
    case "winner": {
      const winner = Math.abs(difference) < tie ? "C" : difference > 0 ? "A" : "B";
      return { text: `Assistant A: ${first.rationale} Assistant B: ${second.rationale} [[${winner}]]` };
    }
    case "ranks": {
      const ahead = difference > 0 || (difference === 0 && coin(candidates));
      const [a, b] = candidates.map(({ name }) => name);
      const [best, other] = ahead ? [a, b] : [b, a];
      return { text: `[{'model': '${best}', 'rank': 1}, {'model': '${other}', 'rank': 2}]` };
    }
    case "name": {
      const probability = 1 / (1 + Math.exp(-sharpness * difference));
      const odds = candidates.map(({ name }, index) => ({
        token: name,
        probability: index === 0 ? probability : 1 - probability,
      }));
      const ahead = difference > 0 || (difference === 0 && coin(candidates));
      return { text: candidates[ahead ? 0 : 1]!.name, odds };
    }
  }
}

function verdictOf({ answers }: Candidate, questions: readonly string[], references: readonly string[]): Verdict {
  const history = questions.flatMap((question, turn): Message[] => [
    { role: "user", content: question },
    ...(turn + 1 < questions.length ? [{ role: "assistant" as const, content: answers[turn] ?? "" }] : []),
  ]);
  return verdictOn(history, answers[questions.length - 1] ?? "", references[questions.length - 1]);
}

/** Between equals the texts decide, not the places: the same two in the other order give the same winner. */
function coin([first, second]: readonly Candidate[]): boolean {
  const mark = ({ answers }: Candidate) => hash(answers.join("\n"));
  return mark(first!) < mark(second!);
}
