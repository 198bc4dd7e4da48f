/**
 * zephyr-align/bench: the embedded bench, for Node and for web pages.
 *
 * Held-out tasks of two turns in eight categories, answered by any {@link LanguageModel} and judged by rules, offline and blind;
 * and what a page shows of it.
 */
export {
  type BenchScores,
  type Judged,
  maxTokens,
  runBench,
  scoresOf,
  temperatures,
} from "../recipes/demo/bench";
export { type Category, categories, type Judgement, judge, makeTasks, type Task } from "../recipes/demo/world";
export type { LanguageModel } from "./model/language-model";
export { benchHtml, benchStyle, type JudgedRun } from "./report/bench-view";
