/** The texts that make conversations: topics, subtopics, first messages, given texts, both roles. All are our own. */
import type { Sector } from "../generate/sectors";
import { type Template, template } from "./template";

/** What a sector's conversations are about; fills the slot `kind`. */
export const kinds: Readonly<Record<Sector, string>> = {
  world:
    "questions about the world: facts and their reasons, how things work, comparisons, advice that rests on knowledge",
  writing: "requests to write or to create something: stories, letters, speeches, poems, plans, programs, lists",
  material:
    "work with a given text: questions about it, summaries, corrections, other forms of it, conclusions from it",
};

export const topicsPrompt = template(
  `We plan a collection of conversations between people and an assistant. It is about {{kind}}.

Name {{count}} topics for it. Choose them so that they differ as much as possible and together cover what people really ask for.

Answer with a numbered list of {{count}} lines, each a topic in a few words. Write nothing else.`,
);

export const subtopicsPrompt = template(
  `We plan a collection of conversations between people and an assistant. It is about {{kind}}. One of its topics is: {{topic}}

Divide this topic into {{count}} subtopics. Each should be narrow enough for one conversation, and no two should overlap.

Answer with a numbered list of {{count}} lines, each a subtopic in a few words. Write nothing else.`,
);

/** For the sectors without a given text. */
export const openingsPrompt = template(
  `We plan a collection of conversations between people and an assistant. It is about {{kind}}. The topic is: {{topic}}. The subtopic is: {{subtopic}}

Write {{count}} messages with which different people begin such a conversation. Each stands for itself, says all that is needed to answer it, and has {{length}}. Let them differ in content, in length and in how people speak.{{others}}

Answer with a numbered list of {{count}} lines, each a message. Write nothing else.`,
);

/** Fills the slot `others` when a subtopic is visited again. */
export const othersPrompt = template("\n\nThese are taken, write others:\n{{taken}}");

/** For material, when no file of texts is given. */
export const passagesPrompt = template(
  `We collect short texts that people may ask an assistant to work with. The topic is: {{topic}}. The subtopic is: {{subtopic}}

Write {{count}} such texts of {{length}} each, of different kinds: a report, a notice, a letter, a note, a page of a textbook. Fill them with facts that can be asked for.

Put a line with nothing but --- between two texts. Write nothing else.`,
);

/** First questions about a given text. */
export const materialPrompt = template(
  `Here is a text.

<text {{mark}}>
{{passage}}
</text {{mark}}>

Write {{count}} different requests that somebody who has this text could make to an assistant about it: questions that it answers, a question that it leaves open, a summary, a correction, another form, a conclusion. Do not repeat the text: it will stand beside your request.{{others}}

Answer with a numbered list of {{count}} lines, each a request. Write nothing else.`,
);

/** How a given text and the request about it become one message. The first is taken for texts of one line. */
export const joins: readonly Template<"passage" | "request">[] = [
  template("{{passage}} {{request}}"),
  template("{{passage}}\n\n{{request}}"),
  template("{{request}}\n\n{{passage}}"),
  template("I have this text:\n\n{{passage}}\n\n{{request}}"),
  template("{{request}}\n\nThis is the text:\n\n{{passage}}"),
];

/** The assistant's system message; it is not part of the rows. */
export const assistantPrompt = template(
  `You are a helpful, honest and knowledgeable assistant. Answer what was asked, in up to {{words}} words; short questions deserve short answers. If something is not known or the given text does not say it, say so. Do not speak of yourself.`,
);

/**
 * Stands after the history, not before it: a model that has just read the assistant's answer would otherwise go on as the
 * assistant (UltraChat's remedy for the exchange of roles).
 */
export const userPrompt = template(
  `Now take the other side. The conversation above is between a person and an assistant. Write the person's next message to the assistant.

This person {{persona}}.
In this message the person should {{move}}.

Write it as the person would type it, with {{length}}. Do not answer in place of the assistant, do not repeat an earlier message, do not only thank, and put no name before it.{{ending}}`,
);

/** What the simulated user writes when nothing is left to ask. */
export const endMark = "[END]";

/** Fills the slot `ending` when the conversation is long enough to end. */
export const endingPrompt = ` If this person has got everything and would now stop, write only ${endMark}`;
