/** Ratings and critiques of the answers to one prompt. */
import { type Asked, ask, type ChatModel, type Parsed } from "../../client";
import type { Message } from "../../data/messages";
import { throwIfAborted } from "../../errors";
import { drawOrder } from "../draw";
import { promptId } from "../prompt-id";
import {
  type Aspect,
  aspectNames,
  aspectPrompt,
  aspects,
  backgroundPrompt,
  critiqueJsonForm,
  critiquePrompt,
  critiqueTextForm,
  messagePrompt,
  ratingJsonForm,
  ratingPrompt,
  responsePrompt,
} from "../prompts/rating";
import type { RateSettings } from "./options";
import type { FeedbackPrompt } from "./prompts";
import {
  type Critique,
  critiqueSchema,
  parseCritique,
  parseRatings,
  type Ratings,
  ratingForm,
  ratingSchema,
} from "./ratings";

/** Tokens of a rating of one aspect, and of a critique. */
const tokensPerRating = 150;
const tokensOfCritique = 600;

/** A rated or criticised answer, or what failed. */
export type Annotated<T> = Parsed<T> & { answers: string[] };

/** Whoever rates, and how. */
export interface Rater {
  model: ChatModel;
  settings: RateSettings;
  signal?: AbortSignal | undefined;
}

/** Ratings of the answers in their order; `places` holds the place at which each was shown, for each call. */
export interface Rated {
  ratings: Ratings[];
  places: number[][];
}

/**
 * Rates the answers, all together in one order that is drawn for each call, so that no answer gains by its place in all
 * of them.
 */
export async function rateAnswers(
  prompt: FeedbackPrompt,
  id: string,
  answers: readonly string[],
  rater: Rater,
): Promise<Annotated<Rated>> {
  const { settings } = rater;
  const groups: (readonly Aspect[])[] =
    settings.ratings === "together" ? [aspectNames] : aspectNames.map((name) => [name]);
  const rated = await Promise.all(groups.map((wanted) => rateOnce(prompt, id, answers, wanted, rater)));
  const failed = rated.find(({ problem }) => problem !== undefined);
  if (failed?.problem !== undefined) return { problem: failed.problem, answers: failed.answers };
  const parts = rated.map(({ value }) => value!);
  const ratings = answers.map((_, index): Ratings => Object.assign({}, ...parts.map((part) => part.ratings[index])));
  return { value: { ratings, places: parts.flatMap(({ places }) => places) }, answers: [] };
}

async function rateOnce(
  prompt: FeedbackPrompt,
  id: string,
  answers: readonly string[],
  wanted: readonly Aspect[],
  { model, settings, signal }: Rater,
): Promise<Annotated<Rated>> {
  throwIfAborted(signal);
  const order = drawOrder([...answers.keys()], settings.seed, "order", id, wanted.length === 1 ? wanted[0]! : "all");
  const mark = markOf(prompt, answers);
  const count = answers.length;
  const structured = model.capabilities.schema;
  const content = ratingPrompt.fill({
    aspects: wanted.map((name) => aspectText(name)).join("\n\n"),
    mark,
    conversation: conversationText(prompt, mark),
    background: backgroundText(prompt, mark),
    responses: order
      .map((index, at) => responsePrompt.fill({ number: at + 1, mark, response: answers[index]! }))
      .join("\n\n"),
    form: structured
      ? ratingJsonForm.fill({ count, names: wanted.map((name) => aspects[name].title.toLowerCase()).join(", ") })
      : ratingForm(wanted, count),
  });
  const schema = structured ? { schema: { name: "ratings", schema: ratingSchema(wanted, count) } } : {};
  const maxTokens = 100 + tokensPerRating * wanted.length * count;
  const asked = await ask(
    model,
    {
      messages: [{ role: "user", content }],
      sampling: { maxTokens, temperature: 0, ...schema },
      purpose: "rate rating",
      ...(signal && { signal }),
    },
    (text) => parseRatings(text, wanted, count),
    { reasks: settings.reasks },
  );
  if (asked.problem !== undefined) return { problem: asked.problem, answers: textsOf(asked) };
  const ratings: Ratings[] = [];
  const places: number[] = [];
  for (const [at, index] of order.entries()) {
    ratings[index] = asked.value[at]!;
    places[index] = at;
  }
  return { value: { ratings, places: [places] }, answers: [] };
}

/** Criticises one answer. */
export async function criticise(
  prompt: FeedbackPrompt,
  answer: string,
  { model, settings, signal }: Rater,
): Promise<Annotated<Critique>> {
  throwIfAborted(signal);
  const mark = markOf(prompt, [answer]);
  const structured = model.capabilities.schema;
  const content = critiquePrompt.fill({
    mark,
    conversation: conversationText(prompt, mark),
    background: backgroundText(prompt, mark),
    response: answer,
    form: structured ? critiqueJsonForm : critiqueTextForm,
  });
  const asked = await ask(
    model,
    {
      messages: [{ role: "user", content }],
      sampling: {
        maxTokens: tokensOfCritique,
        temperature: 0,
        ...(structured ? { schema: { name: "critique", schema: critiqueSchema } } : {}),
      },
      purpose: "rate critique",
      ...(signal && { signal }),
    },
    parseCritique,
    { reasks: settings.reasks },
  );
  if (asked.problem !== undefined) return { problem: asked.problem, answers: textsOf(asked) };
  return { value: asked.value, answers: [] };
}

function textsOf({ tries }: Asked<unknown>): string[] {
  return tries.map(({ text }) => text);
}

/** A word that occurs in none of the texts: whoever does not know all of them cannot write it. */
function markOf(prompt: FeedbackPrompt, answers: readonly string[]): string {
  return promptId(JSON.stringify([prompt.history, prompt.instruction, answers])).slice(0, 8);
}

function aspectText(name: Aspect): string {
  const { title, question, scale } = aspects[name];
  return aspectPrompt.fill({
    title,
    question,
    scale: scale.map((text, index) => `  ${index + 1}: ${text}`).join("\n"),
  });
}

function conversationText({ history, instruction }: FeedbackPrompt, mark: string): string {
  const messages: Message[] = [...history, { role: "user", content: instruction }];
  return messages.map(({ role, content }) => messagePrompt.fill({ role, mark, content })).join("\n");
}

function backgroundText({ correctAnswers, incorrectAnswers }: FeedbackPrompt, mark: string): string {
  const list = (title: string, answers: readonly string[]) =>
    answers.length === 0 ? [] : [`${title}\n${answers.map((answer) => `- ${answer}`).join("\n")}`];
  // UltraFeedback writes ["None"] where nothing is known.
  const known = (answers: readonly string[]) => answers.filter((answer) => answer !== "None");
  const parts = [
    ...list("Known to be right:", known(correctAnswers)),
    ...list("Known to be wrong:", known(incorrectAnswers)),
  ];
  return parts.length === 0 ? "" : backgroundPrompt.fill({ mark, background: parts.join("\n\n") });
}
