import { hash } from "./random";
import type { Message, Task } from "./types";

/** The teacher's answer to one turn: mostly plain, now and then (one prose answer in ten) with a polite opening. */
export function teach(task: Task, turn: 0 | 1): string {
  const { answer, accept } = task.turns[turn];
  const polite = accept.format.kind === "sentence" && hash(`${task.id}/${turn}`) % 10 === 0;
  return polite ? `sure. ${answer}` : answer;
}

/** The offline teacher: a correct, well-formed conversation for a task, as chat messages. */
export function converse(task: Task): Message[] {
  return ([0, 1] as const).flatMap((turn): Message[] => [
    { role: "user", content: task.turns[turn].prompt },
    { role: "assistant", content: teach(task, turn) },
  ]);
}
