/** The embedded bench: held-out tasks of two turns in eight categories, answered by a model and judged blind. */
import { bootstrapMean, type Estimate } from "../../ts/judge/statistics";
import type { LanguageModel } from "../../ts/model/language-model";
import { type Category, categories, type Judgement, judge, type Message, type Task } from "./world";

/**
 * Sampling temperature by category, as MT-Bench has it for its own: 0 where one answer is right by calculation, 0.1 for
 * knowledge, 0.7 for writing.
 */
export const temperatures: Readonly<Record<Category, number>> = {
  arithmetic: 0,
  sorting: 0,
  counting: 0,
  tables: 0,
  conversion: 0.1,
  refusal: 0.1,
  edits: 0.7,
  format: 0.7,
};

/** Tokens of an answer; the longest right one has about 30. */
export const maxTokens = 48;

/** Both answers of a model to a task, judged. */
export interface Judged {
  task: Task;
  answers: [text: string, text: string];
  judgements: [Judgement, Judgement];
}

/** Answers every task, turn 2 after the model's own turn 1, and judges. The judge sees the text, never whose it is. */
export async function runBench(
  model: Pick<LanguageModel, "generateBatch">,
  tasks: readonly Task[],
  options: { seed: number; signal?: AbortSignal; onProgress?: (answered: number, all: number) => void },
): Promise<Judged[]> {
  let answered = 0;
  const histories = tasks.map((task): Message[] => [{ role: "user", content: task.turns[0].prompt }]);
  const texts: string[][] = [];
  for (const turn of [0, 1] as const) {
    const answers: string[] = new Array(tasks.length);
    for (const category of categories) {
      const mine = tasks.flatMap((task, index) => (task.category === category ? [index] : []));
      const generated = await model.generateBatch(
        mine.map((index) => histories[index]!),
        {
          maxTokens,
          temperature: temperatures[category],
          seed: options.seed * 1000 + turn * 500,
          ...(options.signal ? { signal: options.signal } : {}),
        },
      );
      for (const [at, index] of mine.entries()) answers[index] = generated[at]!.text.trim();
      answered += mine.length;
      options.onProgress?.(answered, 2 * tasks.length);
    }
    texts.push(answers);
    for (const [index, task] of tasks.entries()) {
      histories[index]!.push({ role: "assistant", content: answers[index]! });
      if (turn === 0) histories[index]!.push({ role: "user", content: task.turns[1].prompt });
    }
  }
  return tasks.map((task, index) => {
    const history = histories[index]!;
    const answers: [string, string] = [texts[0]![index]!, texts[1]![index]!];
    return {
      task,
      answers,
      judgements: [
        judge({ task, turn: 0, history: history.slice(0, 1), answer: answers[0] }),
        judge({ task, turn: 1, history: history.slice(0, 3), answer: answers[1] }),
      ],
    };
  });
}

/** Scores of a model: overall, by turn, by category; every one with n and its interval. */
export interface BenchScores {
  score: Estimate;
  turn1: Estimate;
  turn2: Estimate;
  categories: Record<Category, Estimate>;
}

/** Sums up judged answers. */
export function scoresOf(judged: readonly Judged[]): BenchScores {
  const both = (each: Judged) => each.judgements.map(({ score }) => score);
  const byCategory = categories.map((category): [Category, Estimate] => [
    category,
    bootstrapMean(judged.filter(({ task }) => task.category === category).map(both)),
  ]);
  return {
    score: bootstrapMean(judged.map(both)),
    turn1: bootstrapMean(judged.map(({ judgements }) => [judgements[0].score])),
    turn2: bootstrapMean(judged.map(({ judgements }) => [judgements[1].score])),
    categories: Object.fromEntries(byCategory) as Record<Category, Estimate>,
  };
}
