/** Who the simulated users are, and what they do next. Our own texts. */
import type { Sector } from "../generate/sectors";

/** A simulated user. */
export interface Persona {
  name: string;
  /** Finishes the sentence "This person …". */
  description: string;
}

/** One is drawn for each conversation. */
export const personas: readonly Persona[] = [
  {
    name: "curious beginner",
    description: "knows little about the matter, is not shy to say so, and asks in simple words",
  },
  { name: "expert", description: "knows the matter well, uses its terms, and wants the details that others leave out" },
  {
    name: "in a hurry",
    description: "has little time, writes short sentences, and wants to know what to do",
  },
  {
    name: "sceptic",
    description: "is not easily convinced, looks for weak points in what was said, and asks how one knows that",
  },
  {
    name: "student",
    description: "prepares for an examination, wants to understand step by step, and checks the own understanding",
  },
  {
    name: "practical person",
    description: "has a real case at home or at work, tells a detail of it, and wants advice that fits it",
  },
  {
    name: "careful reader",
    description: "goes back to one particular word or sentence of the last answer and wants it explained or changed",
  },
  {
    name: "playful mind",
    description: "likes unusual ideas and asks what would be if one thing were different",
  },
];

/** What the simulated user does in the next turn; one is drawn for each. */
export const moves: Readonly<Record<Sector, readonly string[]>> = {
  world: [
    "ask for the reason behind something in the last answer",
    "ask for an example, or for a number, a name or a date",
    "ask how it compares with something near to it",
    "take up a side of the matter that the answer did not speak of",
    "say what is still unclear and ask about exactly that",
    "ask what follows from it in practice",
  ],
  writing: [
    "ask for a change of one part of the text, and say which",
    "ask for another tone, another reader or another length",
    "ask for something to be added that the text lacks",
    "ask for the text in another form",
    "say what is good about it, and what must be better",
  ],
  material: [
    "ask about another part of the given text",
    "ask where in the given text something is said, or whether it is said at all",
    "ask for the same in other words, shorter, or as a list",
    "ask what can be concluded from the given text, and what cannot",
    "ask to use the given text for something else",
  ],
};
