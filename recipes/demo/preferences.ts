/** AI feedback in the demo: answers of the dSFT model and of the pool of flawed writers, rated; best against worst. */
import type { Mistral } from "../../ts/model/mistral";
import { maxTokens } from "./bench";
import { judge, type Message, makeTasks, pool, Random, type Task } from "./world";

/** A preference pair with the scores that made it. */
export interface RatedPair {
  prompt: Message[];
  chosen: Message[];
  rejected: Message[];
  score_chosen: number;
  score_rejected: number;
}

/** How pairs are made. */
export interface PreferenceOptions {
  seed: number;
  /** Tasks; each gives up to two pairs, one a turn. */
  tasks: number;
  /** Samples of the model for each prompt. */
  samples: number;
  temperature: number;
  /** Smallest difference of scores; closer answers make no pair. */
  margin: number;
  signal?: AbortSignal;
}

/**
 * Pairs for dDPO: for every prompt the model's own samples and one answer of a writer of the pool are rated by the
 * judge; the best is chosen, the worst rejected (the first of equals). Turn 2 is asked after the best answer to turn 1.
 */
export async function makePairs(model: Mistral, options: PreferenceOptions): Promise<RatedPair[]> {
  const { seed, samples, temperature, margin, signal } = options;
  const tasks = makeTasks({ seed, split: "pairs", count: options.tasks });
  const random = new Random(seed, "demo/pairs");
  const histories = tasks.map((task): Message[] => [{ role: "user", content: task.turns[0].prompt }]);
  const pairs: RatedPair[] = [];
  for (const turn of [0, 1] as const) {
    const prompts = histories.flatMap((history) => Array.from({ length: samples }, () => history));
    const generated = await model.generateBatch(prompts, {
      maxTokens,
      temperature,
      seed: seed * 1_000_003 + turn * 500_000,
      ...(signal ? { signal } : {}),
    });
    for (const [index, task] of tasks.entries()) {
      const history = histories[index]!;
      const own = generated.slice(index * samples, (index + 1) * samples).map(({ text }) => text.trim());
      const others = [random.pick(pool).write(task, turn, history, random)];
      const rated = rate(task, turn, history, [...own, ...others]);
      const best = rated[0]!;
      const worst = rated.at(-1)!;
      if (best.score - worst.score >= margin) {
        pairs.push({
          prompt: [...history],
          chosen: [{ role: "assistant", content: best.answer }],
          rejected: [{ role: "assistant", content: worst.answer }],
          score_chosen: best.score,
          score_rejected: worst.score,
        });
      }
      history.push({ role: "assistant", content: best.answer });
      if (turn === 0) history.push({ role: "user", content: task.turns[1].prompt });
    }
  }
  return pairs;
}

/** Answers with their scores, best first; an empty answer can't be trained on and is left out. */
function rate(task: Task, turn: 0 | 1, history: readonly Message[], answers: readonly string[]) {
  return answers
    .filter((answer) => answer !== "")
    .map((answer) => ({ answer, score: judge({ task, turn, history, answer }).score }))
    .sort((a, b) => b.score - a.score);
}
