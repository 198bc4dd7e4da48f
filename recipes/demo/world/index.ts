/** The embedded world: tasks, teacher, flawed writers, judge and the plain-text corpus. Pure, seeded, offline. */
export { type CorpusOptions, corpus } from "./corpus";
export { type Finding, type FindingCode, type JudgeInput, type Judgement, judge } from "./judge";
export { Random } from "./random";
export { canonical, makeTasks, type Split, skills, splitOf, type TaskOptions } from "./tasks";
export { converse, teach } from "./teacher";
export {
  type Accept,
  type Category,
  categories,
  type Format,
  type Message,
  type Skill,
  type Task,
  type Turn,
  type Value,
} from "./types";
export { forms, vocabulary } from "./vocabulary";
export { pool, type Writer, type WriterName, writerNames } from "./writers";
