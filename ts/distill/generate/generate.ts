import { concurrently } from "../../client/concurrently";
import type { Message } from "../../data/messages";
import { wordsOf } from "../../data/word-runs";
import { draw } from "../draw";
import { chatModel, checkGiven } from "../options";
import { promptId } from "../prompt-id";
import { tallied } from "../tally";
import { type Conversed, converse } from "./converse";
import { drawOpenings } from "./openings";
import { type GenerateOptions, type GenerateSettings, generateSettings } from "./options";
import { countDropped, emptyReport, type GenerationReport, meanWith } from "./report";
import type { Sector } from "./sectors";
import { truecased } from "./truecase";

/** A row of ultrachat_200k. */
export interface ConversationRow {
  /** The first user message. */
  prompt: string;
  /** SHA-256 of the prompt. */
  prompt_id: string;
  messages: Message[];
}

/** A conversation with where it comes from. */
export interface GeneratedConversation {
  row: ConversationRow;
  split: "train" | "test";
  sector: Sector;
  topic: string;
  subtopic: string;
  persona: string;
}

/** Conversations as they are made, and a report that grows with them. */
export interface Generation extends AsyncIterable<GeneratedConversation> {
  readonly settings: GenerateSettings;
  readonly report: GenerationReport;
}

/**
 * Makes conversations as UltraChat did: topics → subtopics → first messages, then two models (or one in two roles) talk.
 *
 * The same options and the same answers give the same conversations in the same order, at any concurrency; a larger number
 * begins with what a smaller one gives. With a journal under the models a run that is repeated costs nothing.
 *
 * @throws ConfigError `ZA_CONFIG_INVALID`; while iterating, errors of the models and AbortedError
 */
export function generateConversations(options: GenerateOptions): Generation {
  checkGiven(options, { teacher: chatModel, user: chatModel }, ["teacher"]);
  const { teacher, user = teacher, passages, keepOut, signal, ...rest } = options;
  const settings = generateSettings(rest);
  const report = emptyReport();
  const plan = { teacher: tallied(teacher, report.calls), settings, report, passages, keepOut, signal };
  const roles = { assistant: plan.teacher, user: tallied(user, report.calls), settings, signal };

  async function* made(): AsyncGenerator<GeneratedConversation> {
    const openings = drawOpenings(plan);
    // Exactly what is missing is begun, and again what of that was dropped: nothing is paid for and thrown away.
    for (let missing = settings.conversations; missing > 0 && !report.exhausted; ) {
      const next = upTo(openings, missing, () => {
        report.exhausted = true;
      });
      for await (const conversed of concurrently(next, settings.concurrency, (each) => converse(each, roles))) {
        const conversation = finished(conversed, settings, report);
        if (!conversation) continue;
        missing--;
        yield conversation;
      }
    }
  }
  return { settings, report, [Symbol.asyncIterator]: made };
}

async function* upTo<T>(source: AsyncGenerator<T>, count: number, dry: () => void): AsyncGenerator<T> {
  for (let drawn = 0; drawn < count; drawn++) {
    const next = await source.next();
    if (next.done) return dry();
    yield next.value;
  }
}

function finished(
  conversed: Conversed,
  settings: GenerateSettings,
  report: GenerationReport,
): GeneratedConversation | undefined {
  const { opening, persona, messages: spoken } = conversed;
  if (!spoken) {
    countDropped(report, conversed.dropped, opening.text);
    return undefined;
  }
  const { truecase, seed, testShare } = settings;
  const messages = truecase ? spoken.map(({ role, content }) => ({ role, content: truecased(content) })) : spoken;
  if (messages.some(({ content }, index) => content !== spoken[index]!.content)) report.changed.truecased++;
  if (conversed.shortened) report.changed.shortened++;
  const prompt = messages[0]!.content;
  const prompt_id = promptId(prompt);
  const split = draw(seed, "test", prompt_id) < testShare ? "test" : "train";
  count(report, messages, opening.sector, persona.name, split);
  const { sector, topic, subtopic } = opening;
  return { row: { prompt, prompt_id, messages }, split, sector, topic, subtopic, persona: persona.name };
}

function count(
  report: GenerationReport,
  messages: readonly Message[],
  sector: Sector,
  persona: string,
  split: "train" | "test",
): void {
  const n = ++report.conversations;
  report.sectors[sector]++;
  report.splits[split]++;
  report.personas[persona] = (report.personas[persona] ?? 0) + 1;
  const rounds = messages.length / 2;
  const { rounds: seen, words } = report;
  seen.least = n === 1 ? rounds : Math.min(seen.least, rounds);
  seen.most = Math.max(seen.most, rounds);
  seen.mean = meanWith(seen.mean, n, rounds);
  const mean = (role: string) =>
    messages.reduce((sum, each) => sum + (each.role === role ? wordsOf(each.content).length : 0), 0) / rounds;
  words.user = meanWith(words.user, n, mean("user"));
  words.assistant = meanWith(words.assistant, n, mean("assistant"));
}
