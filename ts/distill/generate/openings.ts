/**
 * First messages, drawn one after the other without end: topics → subtopics → messages, sector by sector and topic by
 * topic in turn, so that a short run sees all topics and a longer one begins like a shorter one.
 */
import { ask, type ChatModel, type Parsed } from "../../client";
import { throwIfAborted } from "../../errors";
import { drawOne, drawOrder, drawWeighted, seedOf } from "../draw";
import { Duplicates } from "../duplicates";
import { promptId } from "../prompt-id";
import {
  joins,
  kinds,
  materialPrompt,
  openingsPrompt,
  othersPrompt,
  passagesPrompt,
  subtopicsPrompt,
  topicsPrompt,
} from "../prompts/conversation";
import { turnProblem, withoutLabel } from "./filters";
import { parseList, parseTexts } from "./list-answer";
import type { GenerateSettings } from "./options";
import { countDropped, type GenerationReport } from "./report";
import { passageLength, type Sector, sectorNames, userLengths } from "./sectors";

/** How a conversation begins. */
export interface Opening {
  sector: Sector;
  topic: string;
  subtopic: string;
  text: string;
}

/** An opening before it is compared with the others. `scope` and `request` are what it is compared by. */
interface Candidate extends Opening {
  scope: string;
  request: string;
}

/** What the plan is made with. */
export interface PlanSources {
  teacher: ChatModel;
  settings: GenerateSettings;
  report: GenerationReport;
  passages?: AsyncIterable<string> | Iterable<string> | undefined;
  keepOut?: ((opening: string) => string | undefined) | undefined;
  signal?: AbortSignal | undefined;
}

/** Texts of a file stand under one topic. */
const givenTopic = "given texts";

/** Taken messages that are shown when a subtopic is visited again. */
const takenShown = 20;

/** Longest list of a plan, in tokens for each item. */
const tokensPerLine = 30;
const tokensPerMessage = 120;
const tokensPerPassage = 400;

/** All openings in their order. Ends when no sector has a new one. */
export async function* drawOpenings(sources: PlanSources): AsyncGenerator<Opening> {
  const { settings, report, keepOut } = sources;
  const streams = new Map(
    sectorNames
      .filter((name) => settings.sectors[name].weight > 0)
      .map((name) => [name, (name === "material" ? materialOpenings : plainOpenings)(sources, name)] as const),
  );
  const seen = new Duplicates(settings.nearDuplicates);
  for (let index = 0; streams.size > 0; index++) {
    const weights = Object.fromEntries([...streams.keys()].map((name) => [name, settings.sectors[name].weight]));
    const sector = drawWeighted(weights, settings.seed, "sector", index) as Sector;
    const next = await streams.get(sector)!.next();
    if (next.done) {
      streams.delete(sector);
      continue;
    }
    report.openings++;
    const { scope, request, ...opening } = next.value;
    const duplicate = seen.add(request, scope);
    const problem = turnProblem("user", request, "");
    if (problem) countDropped(report, problem, opening.text);
    else if (duplicate) countDropped(report, `${duplicate.kind}-duplicate`, opening.text);
    else if (keepOut?.(opening.text) !== undefined) countDropped(report, "overlap", opening.text);
    else yield opening;
  }
}

/** Turns of topics: one opening of each, again and again, until all are dry. */
async function* inTurn(streams: AsyncGenerator<Candidate>[]): AsyncGenerator<Candidate> {
  let left = streams;
  while (left.length > 0) {
    const dry = new Set<AsyncGenerator<Candidate>>();
    for (const stream of left) {
      const next = await stream.next();
      if (next.done) dry.add(stream);
      else yield next.value;
    }
    left = left.filter((stream) => !dry.has(stream));
  }
}

async function* plainOpenings(sources: PlanSources, sector: Sector): AsyncGenerator<Candidate> {
  const topics = await topicsOf(sources, sector);
  yield* inTurn(topics.map((topic) => openingsOfTopic(sources, sector, topic)));
}

async function* openingsOfTopic(sources: PlanSources, sector: Sector, topic: string): AsyncGenerator<Candidate> {
  const { settings } = sources;
  const kind = kinds[sector];
  const { first: length } = userLengths[sector];
  const count = settings.openings;
  const taken = new Map<string, string[]>();
  const subtopics = await subtopicsOf(sources, sector, topic);
  yield* untilDry(subtopics, async (subtopic, lap) => {
    const others = othersOf(taken.get(subtopic));
    const prompt = openingsPrompt.fill({ kind, topic, subtopic, count, length, others });
    const what = `messages on ${subtopic} (${topic})`;
    const list = await asked(sources, what, prompt, count * tokensPerMessage, parseList, [
      sector,
      topic,
      subtopic,
      lap,
    ]);
    taken.set(subtopic, [...(taken.get(subtopic) ?? []), ...list]);
    return list.map((line): Candidate => {
      const text = withoutLabel(line);
      return { sector, topic, subtopic, text, request: text, scope: "" };
    });
  });
}

async function* materialOpenings(sources: PlanSources, sector: Sector): AsyncGenerator<Candidate> {
  if (sources.passages) {
    yield* givenTexts(sources, sources.passages);
    return;
  }
  const topics = await topicsOf(sources, sector);
  yield* inTurn(topics.map((topic) => writtenTexts(sources, topic)));
}

/** Requests about the texts of a file, each text once. */
async function* givenTexts(
  sources: PlanSources,
  passages: AsyncIterable<string> | Iterable<string>,
): AsyncGenerator<Candidate> {
  let number = 0;
  for await (const passage of passages) yield* await requestsOn(sources, passage, givenTopic, `text ${++number}`, 0);
}

/** Requests about texts that the teacher writes. */
async function* writtenTexts(sources: PlanSources, topic: string): AsyncGenerator<Candidate> {
  const { settings } = sources;
  const count = Math.max(1, Math.round(settings.openings / settings.requests));
  const subtopics = await subtopicsOf(sources, "material", topic);
  yield* untilDry(subtopics, async (subtopic, lap) => {
    const prompt = passagesPrompt.fill({ topic, subtopic, count, length: passageLength });
    const path = ["passages", topic, subtopic, lap] as const;
    const texts = await asked(sources, `texts on ${subtopic}`, prompt, count * tokensPerPassage, parseTexts, path);
    const found: Candidate[] = [];
    for (const passage of texts) found.push(...(await requestsOn(sources, passage, topic, subtopic, lap)));
    return found;
  });
}

async function requestsOn(
  sources: PlanSources,
  given: string,
  topic: string,
  subtopic: string,
  lap: number,
): Promise<Candidate[]> {
  const { settings, report } = sources;
  const passage = shortened(given.trim(), settings.passageWords);
  if (passage === "") return [];
  if (passage !== given.trim()) report.changed.passagesCut++;
  const scope = promptId(passage);
  const count = settings.requests;
  // The mark is a word that the text cannot hold, so that the text cannot end itself.
  const prompt = materialPrompt.fill({ mark: scope.slice(0, 8), passage, count, others: "" });
  const what = `requests about a text on ${subtopic}`;
  const list = await asked(sources, what, prompt, count * tokensPerMessage, parseList, ["requests", scope, lap]);
  return list.map((line) => {
    const request = withoutLabel(line);
    const plain = passage.includes("\n") ? joins.slice(1) : joins;
    const join = drawOne(plain, settings.seed, "join", scope, request);
    return { sector: "material", topic, subtopic, text: join.fill({ passage, request }), request, scope };
  });
}

/**
 * Visits the subtopics in laps. The stream is dry when a whole lap brought nothing that it had not brought before: a model
 * that has no more to say repeats itself.
 */
async function* untilDry(
  subtopics: readonly string[],
  visit: (subtopic: string, lap: number) => Promise<Candidate[]>,
): AsyncGenerator<Candidate> {
  const known = new Set<string>();
  for (let lap = 0; ; lap++) {
    const before = known.size;
    for (const subtopic of subtopics) {
      for (const candidate of await visit(subtopic, lap)) {
        known.add(`${candidate.scope}\u0000${candidate.request}`);
        yield candidate;
      }
    }
    if (known.size === before) return;
  }
}

async function topicsOf(sources: PlanSources, sector: Sector): Promise<string[]> {
  const { seed, topics: count } = sources.settings;
  const prompt = topicsPrompt.fill({ kind: kinds[sector], count });
  const list = await asked(sources, `topics of ${sector}`, prompt, count * tokensPerLine, parseList, [
    "topics",
    sector,
  ]);
  return drawOrder([...new Set(list)], seed, "topics", sector);
}

async function subtopicsOf(sources: PlanSources, sector: Sector, topic: string): Promise<string[]> {
  const { seed, subtopics: count } = sources.settings;
  const prompt = subtopicsPrompt.fill({ kind: kinds[sector], topic, count });
  const path = ["subtopics", sector, topic] as const;
  const list = await asked(sources, `subtopics of ${topic}`, prompt, count * tokensPerLine, parseList, path);
  return drawOrder([...new Set(list)], seed, ...path);
}

/** What the teacher answers, parsed; nothing, and a failure in the report, when it cannot be read. */
async function asked<T>(
  { teacher, settings, report, signal }: PlanSources,
  what: string,
  prompt: string,
  maxTokens: number,
  parse: (text: string) => Parsed<T[]>,
  path: readonly (string | number)[],
): Promise<T[]> {
  throwIfAborted(signal);
  const sampling = {
    maxTokens: Math.max(256, maxTokens),
    temperature: settings.userTemperature,
    seed: seedOf(settings.seed, ...path),
  };
  const messages = [{ role: "user" as const, content: prompt }];
  const found = await ask(teacher, { messages, sampling, purpose: "distil plan", ...(signal && { signal }) }, parse);
  if (found.problem === undefined) return found.value;
  report.failures.push({ what, problem: found.problem });
  return [];
}

function othersOf(taken: readonly string[] | undefined): string {
  if (!taken || taken.length === 0) return "";
  return othersPrompt.fill({
    taken: taken
      .slice(-takenShown)
      .map((line) => `- ${line}`)
      .join("\n"),
  });
}

/** A text of at most so many words, cut at the end of a sentence where there is one. */
function shortened(text: string, most: number): string {
  const words = [...text.matchAll(/\S+/g)];
  if (words.length <= most) return text;
  const last = words[most - 1]!;
  const head = text.slice(0, last.index + last[0].length);
  const end = [...head.matchAll(/[.!?]["”')]*(?=\s)/g)].at(-1);
  return end ? head.slice(0, end.index + end[0].length) : head;
}
