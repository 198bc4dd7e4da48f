/**
 * What the offline teacher does with text that is not of its world. It has no language model: answers are sentences of
 * the text given to it, and scores come from the outside of an answer. Every such score says that of itself.
 */
import type { Random } from "../../../recipes/demo/world";

import type { Message } from "../../data/messages";
import { loopIn } from "../generate/loops";

const commonWords = new Set(
  `a about after all also an and any are as at be because been but by can could did do does for from give had has have how i if in
  into is it its let like make may me more most my name no not of on one only or other our out over please say should so some
  tell text than that the their them then there these they this to too two up us use was we were what when where which who
  why will with word words would write you your`.split(/\s+/),
);

/** Lower-case words that carry a meaning, each once. */
export function contentWords(text: string): string[] {
  const words = text.toLowerCase().match(/\p{L}[\p{L}\p{N}'-]+|\p{N}+(?:[.,]\p{N}+)*/gu) ?? [];
  return [...new Set(words.filter((word) => !commonWords.has(word)))];
}

/** Sentences and lines of a text. */
export function sentencesOf(text: string): string[] {
  return text
    .split(/(?<=[.!?])\s+|\n+/)
    .map((part) => part.trim())
    .filter((part) => /[\p{L}\p{N}]/u.test(part));
}

/** Longest text that is looked at, in sentences. */
const longest = 400;

/** An answer made of what the conversation holds: its sentences that share most words with the question. */
export function extractiveAnswer(messages: readonly Message[], random: Random): string {
  const users = messages.filter(({ role }) => role === "user").map(({ content }) => content);
  const question = users.at(-1) ?? "";
  const sentences = users.flatMap(sentencesOf).slice(0, longest);
  const asked = sentencesOf(question).at(-1) ?? question;
  const material = sentences.filter((sentence) => sentence !== asked && !sentence.endsWith("?"));
  const wanted = new Set(contentWords(asked));
  if (material.length >= 2) {
    const scored = material
      .map((sentence, index) => ({
        sentence,
        index,
        hits: contentWords(sentence).filter((word) => wanted.has(word)).length,
      }))
      .sort((a, b) => b.hits - a.hits || a.index - b.index);
    const gist = /\b(gist|summary|summari[sz]e|sum up|short)\b/i.test(asked);
    if (gist) return `In short: ${material[0]}`;
    const best = scored.filter(({ hits }) => hits > 0).slice(0, 2);
    if (best.length === 0) return "The given text does not say that.";
    const quoted = best.sort((a, b) => a.index - b.index).map(({ sentence }) => sentence);
    return `${random.pick(["The text says:", "This is said:", "From the text:"])} ${quoted.join(" ")}`;
  }
  const topic = contentWords(question).slice(0, 6).join(", ");
  return (
    `This answer comes from a program without a language model, which stands in for a teacher when there is no network. ` +
    `${topic ? `You ask about ${topic}. ` : ""}It knows nothing of that, and will not make anything up.`
  );
}

/** First requests about a text: what its own words allow to ask. */
export function requestsAbout(passage: string, count: number, random: Random): string[] {
  const words = random.shuffle(contentWords(passage).filter((word) => word.length > 4));
  const forms = [
    (word: string) => `What does the text say about "${word}"?`,
    (word: string) => `In which sentence does the word "${word}" stand?`,
    (word: string) => `Quote what is said about "${word}".`,
  ];
  const asked = words.slice(0, Math.max(0, count - 1)).map((word) => random.pick(forms)(word));
  return [...asked, random.pick(["Give the gist of the text in one sentence.", "Sum up the text in one sentence."])];
}

/** A further question of a simulated user about the last answer. */
export function furtherQuestion(messages: readonly Message[], random: Random): string {
  const last = messages.findLast(({ role }) => role === "assistant")?.content ?? "";
  const words = contentWords(last).filter((word) => word.length > 4);
  const word = words.length > 0 ? random.pick(words) : undefined;
  if (word === undefined) return random.pick(["Can you say that in other words?", "Is that all that can be said?"]);
  return random.pick([
    `What else is said about "${word}"?`,
    `And what about "${word}"?`,
    `Can you come back to "${word}"?`,
    `Why did you speak of "${word}"?`,
  ]);
}

/** A score from 1 to 9.5 with its reasons. */
export interface HeuristicScore {
  score: number;
  reasons: string[];
}

/** Words of an answer that speak to the judge instead of the person who asked. */
const addressesJudge =
  /\[\[[^\]]*\]\]|\b(the|dear|hello) (judge|evaluator|rater)\b|\brating:|\bbest (answer|response|output)\b/i;

/**
 * Looks at an answer from outside: whether it is empty, how many of the question's words it takes up, how much it says,
 * whether it loops, breaks off or speaks to the judge, and how near it is to a reference. It cannot tell true from false.
 */
export function heuristicScore(question: string, answer: string, reference?: string): HeuristicScore {
  const text = answer.trim();
  if (!/[\p{L}\p{N}]/u.test(text)) return { score: 1, reasons: ["there is no answer"] };
  const reasons: string[] = [];
  let score = 4;
  const give = (points: number, reason: string) => {
    score += points;
    reasons.push(reason);
  };
  const said = new Set(contentWords(text));
  const share = (words: readonly string[]) => words.filter((word) => said.has(word)).length / Math.max(1, words.length);
  const asked = contentWords(question).slice(0, 40);
  const taken = share(asked);
  give(2 * Math.min(1, 2 * taken), `it takes up ${Math.round(100 * taken)} % of the question's words`);
  const words = text.split(/\s+/).length;
  give(Math.min(2.5, Math.log2(1 + words / 6) / 2), `it has ${words} words`);
  const loop = loopIn(text);
  if (loop !== undefined) give(-3, `it repeats "${loop}"`);
  if (!/[.!?:)\]}"'`*|>\d]$/.test(text)) give(-1, "it breaks off");
  if (addressesJudge.test(text)) give(-3, "it speaks to the judge");
  if (reference !== undefined) {
    const near = share(contentWords(reference).slice(0, 60));
    const numbers = reference.match(/\d+(?:[.,]\d+)*/g) ?? [];
    const hasResult = numbers.length === 0 || text.includes(numbers.at(-1)!);
    give(2 * near - (hasResult ? 0 : 2), `it shares ${Math.round(100 * near)} % of the reference's words`);
  }
  return { score: Math.min(9.5, Math.max(1, Math.round(score * 2) / 2)), reasons };
}

/** The flaws of the world's writers on any text. */
export function spoilt(text: string, flaw: string, random: Random): string {
  const sentences = sentencesOf(text);
  switch (flaw) {
    case "wrong-value":
      return /\d/.test(text)
        ? text.replace(/\d+/g, (digits) => String(Number(digits) + random.int(1, 9)))
        : `It is not so: ${text}`;
    case "wrong-format":
      return sentences.map((sentence) => `- ${sentence}`).join("\n");
    case "too-long":
      return `${text} ${Array.from({ length: 4 }, () => random.pick(["There is much to say here.", "That is a good question.", "One could go on."])).join(" ")}`;
    case "off-topic":
      return random.pick([
        "The weather is nice today.",
        "My favourite colour is blue.",
        "Let me tell you of my garden.",
      ]);
    case "ignores-turn-1":
      return sentences[0] ?? text;
    case "misjudges-text":
      return random.pick(["The text does not say.", "That is not known."]);
    case "stops-early":
      return text
        .split(/\s+/)
        .slice(0, Math.ceil(text.split(/\s+/).length / 2))
        .join(" ");
    case "babbles": {
      const some = random.some(text.split(/\s+/), 3).join(" ");
      return Array.from({ length: random.int(4, 7) }, () => some).join(" ");
    }
    default:
      return text;
  }
}
