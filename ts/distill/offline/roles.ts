/** What the offline teacher answers to the prompts of our own pipeline. Each is known by its template, read backwards. */
import type { Random, Task } from "../../../recipes/demo/world";
import type { Sampling } from "../../client";
import type { Message } from "../../data/messages";
import { type Sector, sectorNames } from "../generate/sectors";
import {
  endingPrompt,
  endMark,
  kinds,
  materialPrompt,
  openingsPrompt,
  passagesPrompt,
  subtopicsPrompt,
  topicsPrompt,
  userPrompt,
} from "../prompts/conversation";
import {
  type Aspect,
  aspectNames,
  aspects,
  backgroundPrompt,
  critiquePrompt,
  messagePrompt,
  ratingPrompt,
  responsePrompt,
} from "../prompts/rating";
import { responseKey } from "../rate/ratings";
import { locate, materialOf, subtopicOf, tasksAbout, tasksAt, tasksOf, topics } from "./catalogue";
import { furtherQuestion, requestsAbout } from "./heuristic";
import { type Verdict, verdictOn } from "./verdict";

/** The answer to a prompt of our pipeline; undefined when the last message is none. */
export function playRole(messages: readonly Message[], sampling: Sampling, random: Random): string | undefined {
  const prompt = messages.at(-1)?.content ?? "";
  return (
    planning(prompt, random) ??
    nextUserTurn(messages, prompt, random) ??
    rating(prompt, sampling) ??
    critique(prompt, sampling)
  );
}

function planning(prompt: string, random: Random): string | undefined {
  const topicList = topicsPrompt.read(prompt);
  if (topicList) return numbered(Object.keys(topics[sectorOf(topicList.kind)]).slice(0, Number(topicList.count)));
  const subtopics = subtopicsPrompt.read(prompt);
  if (subtopics) {
    const tasks = tasksOfTopic(sectorOf(subtopics.kind), subtopics.topic);
    return numbered([...new Set(tasks.map(subtopicOf))].slice(0, Number(subtopics.count)));
  }
  const openings = openingsPrompt.read(prompt);
  if (openings) {
    const tasks = tasksOfTopic(sectorOf(openings.kind), openings.topic);
    const fitting = narrowed(tasks, openings.subtopic);
    return numbered(random.some(fitting, Number(openings.count)).map(({ turns }) => turns[0].prompt));
  }
  const passages = passagesPrompt.read(prompt);
  if (passages) {
    const fitting = narrowed(tasksOfTopic("material", passages.topic), passages.subtopic);
    const texts = random.some(fitting, Number(passages.count)).map((task) => materialOf(task)!.passage);
    return texts.join("\n---\n");
  }
  const material = materialPrompt.read(prompt);
  if (material) {
    const count = Number(material.count);
    const known = tasksAbout(material.passage).map((task) => materialOf(task)!.request);
    return numbered(known.length > 0 ? known.slice(0, count) : requestsAbout(material.passage, count, random));
  }
  return undefined;
}

function nextUserTurn(messages: readonly Message[], prompt: string, random: Random): string | undefined {
  const read = userPrompt.read(prompt);
  if (!read) return undefined;
  const history = messages.slice(0, -1);
  const last = history.findLast(({ role }) => role === "user");
  const asked = history.slice(0, last ? history.lastIndexOf(last) + 1 : 0);
  const found = locate(asked);
  if (found?.turn === 0) {
    // The same first prompt may begin several tasks.
    return random.pick(tasksAt(last!.content)).turns[1].prompt;
  }
  if (found) return read.ending === endingPrompt ? endMark : freshTask(found.task, random);
  return read.ending === endingPrompt && random.chance(0.3) ? endMark : furtherQuestion(history, random);
}

/** A conversation that must go on after both turns of a task goes on with another one of its kind. */
function freshTask(task: Task, random: Random): string {
  return random.pick(narrowed(tasksOf(task.category, "train"), subtopicOf(task))).turns[0].prompt;
}

function rating(prompt: string, sampling: Sampling): string | undefined {
  const read = ratingPrompt.read(prompt);
  if (!read) return undefined;
  const conversation = conversationOf(read.conversation);
  const responses = responsePrompt.readAll(read.responses).map(({ response }) => response);
  const verdicts = responses.map((response) => verdictOn(conversation, response, backgroundOf(read.background)));
  const asked = aspectNames.filter((name) => read.aspects.includes(`${aspects[name].title}:`));
  return sampling.schema ? ratingJson(verdicts, asked) : ratingText(verdicts, asked);
}

function ratingJson(verdicts: readonly Verdict[], asked: readonly Aspect[]): string {
  const responses = verdicts.map((verdict, index) => [
    responseKey(index + 1),
    Object.fromEntries(asked.map((name) => [name, verdict.aspects[name]])),
  ]);
  return JSON.stringify(Object.fromEntries(responses));
}

function ratingText(verdicts: readonly Verdict[], asked: readonly Aspect[]): string {
  const lines = verdicts.map((verdict, index) => {
    const rows = asked.map(
      (name) => `${aspects[name].title}: ${verdict.aspects[name].rating} - ${verdict.aspects[name].rationale}`,
    );
    return [`Response ${index + 1}`, ...rows].join("\n");
  });
  return lines.join("\n\n");
}

function critique(prompt: string, sampling: Sampling): string | undefined {
  const read = critiquePrompt.read(prompt);
  if (!read) return undefined;
  const conversation = conversationOf(read.conversation);
  const { score, rationale } = verdictOn(conversation, read.response, backgroundOf(read.background));
  if (sampling.schema) return JSON.stringify({ critique: rationale, overall_score: score });
  return `${rationale}\n\nOverall score: ${score}`;
}

function backgroundOf(slot: string): string | undefined {
  return backgroundPrompt.read(slot)?.background;
}

function conversationOf(text: string): Message[] {
  return messagePrompt.readAll(text).map(({ role, content }) => ({ role: role as Message["role"], content }));
}

function sectorOf(kind: string): Sector {
  return sectorNames.find((name) => kinds[name] === kind) ?? "world";
}

function tasksOfTopic(sector: Sector, topic: string): readonly Task[] {
  const known = topics[sector];
  const category = known[topic] ?? Object.values(known)[0]!;
  return tasksOf(category, "train");
}

/** The tasks of a subtopic; all of them when nobody knows it. */
function narrowed(tasks: readonly Task[], subtopic: string): readonly Task[] {
  const fitting = tasks.filter((task) => subtopicOf(task) === subtopic);
  return fitting.length > 0 ? fitting : tasks;
}

function numbered(lines: readonly string[]): string {
  return lines.map((line, index) => `${index + 1}. ${line.replaceAll("\n", " ")}`).join("\n");
}
